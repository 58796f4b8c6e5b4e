package transport

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twinlun/twinlun/cluster/identity"
)

var protocols = []Protocol{Raft, Cluster, Control, Bulk}

// Every protocol takes bytes both ways, over IPv4 and IPv6, and both ends know who the
// other one is.
func TestDial(t *testing.T) {
	w := newWorld(t)
	a, b := w.node("a", nil), w.node("b", nil)
	came := listen(t, b, "", protocols...)
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		w.addresses["b"] = nil
		w.serve(b, "b", address)
		for _, protocol := range protocols {
			out := dial(t, a, "b", protocol)
			in := await(t, came, "the connection")
			if out.Peer() != "b" || in.Peer() != "a" || in.Protocol() != protocol || out.Protocol() != protocol ||
				in.Identity() != a.cfg.Node.Self() || out.Identity() != b.cfg.Node.Self() {
				t.Errorf("%s from %v to %v", in.Protocol(), in.Identity(), out.Identity())
			}
			if s := out.ConnectionState(); s.Version != tls.VersionTLS13 {
				t.Errorf("TLS version %x", s.Version)
			}
			speak(t, out, in)
			speak(t, in, out)
			if err := out.CloseWrite(); err != nil {
				t.Error(err)
			}
			if n, err := in.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("behind CloseWrite: %d, %v", n, err)
			}
			speak(t, in, out)
			in.Close()
			if n, err := out.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("behind Close: %d, %v", n, err)
			}
		}
	}
}

func speak(t *testing.T, from, to *Conn) {
	t.Helper()
	said := []byte("from " + to.Peer() + " over " + string(to.Protocol()))
	if _, err := from.Write(said); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(said))
	if _, err := io.ReadFull(to, got); err != nil || !bytes.Equal(got, said) {
		t.Errorf("%q arrived as %q, %v", said, got, err)
	}
}

// A connection goes to the listener for its node, or else to that for all.
func TestListeners(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.node("a", nil), w.node("b", nil), w.node("c", nil)
	fromB, others := listen(t, a, "b", Control, Bulk), listen(t, a, "", Control)
	dial(t, b, "a", Bulk)
	dial(t, b, "a", Control)
	for range 2 {
		if got := await(t, fromB, "b's connections"); got.Peer() != "b" {
			t.Errorf("%s got that of %v", "b's listener", got.Peer())
		}
	}
	dial(t, c, "a", Control)
	if got := await(t, others, "c's connection"); got.Peer() != "c" {
		t.Errorf("the listener for all got that of %v", got.Peer())
	}
	if _, err := a.Listen("", Raft, Control); err == nil {
		t.Error("two listeners for one protocol")
	}
	if _, err := c.Dial(within(t), "a", Bulk); err == nil || !strings.Contains(err.Error(), "not ready") {
		t.Errorf("a connection that nobody takes: %v", err)
	}
}

// A Listener that is closed leaves nothing open, and may be made again.
func TestListenerClose(t *testing.T) {
	w := newWorld(t)
	a, b := w.node("a", nil), w.node("b", nil)
	for range 3 {
		l, err := a.Listen("", Raft)
		if err != nil {
			t.Fatal(err)
		}
		waits := dial(t, b, "a", Raft)
		l.Close()
		l.Close()
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept: %v", err)
		}
		if _, err := waits.Read(make([]byte, 1)); err == nil {
			t.Error("what nobody has accepted is open")
		}
	}
}

// intruder is somebody who wants to talk to node b.
type intruder struct {
	who    string
	config func(w *world) *tls.Config
}

// certified shows a node's certificate, and checks nothing.
func certified(n *identity.Node) *tls.Config {
	return &tls.Config{
		InsecureSkipVerify:   true,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return n.Certificate(), nil },
	}
}

func issued(w *world, ca *identity.CA, name string, now time.Time) *tls.Config {
	n, err := ca.NewNode(name, now, time.Hour)
	if err != nil {
		w.t.Fatal(err)
	}
	return certified(n)
}

var intruders = []intruder{
	{"without a certificate", func(*world) *tls.Config { return &tls.Config{InsecureSkipVerify: true} }},
	{"with an expired certificate", func(w *world) *tls.Config { return issued(w, w.ca, "d", time.Now().Add(-2*time.Hour)) }},
	{"with one that begins later", func(w *world) *tls.Config { return issued(w, w.ca, "d", time.Now().Add(2*time.Hour)) }},
	{"of another cluster", func(w *world) *tls.Config { return issued(w, newWorld(w.t).ca, "a", time.Now()) }},
	{"of another CA for this cluster", func(w *world) *tls.Config {
		ca, err := identity.NewCA(w.ca.Cluster(), time.Now().Add(-24*time.Hour))
		if err != nil {
			w.t.Fatal(err)
		}
		return issued(w, ca, "a", time.Now())
	}},
	{"who was removed", func(w *world) *tls.Config {
		n := w.identity("gone")
		w.remove("gone")
		return certified(n)
	}},
	{"with a second certificate for a node", func(w *world) *tls.Config { return issued(w, w.ca, "a", time.Now()) }},
	{"with this node's own name", func(w *world) *tls.Config { return issued(w, w.ca, "b", time.Now()) }},
	{"who speaks TLS 1.2", func(w *world) *tls.Config {
		c := certified(w.identity("e"))
		c.MaxVersion = tls.VersionTLS12
		return c
	}},
	{"who has a certificate and not its key", func(w *world) *tls.Config {
		c := issued(w, w.ca, "f", time.Now())
		stolen, own := w.identity("g").Certificate(), w.identity("h").Certificate()
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &tls.Certificate{Certificate: stolen.Certificate, PrivateKey: own.PrivateKey}, nil
		}
		return c
	}},
}

// Strangers get nothing at all out of any protocol, and nobody sees their connections.
func TestStrangersGetNothing(t *testing.T) {
	w := newWorld(t)
	a, b := w.node("a", nil), w.node("b", nil)
	came := listen(t, b, "", protocols...)
	for _, s := range intruders {
		config := s.config(w)
		for _, offer := range [][]string{{string(Raft)}, {string(Cluster)}, {string(Control)}, {string(Bulk)}, {string(Join), string(Raft)}} {
			config.NextProtos = offer
			if got := knock(t, w.where(b), config); len(got) > 0 {
				t.Errorf("somebody %s who offers %q gets %q", s.who, offer, got)
			}
		}
	}
	config := certified(w.identity("i"))
	for _, offer := range [][]string{nil, {"h2"}, {"twinlun-raft/2", "http/1.1"}} {
		config.NextProtos = offer
		if got := knock(t, w.where(b), config); len(got) > 0 {
			t.Errorf("a node that offers %q gets %q", offer, got)
		}
	}
	if len(came) > 0 {
		t.Errorf("a connection from %v came through", (<-came).Identity())
	}
	config.NextProtos = []string{string(Raft)} // the test can fail
	if got := knock(t, w.where(b), config); !bytes.Equal(got, []byte{welcome}) || await(t, came, "the node").Peer() != "i" {
		t.Errorf("a node gets %q", got)
	}
	dial(t, a, "b", Raft)
}

// knock connects like this, and returns what comes.
func knock(t *testing.T, address string, config *tls.Config) []byte {
	t.Helper()
	raw, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(patience))
	c := tls.Client(raw, config)
	if c.Handshake() != nil {
		return nil
	}
	c.Write([]byte("let me in"))
	got := make([]byte, 1)
	n, err := io.ReadFull(c, got)
	if errors.Is(err, net.ErrClosed) || n == 0 && strings.Contains(err.Error(), "timeout") {
		t.Errorf("no answer at all: %v", err)
	}
	return got[:n]
}

// A dialer takes only the node that it wants, with a certificate that is good.
func TestDialerChecks(t *testing.T) {
	w := newWorld(t)
	a, b := w.node("a", nil), w.node("b", nil)
	listen(t, b, "", protocols...)
	other := newWorld(t)
	foreign := other.node("z", nil)
	listen(t, foreign, "", protocols...)
	second, err := w.ca.NewNode("c", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	w.identity("c")
	old, err := w.ca.NewNode("d", time.Now().Add(-2*time.Hour), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []*identity.Node{second, old} {
		listen(t, w.run(n, nil), "", protocols...)
	}
	w.addresses["wrong"] = w.addresses["b"]
	w.addresses["z"] = other.addresses["z"]
	w.addresses["self"] = w.addresses["a"]
	w.remove("gone")
	w.addresses["gone"] = w.addresses["b"]
	for node, says := range map[string]string{
		"wrong": "not wrong.", "z": "not z.", "c": "another key", "d": "expired", "self": "certificate is valid for a.", "nobody": "no address", "gone": "certificate is valid for b",
	} {
		c, err := a.Dial(within(t), node, Raft)
		if err == nil {
			t.Errorf("%s: is taken: %v", node, c.Identity())
		} else if !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", node, err)
		}
	}
}

// The first address that answers counts, whatever the others do.
func TestDialAddresses(t *testing.T) {
	w := newWorld(t)
	a, b := w.node("a", nil), w.node("b", nil)
	came := listen(t, b, "", Raft)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	good := w.addresses["b"][0]
	w.addresses["b"] = []string{closed.Addr().String(), silent.Addr().String(), good}
	if c := dial(t, a, "b", Raft); c.RemoteAddr().String() != good {
		t.Errorf("connected with %v", c.RemoteAddr())
	}
	await(t, came, "the connection")
	w.addresses["b"] = []string{closed.Addr().String(), closed.Addr().String()}
	if _, err := a.Dial(within(t), "b", Raft); err == nil || strings.Count(err.Error(), "refused") != 2 {
		t.Errorf("nobody there: %v", err)
	}
}

// A node that is removed loses what it has open, and gets nothing new, in either
// direction.
func TestRemoved(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.node("a", nil), w.node("b", nil), w.node("c", nil)
	cameA, cameC := listen(t, a, "", protocols...), listen(t, c, "", protocols...)
	fromC, fromB := dial(t, c, "a", Raft), dial(t, b, "a", Raft)
	await(t, cameA, "a connection")
	await(t, cameA, "a connection")
	toC := dial(t, a, "c", Bulk)
	await(t, cameC, "a connection")
	w.remove("c")
	a.Recheck()
	for _, open := range []*Conn{fromC, toC} {
		if _, err := open.Read(make([]byte, 1)); err == nil {
			t.Error("a connection with the removed node is open")
		}
	}
	c.cfg.Allowed = func(identity.Peer) error { return nil } // c has not heard of it, or does not care
	if _, err := c.Dial(within(t), "a", Raft); !errors.Is(err, ErrRefused) {
		t.Errorf("the removed node dials: %v", err)
	}
	if _, err := a.Dial(within(t), "c", Raft); !errors.Is(err, errRemoved) {
		t.Errorf("the removed node is dialed: %v", err)
	}
	if _, err := fromB.Write([]byte("still here")); err != nil || len(a.conns()) != 1 {
		t.Errorf("the other node's connection: %v; %d are open", err, len(a.conns()))
	}
}

// A node that is removed while it is in its handshake, behind the first look, does not
// get through.
func TestRemovedMeanwhile(t *testing.T) {
	w := newWorld(t)
	b := w.node("b", nil)
	for looks := int32(1); looks <= 2; looks++ {
		var asked atomic.Int32
		a := w.node("a", func(cfg *Config) {
			cfg.Allowed = func(identity.Peer) error {
				if asked.Add(1) > looks {
					return errRemoved
				}
				return nil
			}
		})
		w.addresses["a"] = w.addresses["a"][len(w.addresses["a"])-1:]
		came := listen(t, a, "", Raft)
		if _, err := b.Dial(within(t), "a", Raft); err == nil || asked.Load() != looks+1 {
			t.Errorf("removed behind look %d of %d: %v", looks, asked.Load(), err)
		}
		a.Close()
		if len(came)+len(a.conns()) > 0 {
			t.Errorf("removed behind look %d: came through", looks)
		}
	}
}

// Connections stay up while a node's certificate is renewed, and new ones have the new
// one.
func TestRenewed(t *testing.T) {
	w := newWorld(t)
	a, b := w.node("a", nil), w.node("b", nil)
	came := listen(t, b, "", Raft)
	before := dial(t, a, "b", Raft)
	beforeIn := await(t, came, "a connection")
	for _, p := range []*Port{a, b} {
		cert, err := w.ca.Issue(p.cfg.Node.Name(), p.cfg.Node.Certificate().Leaf.PublicKey, time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.cfg.Node.Replace(cert.Raw, time.Now()); err != nil {
			t.Fatal(err)
		}
		p.Recheck()
	}
	speak(t, before, beforeIn)
	speak(t, beforeIn, before)
	after := dial(t, a, "b", Raft)
	afterIn := await(t, came, "a connection")
	for old, renewed := range map[*Conn]*Conn{before: after, beforeIn: afterIn} {
		x, y := old.ConnectionState().PeerCertificates[0], renewed.ConnectionState().PeerCertificates[0]
		if x.SerialNumber.Cmp(y.SerialNumber) == 0 || old.Identity() != renewed.Identity() {
			t.Errorf("%v was renewed to %v", old.Identity(), renewed.Identity())
		}
	}
}

// TrySend never waits, whatever the other end does; what it leaves Send sends; and all
// comes in order.
func TestTrySend(t *testing.T) {
	w := newWorld(t)
	a, b := w.node("a", nil), w.node("b", nil)
	came := listen(t, b, "", Bulk)
	out, in := dial(t, a, "b", Bulk), await(t, came, "the connection")
	piece := func(i int) []byte { return bytes.Repeat(binary.BigEndian.AppendUint32(nil, uint32(i)), 1+i*37%9000) }
	var want []byte
	n := 0
	for all := true; all; n++ {
		all = out.TrySend(net.Buffers{piece(n), piece(n + 1)})
		if want = slices.Concat(want, piece(n), piece(n+1)); n > 100_000 {
			t.Fatal("the socket takes everything")
		}
	}
	large := bytes.Repeat([]byte("large"), 1<<20)
	want = append(append(want, piece(3)...), large...)
	sent := make(chan error)
	go func() { sent <- out.Send(net.Buffers{piece(3), large}) }()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(in, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes came otherwise than they were sent: %v", len(want), err)
	}
	if err := await(t, sent, "Send"); err != nil {
		t.Error(err)
	}
	if !out.TrySend(net.Buffers{[]byte("x")}) {
		t.Error("an idle socket does not take a byte")
	}
	in.Close()
	for out.TrySend(net.Buffers{piece(1)}) { // until the kernel has noticed
	}
	if err := out.Send(nil); err == nil {
		t.Error("Send to nobody succeeds")
	}
}

// A port that is closed leaves nothing behind.
func TestPortClose(t *testing.T) {
	w := newWorld(t)
	a, b := w.node("a", nil), w.node("b", nil)
	l, err := a.Listen("", Raft)
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, b, "a", Raft)
	a.Close()
	a.Close()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a connection is open")
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v", err)
	}
	if _, err := a.Dial(within(t), "b", Raft); err == nil {
		t.Error("a closed port dials")
	}
	if _, err := a.Listen("", Bulk); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Listen: %v", err)
	}
	if ln, err := net.Listen("tcp", "127.0.0.1:0"); err != nil || !errors.Is(a.Serve(ln), net.ErrClosed) {
		t.Errorf("a closed port serves (%v)", err)
	}
}
