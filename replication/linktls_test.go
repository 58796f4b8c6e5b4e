package replication

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twinlun/twinlun/cluster/identity"
	"github.com/twinlun/twinlun/cluster/transport"
)

// linkWay puts the two ends of a link on top of something.
type linkWay func(t testing.TB) (change func(cfg *LinkConfig))

// linkWays are what a link must behave alike on.
var linkWays = map[string]linkWay{
	"TCP": func(testing.TB) func(*LinkConfig) { return func(*LinkConfig) {} },
	"TLS": overTLS,
}

// onEveryWay runs a test on each.
func onEveryWay(t *testing.T, test func(t *testing.T, change func(cfg *LinkConfig))) {
	for name, way := range linkWays {
		t.Run(name, func(t *testing.T) {
			checkLeaks(t)
			test(t, way(t))
		})
	}
}

func changes(all ...func(cfg *LinkConfig)) func(cfg *LinkConfig) {
	return func(cfg *LinkConfig) {
		for _, change := range all {
			change(cfg)
		}
	}
}

// overTLS makes a cluster of two, and lets them talk through its ports: whoever has an
// address dials that, whoever has a listener serves it.
func overTLS(t testing.TB) func(cfg *LinkConfig) {
	t.Helper()
	ca, err := identity.NewCA(identity.NewClusterID(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return func(cfg *LinkConfig) {
		p := newPort(t, ca, cfg.Self, cfg.Address)
		if cfg.Listener != nil {
			cfg.Listener = servePort(t, p, cfg.Listener, cfg.Peer)
			return
		}
		peer := cfg.Peer
		cfg.Dial = func(ctx context.Context, stream int) (net.Conn, error) {
			protocol := transport.Bulk
			if stream == 0 {
				protocol = transport.Control
			}
			return p.Dial(ctx, peer, protocol)
		}
	}
}

func newPort(t testing.TB, ca *identity.CA, node, peerAddress string) *transport.Port {
	t.Helper()
	n, err := ca.NewNode(node, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	p := transport.New(transport.Config{
		Node:      n,
		Allowed:   func(identity.Peer) error { return nil },
		Addresses: func(string) []string { return []string{peerAddress} },
		Log:       slog.New(slog.DiscardHandler),
	})
	t.Cleanup(func() { p.Close() })
	return p
}

func servePort(t testing.TB, p *transport.Port, ln net.Listener, from string) net.Listener {
	t.Helper()
	l, err := p.Listen(from, transport.Control, transport.Bulk)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- p.Serve(ln) }()
	t.Cleanup(func() {
		p.Close()
		<-ended
	})
	return l
}

// Who a node is, its connection proves; HELLO cannot say otherwise.
func TestLinkProvenPeer(t *testing.T) {
	checkLeaks(t)
	ca, err := identity.NewCA(identity.NewClusterID(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	b := newLinkRecord(t)
	ln := linkListen(t)
	startLink(t, LinkConfig{Self: "b", Peer: "a", Listener: servePort(t, newPort(t, ca, "b", ""), ln, "")}, b)
	c := newPort(t, ca, "c", ln.Addr().String())
	node := startLink(t, LinkConfig{Self: "a", Peer: "b", Dial: func(ctx context.Context, stream int) (net.Conn, error) {
		return c.Dial(ctx, "b", transport.Control)
	}}, newLinkRecord(t))
	for until := time.Now().Add(linkWait); !strings.Contains(node.link.Stats().LastError, "c says that it is a"); time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("a says %q", node.link.Stats().LastError)
		}
	}
	if len(b.up) > 0 {
		t.Error("the link came up")
	}
}
