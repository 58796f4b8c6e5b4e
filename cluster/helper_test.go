package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twinlun/twinlun/cluster/identity"
	"github.com/twinlun/twinlun/cluster/transport"
	"github.com/twinlun/twinlun/replication/emulator"
)

// patience is how long a test waits for what must happen: long, as nothing depends on
// it but how a failure looks.
const patience = 60 * time.Second

// list is an FSM: the commands that were applied, each with its place.
type list struct {
	mu      sync.Mutex
	Cmds    []string
	unknown string        // a command that it cannot apply
	gate    chan struct{} // nil: open; else each command waits until it is closed
}

func (l *list) Apply(cmd []byte, index uint64) (any, error) {
	if l.gate != nil {
		<-l.gate
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.unknown != "" && string(cmd) == l.unknown {
		return nil, errUnknown
	}
	l.Cmds = append(l.Cmds, string(cmd))
	return len(l.Cmds), nil
}

var errUnknown = errors.New("a command that is not known here")

func (l *list) Snapshot() (func(w io.Writer) error, error) {
	cmds := l.all()
	return func(w io.Writer) error { return json.NewEncoder(w).Encode(cmds) }, nil
}

func (l *list) Restore(r io.Reader) error {
	var cmds []string
	if err := json.NewDecoder(r).Decode(&cmds); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.Cmds = cmds
	return nil
}

func (l *list) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.Cmds)
}

// world has the nodes of a cluster, with a line from each to each.
type world struct {
	t      *testing.T
	ca     *identity.CA
	change func(cfg *Config)
	nodes  map[string]*member
	lines  map[[2]string]*emulator.Line // from, to
}

// member is one node, which can be stopped and started again.
type member struct {
	*Node
	w    *world
	id   *identity.Node
	port *transport.Port
	dir  string
	fsm  *list
}

func newWorld(t *testing.T, change func(cfg *Config), names ...string) *world {
	t.Helper()
	first, err := identity.Found(t.TempDir(), names[0], time.Now())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, ca: first.Authority(), change: change, nodes: map[string]*member{}, lines: map[[2]string]*emulator.Line{}}
	w.add(first)
	for _, name := range names[1:] {
		id, err := w.ca.NewNode(name, time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		w.add(id)
	}
	for _, from := range names {
		for _, to := range names {
			if from != to {
				w.connect(from, to)
			}
		}
	}
	return w
}

// add makes a node's port.
func (w *world) add(id *identity.Node) {
	name := id.Name()
	m := &member{w: w, id: id, dir: w.t.TempDir()}
	m.port = transport.New(transport.Config{
		Node:    id,
		Allowed: func(identity.Peer) error { return nil },
		Addresses: func(node string) []string {
			if line := w.lines[[2]string{name, node}]; line != nil {
				return []string{line.Addr()}
			}
			return nil
		},
		Log: slog.New(slog.DiscardHandler),
	})
	w.nodes[name] = m
}

// connect makes the line from one node to another, and has the other one listen at its
// end.
func (w *world) connect(from, to string) {
	w.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	line, err := emulator.Start(emulator.Config{Listen: "127.0.0.1:0", Target: ln.Addr().String(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		w.t.Fatal(err)
	}
	w.lines[[2]string{from, to}] = line
	port, ended := w.nodes[to].port, make(chan error, 1)
	go func() { ended <- port.Serve(ln) }()
	w.t.Cleanup(func() {
		line.Close()
		port.Close()
		<-ended
	})
}

// cut parts a node from all others, or heals it.
func (w *world) cut(name string, s emulator.State) {
	for ends, line := range w.lines {
		if ends[0] == name || ends[1] == name {
			line.Set(s)
		}
	}
}

func (m *member) start(found bool) {
	m.w.t.Helper()
	m.fsm = new(list)
	cfg := Config{
		Dir: m.dir, Identity: m.id, Port: m.port, FSM: m.fsm, Found: found,
		Log: slog.New(slog.NewTextHandler(m.w.t.Output(), nil)).With("at", m.id.Name()),
	}
	if m.w.change != nil {
		m.w.change(&cfg)
	}
	n, err := Start(cfg)
	if err != nil {
		m.w.t.Fatal(err)
	}
	m.Node = n
	m.w.t.Cleanup(m.stop)
}

// stop is like the death of the process, for all that the others see.
func (m *member) stop() {
	if m.Node == nil {
		return
	}
	if err := m.Node.Close(); err != nil {
		m.w.t.Error(err)
	}
	m.Node = nil
}

// startAll makes one group of all nodes, of which the first founds it.
func (w *world) startAll(names ...string) {
	w.t.Helper()
	for i, name := range names {
		w.nodes[name].start(i == 0)
		if i > 0 {
			if err := w.nodes[names[0]].SetMember(w.ctx(), Member{name, true}); err != nil {
				w.t.Fatal(err)
			}
		}
	}
}

func (w *world) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	w.t.Cleanup(cancel)
	return ctx
}

// propose has a node propose, and checks that the result is its own.
func (w *world) propose(at, cmd string) {
	w.t.Helper()
	m := w.nodes[at]
	result, err := m.Propose(w.ctx(), []byte(cmd))
	if err != nil {
		w.t.Fatalf("%s proposes %s: %v", at, cmd, err)
	}
	if n, ok := result.(int); !ok || m.fsm.all()[n-1] != cmd {
		w.t.Errorf("%s proposes %s, and gets the result %v of another command", at, cmd, result)
	}
}

// check compares what nodes have applied.
func (w *world) check(want []string, at ...string) {
	w.t.Helper()
	for _, name := range at {
		m := w.nodes[name]
		if err := m.Sync(w.ctx()); err != nil {
			w.t.Fatalf("%s: %v", name, err)
		}
		if got := m.fsm.all(); !slices.Equal(got, want) {
			w.t.Errorf("%s has %q, not %q", name, got, want)
		}
	}
}

// until waits for what comes by itself.
func (w *world) until(what string, reached func() bool) {
	w.t.Helper()
	for end := time.Now().Add(patience); !reached(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("waited %v until %s", patience, what)
		}
	}
}

// leader waits until all of these agree on one of them, which leads.
func (w *world) leader(among ...string) (name string) {
	w.t.Helper()
	w.until(fmt.Sprintf("one of %v leads", among), func() bool {
		name = w.nodes[among[0]].Leader()
		for _, other := range among {
			if w.nodes[other].Leader() != name {
				return false
			}
		}
		return slices.Contains(among, name) && w.nodes[name].Stats().State == "Leader"
	})
	return name
}

func numbered(prefix string, from, to int) (all []string) {
	for i := from; i < to; i++ {
		all = append(all, fmt.Sprintf("%s%d", prefix, i))
	}
	return all
}
