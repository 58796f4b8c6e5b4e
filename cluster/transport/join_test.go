package transport

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twinlun/twinlun/cluster/identity"
)

// once admits whoever has one token, once.
type once struct {
	hash identity.TokenHash
	used atomic.Bool
}

func (o *once) Admit(_ context.Context, hash identity.TokenHash, _ *identity.JoinRequest) error {
	switch {
	case !o.hash.Equal(hash):
		return identity.ErrTokenUnknown
	case !o.used.CompareAndSwap(false, true):
		return identity.ErrTokenUsed
	}
	return nil
}

// joinWorld is a cluster of one node, a, that was founded in a folder.
func joinWorld(t *testing.T, limits Limits) (*world, *Port, *identity.Token) {
	t.Helper()
	n, err := identity.Found(t.TempDir(), "a", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	w.ca = n.Authority()
	admission := new(once)
	p := w.run(n, func(cfg *Config) {
		cfg.Join = (&identity.Issuer{Node: n, Admission: admission}).Join
		cfg.Limits = limits
	})
	token, err := w.ca.NewToken([]string{"127.0.0.1:1", w.where(p)}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	admission.hash = token.Secret.Hash(token.Cluster)
	return w, p, token
}

func apply(t *testing.T, node string, token *identity.Token) *identity.Applicant {
	t.Helper()
	a, err := identity.Apply(t.TempDir(), identity.Newcomer{Node: node, Site: "north", Addresses: []string{"127.0.0.1:7480"}}, token)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// A node that joins with a token, as text, is a node like all others.
func TestJoinCluster(t *testing.T) {
	w, a, token := joinWorld(t, Limits{})
	token, err := identity.ParseToken(token.Text())
	if err != nil {
		t.Fatal(err)
	}
	came := listen(t, a, "", Raft)
	n, err := JoinCluster(within(t), token, apply(t, "b", token))
	if err != nil {
		t.Fatal(err)
	}
	b := w.run(n, nil)
	speak(t, dial(t, b, "a", Raft), await(t, came, "b's connection"))
	if _, err := JoinCluster(within(t), token, apply(t, "c", token)); err == nil || !strings.Contains(err.Error(), identity.ErrTokenUsed.Error()) {
		t.Errorf("a used token: %v", err)
	}
	token.Secret[0]++
	if _, err := JoinCluster(within(t), token, apply(t, "c", token)); err == nil || !strings.Contains(err.Error(), identity.ErrTokenUnknown.Error()) {
		t.Errorf("an unknown token: %v", err)
	}
}

// Nobody but a node of the pinned CA gets the secret.
func TestJoinPins(t *testing.T) {
	w1, a, _ := joinWorld(t, Limits{})
	_, _, token := joinWorld(t, Limits{})
	asked := false
	a.cfg.Join = func(context.Context, []byte) ([]byte, error) { asked = true; return nil, nil }
	token.Addresses = []string{w1.where(a)}
	if _, err := JoinCluster(within(t), token, apply(t, "b", token)); err == nil || asked || !strings.Contains(err.Error(), "not the cluster") {
		t.Errorf("another cluster: asked %v, %v", asked, err)
	}
	// A node of the right cluster whose certificate has ended.
	w := newWorld(t)
	old, err := w.ca.NewNode("old", time.Now().Add(-2*time.Hour), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	p := w.run(old, func(cfg *Config) { cfg.Join = a.cfg.Join })
	if token, err = w.ca.NewToken([]string{w.where(p)}, time.Now(), time.Hour); err != nil {
		t.Fatal(err)
	}
	if _, err := JoinCluster(within(t), token, apply(t, "b", token)); err == nil || asked || !strings.Contains(err.Error(), "expired") {
		t.Errorf("an expired certificate: asked %v, %v", asked, err)
	}
}

// A node that cannot decide sends the new one on.
func TestJoinNotHere(t *testing.T) {
	w, a, token := joinWorld(t, Limits{})
	witness := w.node("w", func(cfg *Config) {
		cfg.Join = (&identity.Issuer{Node: cfg.Node}).Join
	})
	token.Addresses = []string{w.where(witness), w.where(a)}
	if _, err := JoinCluster(within(t), token, apply(t, "b", token)); err != nil {
		t.Error(err)
	}
	a.cfg.Join = nil
	if _, err := JoinCluster(within(t), token, apply(t, "b", token)); err == nil || !strings.Contains(err.Error(), "ask another one") {
		t.Errorf("%v", err)
	}
}

// A Join connection is for one request: it is bounded in size, time and number, and
// nothing else can be had over it.
func TestJoinLimits(t *testing.T) {
	w, a, token := joinWorld(t, Limits{Joins: 2, JoinTime: 300 * time.Millisecond})
	config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{string(Join)}}
	shake := func() *tls.Conn {
		raw, err := net.Dial("tcp", w.where(a))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { raw.Close() })
		raw.SetDeadline(time.Now().Add(patience))
		c := tls.Client(raw, config)
		if err := c.Handshake(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	for what, say := range map[string]string{
		"nothing": "", "half": "\x00\x00\x00\x09{", "a long request": "\x00\x00\x40\x01", "a very long one": "\xff\xff\xff\xff",
	} {
		c := shake()
		io.WriteString(c, say)
		if got, err := io.ReadAll(c); len(got) > 0 || err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
	c := shake()
	if err := writeMessage(c, []byte("no JSON")); err != nil {
		t.Fatal(err)
	}
	answer := new(identity.JoinAnswer)
	if got, err := readMessage(c); err != nil || json.Unmarshal(got, answer) != nil || answer.Refused == "" || answer.Certificate != nil {
		t.Errorf("no JSON: %q, %v", got, err)
	}
	// Two that hold their places, and one more.
	entered, leave := make(chan bool), make(chan bool)
	a.cfg.Join = func(context.Context, []byte) ([]byte, error) { entered <- true; <-leave; return []byte("{}"), nil }
	defer close(leave)
	for inside := 0; inside < 2; {
		c := shake()
		writeMessage(c, nil)
		closed := make(chan error)
		go func() {
			_, err := c.Read(make([]byte, 1))
			closed <- err
		}()
		select {
		case <-entered:
			inside++
			go func() { <-closed }()
		case <-closed: // those before still keep their places for a moment
		}
	}
	if _, err := JoinCluster(within(t), token, apply(t, "b", token)); err == nil || !strings.Contains(err.Error(), "try again") {
		t.Errorf("a third: %v", err)
	}
}
