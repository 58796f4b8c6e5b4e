package member

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinlun/twinlun/cluster"
	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/identity"
	"github.com/twinlun/twinlun/cluster/transport"
)

// A node is removed: what it has open ends, it is refused everywhere, and says so in its
// log; its token and its name are of no use. Whoever leads, the others go on.
func TestRemoveNode(t *testing.T) {
	for _, name := range []string{"b", "w", "a"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			a := w.found("a")
			tokens := map[string]string{"b": a.token(), "w": a.token()}
			all := []*node{a, w.join("b", tokens["b"]), w.join("w", tokens["w"])}
			w.vote("a", "b", "w")
			gone := w.nodes[name]
			rest := without(all, gone)
			open, err := gone.Port().Dial(w.ctx(), rest[0].name, transport.Cluster)
			if err != nil {
				t.Fatal(err)
			}
			defer open.Close()
			if err := rest[1].RemoveNode(w.ctx(), "user eve", name); err != nil {
				t.Fatal(err)
			}
			open.SetDeadline(time.Now().Add(patience))
			if _, err := open.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("its connection: %v", err)
			}
			w.vote(rest[0].name, rest[1].name)
			for _, n := range rest {
				if _, err := gone.Port().Dial(w.ctx(), n.name, transport.Raft); !errors.Is(err, transport.ErrRefused) {
					t.Errorf("%s: %v", n.name, err)
				}
				if _, err := n.Port().Dial(w.ctx(), name, transport.Raft); err == nil {
					t.Errorf("%s talks to it", n.name)
				}
				w.rename(n, "by-"+n.name)
			}
			w.until("it notices", func() bool { return gone.refusal() != nil })
			if _, err := gone.Do(w.briefly(), "user eve", &catalog.RenameCluster{Name: "x"}); err == nil {
				t.Error("it still has a say")
			}
			if err := rest[0].RemoveNode(w.ctx(), "user eve", name); err != nil {
				t.Errorf("once more: %v", err)
			}
			if name == "a" {
				return // which never had a token
			}
			again := w.node("again")
			as := gone.newcomer()
			if _, err := Join(w.ctx(), again.config(), tokens[name], as); err == nil || !strings.Contains(err.Error(), "used already") {
				t.Errorf("its token: %v", err)
			}
			if _, err := Join(w.ctx(), again.config(), rest[0].anyToken(rest), as); err == nil || !strings.Contains(err.Error(), "another name") {
				t.Errorf("its name: %v", err)
			}
			gone.stop()
			gone.open() // and is refused as before
			if _, err := gone.Port().Dial(w.ctx(), rest[0].name, transport.Raft); !errors.Is(err, transport.ErrRefused) {
				t.Errorf("anew: %v", err)
			}
		})
	}
}

// anyToken is of whichever of these can make one.
func (n *node) anyToken(of []*node) string {
	i := slices.IndexFunc(of, func(n *node) bool { return !n.Witness() })
	return of[i].token()
}

// Of two voters one goes, also if it leads; the other goes on alone, and cannot go.
func TestRemoveOfTwo(t *testing.T) {
	w := newWorld(t)
	a := w.found("a")
	b := w.join("b", a.token())
	w.vote("a", "b")
	if err := a.RemoveNode(w.ctx(), "user eve", "a"); catalog.CodeOf(err) != catalog.Conflict {
		t.Errorf("a removes itself: %v", err)
	}
	if err := b.RemoveNode(w.ctx(), "user eve", "a"); err != nil {
		t.Fatal(err)
	}
	w.vote("b")
	w.rename(b, "alone")
	w.until("a says that it is out", func() bool { return strings.Contains(a.said.String(), "does not talk to this node any longer") })
	vote := false
	if _, err := b.Do(w.ctx(), "user eve", &catalog.ChangeNode{Name: "b", Voter: &vote}); catalog.CodeOf(err) != catalog.Conflict {
		t.Errorf("the last vote: %v", err)
	}
	if err := b.RemoveNode(w.ctx(), "user eve", "x"); catalog.CodeOf(err) != catalog.NotFound {
		t.Errorf("no node: %v", err)
	}
}

// A node whose vote is needed is not removed, and keeps its vote.
func TestRemoveNeeded(t *testing.T) {
	w, all := three(t)
	a, b := all[0], all[1]
	all[2].stop()
	w.leader(a, b)
	vote := false
	for what, err := range map[string]error{
		"removed": a.RemoveNode(w.ctx(), "user eve", "b"),
		"no vote": func() error {
			_, err := a.Do(w.ctx(), "user eve", &catalog.ChangeNode{Name: "b", Voter: &vote})
			return err
		}(),
	} {
		if catalog.CodeOf(err) != catalog.Conflict || !strings.Contains(err.Error(), "1 of the 2 other voters") || !strings.Contains(err.Error(), "bring these back first: w") {
			t.Errorf("%s: %v", what, err)
		}
	}
	w.rename(b, "x")
	if n, _ := a.State().Node("b"); !n.Voter {
		t.Error("b has lost its vote")
	}
	if err := a.RemoveNode(w.ctx(), "user eve", "w"); err != nil {
		t.Errorf("a node that is away is removed: %v", err)
	}
	w.vote("a", "b")
	all[2].open()
	w.until("it notices", func() bool { return all[2].refusal() != nil })
}

// A vote is taken and given back, also that of who leads.
func TestVotes(t *testing.T) {
	w, all := three(t)
	for range 2 {
		leader := w.leader(all...)
		if leader.Witness() {
			break // it has led since a moment ago, and w is as good as any
		}
		for _, vote := range []bool{false, true} {
			if _, err := leader.Do(w.ctx(), "user eve", &catalog.ChangeNode{Name: leader.Self(), Voter: &vote}); err != nil {
				t.Fatal(err)
			}
			w.until("the group follows", func() bool {
				got, err := all[1].Members()
				return err == nil && slices.Contains(got, cluster.Member{Node: leader.name, Voter: vote})
			})
			w.rename(leader, "x")
		}
	}
	w.vote("a", "b", "w")
}

// strangers try to talk to a member.
func strangers(t *testing.T) (w *world, a *node, between []transport.Protocol) {
	w = newWorld(t)
	return w, w.found("a"), []transport.Protocol{transport.Raft, transport.Cluster}
}

// knock connects with a member, and returns what comes.
func (n *node) knock(protocol transport.Protocol, cert *tls.Certificate) []byte {
	n.w.t.Helper()
	raw, err := net.Dial("tcp", n.address)
	if err != nil {
		n.w.t.Fatal(err)
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(patience))
	config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{string(protocol)}}
	if cert != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	c := tls.Client(raw, config)
	if c.Handshake() != nil {
		return nil
	}
	got := make([]byte, 1)
	k, err := io.ReadFull(c, got)
	if k == 0 && strings.Contains(err.Error(), "timeout") {
		n.w.t.Errorf("no answer at all: %v", err)
	}
	return got[:k]
}

// refuses checks that a certificate gets nothing.
func (n *node) refuses(between []transport.Protocol, cert *tls.Certificate) {
	n.w.t.Helper()
	for _, protocol := range between {
		if got := n.knock(protocol, cert); len(got) > 0 {
			n.w.t.Errorf("%s: gets %q", protocol, got)
		}
	}
}

func certificate(t *testing.T, ca *identity.CA, name string, at time.Time) *tls.Certificate {
	t.Helper()
	n, err := ca.NewNode(name, at, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return n.Certificate()
}

func TestStrangerWithoutCertificate(t *testing.T) {
	_, a, between := strangers(t)
	a.refuses(between, nil)
}

func TestStrangerExpired(t *testing.T) {
	w, a, between := strangers(t)
	// The node is in the catalog, and only its certificate has ended.
	b := w.join("b", a.token())
	w.vote("a", "b")
	old, err := a.id.Authority().Issue("b", b.id.Certificate().Leaf.PublicKey, time.Now().Add(-2*time.Hour), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	now := b.id.Certificate()
	b.stop()
	a.refuses(between, &tls.Certificate{Certificate: [][]byte{old.Raw, now.Certificate[1]}, PrivateKey: now.PrivateKey})
	for _, protocol := range between { // the test can fail
		if got := a.knock(protocol, now); string(got) != "W" {
			t.Errorf("%s: a good certificate gets %q", protocol, got)
		}
	}
}

func TestStrangerOfAnotherCluster(t *testing.T) {
	_, a, between := strangers(t)
	other := newWorld(t).found("b")
	a.refuses(between, other.id.Certificate())
	ca, err := identity.NewCA(a.id.Cluster(), time.Now()) // who calls his cluster the same
	if err != nil {
		t.Fatal(err)
	}
	a.refuses(between, certificate(t, ca, "b", time.Now()))
}

func TestStrangerWithASecondKey(t *testing.T) {
	w, a, between := strangers(t)
	w.join("b", a.token())
	a.refuses(between, certificate(t, a.id.Authority(), "b", time.Now()))
	a.refuses(between, certificate(t, a.id.Authority(), "a", time.Now()))
}
