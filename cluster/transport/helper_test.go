package transport

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/twinlun/twinlun/cluster/identity"
)

// patience is how long a test waits for what must happen: long, as nothing depends on
// it but how a failure looks.
const patience = 30 * time.Second

var errRemoved = errors.New("it was removed")

// world is a cluster: its CA, its list of nodes, and their ports.
type world struct {
	t  testing.TB
	ca *identity.CA

	mu        sync.Mutex
	known     map[string]identity.Fingerprint
	removed   map[string]bool
	addresses map[string][]string
}

func newWorld(t testing.TB) *world {
	t.Helper()
	ca, err := identity.NewCA(identity.NewClusterID(), time.Now().Add(-24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, ca: ca, known: map[string]identity.Fingerprint{}, removed: map[string]bool{}, addresses: map[string][]string{}}
}

// allowed is the table in the identity package's DESIGN.md.
func (w *world) allowed(p identity.Peer) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.removed[p.Node] {
		return errRemoved
	}
	if key, ok := w.known[p.Node]; ok && key != p.Key {
		return errors.New("it has another key")
	}
	return nil
}

func (w *world) remove(node string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.removed[node] = true
}

func (w *world) addressesOf(node string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.addresses[node]
}

// where is the address on which a port has listened last.
func (w *world) where(p *Port) string {
	all := w.addressesOf(p.cfg.Node.Name())
	return all[len(all)-1]
}

// identity makes a node and enters it in the list.
func (w *world) identity(name string) *identity.Node {
	w.t.Helper()
	n, err := w.ca.NewNode(name, time.Now(), time.Hour)
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known[name] = n.Self().Key
	return n
}

// node runs a new node's port.
func (w *world) node(name string, change func(cfg *Config)) *Port {
	w.t.Helper()
	return w.run(w.identity(name), change)
}

func (w *world) run(n *identity.Node, change func(cfg *Config)) *Port {
	w.t.Helper()
	cfg := Config{
		Node: n, Allowed: w.allowed, Addresses: w.addressesOf, Limits: Limits{Handshake: patience},
		Log: slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&cfg)
	}
	p := New(cfg)
	w.serve(p, n.Name(), "127.0.0.1:0")
	return p
}

// serve has a port listen.
func (w *world) serve(p *Port, name, address string) {
	w.t.Helper()
	ln, err := net.Listen("tcp", address)
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.addresses[name] = append(w.addresses[name], ln.Addr().String())
	w.mu.Unlock()
	ended := make(chan error, 1)
	go func() { ended <- p.Serve(ln) }()
	w.t.Cleanup(func() {
		p.Close()
		if err := await(w.t, ended, "Serve to end"); !errors.Is(err, net.ErrClosed) {
			w.t.Errorf("Serve ended with %v", err)
		}
	})
}

func await[T any](t testing.TB, from <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(patience):
		t.Fatalf("waited %v for %s", patience, what)
	}
	return v
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// listen gathers what comes.
func listen(t testing.TB, p *Port, node string, protocols ...Protocol) chan *Conn {
	t.Helper()
	l, err := p.Listen(node, protocols...)
	if err != nil {
		t.Fatal(err)
	}
	came := make(chan *Conn, 1000)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.SetDeadline(time.Now().Add(patience))
			came <- c.(*Conn)
		}
	}()
	return came
}

func dial(t testing.TB, p *Port, node string, protocol Protocol) *Conn {
	t.Helper()
	c, err := p.Dial(within(t), node, protocol)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}
