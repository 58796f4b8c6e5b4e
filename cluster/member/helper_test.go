package member

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twinlun/twinlun/cluster"
	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/identity"
	"github.com/twinlun/twinlun/test/logs"
)

// patience is how long a test waits for what must happen: long, as nothing depends on it
// but how a failure looks.
const patience = 60 * time.Second

// world has the nodes of a cluster, each with a folder and an address that stay.
type world struct {
	t     *testing.T
	nodes map[string]*node
}

// node is one daemon, as far as it is a member.
type node struct {
	*Member
	w       *world
	name    string
	dir     string
	address string

	said logs.Text // its log

	mu   sync.Mutex
	seen []string // what Applied was told
	late []string // of that, what State showed before
}

func newWorld(t *testing.T) *world { return &world{t: t, nodes: map[string]*node{}} }

func (w *world) node(name string) *node {
	w.t.Helper()
	if n := w.nodes[name]; n != nil {
		return n
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	defer ln.Close()
	n := &node{w: w, name: name, dir: w.t.TempDir(), address: ln.Addr().String()}
	w.nodes[name] = n
	w.t.Cleanup(n.stop)
	return n
}

func (n *node) config() Config {
	n.w.t.Helper()
	ln, err := net.Listen("tcp", n.address)
	if err != nil {
		n.w.t.Fatal(err)
	}
	return Config{
		Dir: n.dir, Listen: []net.Listener{ln}, Applied: n.applied,
		Log: slog.New(slog.NewTextHandler(io.MultiWriter(n.w.t.Output(), &n.said), nil)).With("at", n.name),
	}
}

func (n *node) applied(s *catalog.State, r catalog.Result) {
	n.mu.Lock()
	defer n.mu.Unlock()
	what := fmt.Sprintf("state %t", !(s.Cluster() == catalog.Cluster{}))
	if r.Command.Body != nil {
		what = r.Command.Body.Kind()
		if n.Member != nil && n.State().Index() >= s.Index() {
			n.late = append(n.late, what)
		}
	}
	n.seen = append(n.seen, what)
}

func (n *node) told() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.seen)
}

func (n *node) set(m *Member, err error) {
	n.w.t.Helper()
	if err != nil {
		n.w.t.Fatal(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.Member = m
}

func (w *world) found(name string) *node {
	w.t.Helper()
	n := w.node(name)
	m, err := Found(n.config(), FoundOptions{Cluster: "prod", Node: name, Site: "site-" + name, Addresses: []string{n.address}})
	n.set(m, err)
	return n
}

func (n *node) newcomer() identity.Newcomer {
	return identity.Newcomer{Node: n.name, Site: "site-" + n.name, Addresses: []string{n.address}, Witness: n.name == "w"}
}

func (n *node) token() string {
	n.w.t.Helper()
	text, expires, err := n.NewToken(n.w.ctx(), "test", time.Hour)
	if err != nil {
		n.w.t.Fatal(err)
	}
	if left := time.Until(expires); left < 50*time.Minute || left > time.Hour {
		n.w.t.Errorf("the token expires in %v", left)
	}
	return text
}

func (w *world) join(name, token string) *node {
	w.t.Helper()
	n := w.node(name)
	m, err := Join(w.ctx(), n.config(), token, n.newcomer())
	n.set(m, err)
	return n
}

// three are the members of a cluster, all with a vote: a, which has founded it, b, and
// the witness w.
func three(t *testing.T) (w *world, all []*node) {
	t.Helper()
	w = newWorld(t)
	a := w.found("a")
	all = []*node{a, w.join("b", a.token()), w.join("w", a.token())}
	w.vote("a", "b", "w")
	return w, all
}

// stop is like the death of the process.
func (n *node) stop() {
	n.mu.Lock()
	m := n.Member
	n.Member = nil
	n.mu.Unlock()
	if m == nil {
		return
	}
	if err := m.end(); err != nil {
		n.w.t.Error(err)
	}
}

func (n *node) open() {
	n.w.t.Helper()
	m, err := Open(n.config())
	n.set(m, err)
}

func (w *world) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	w.t.Cleanup(cancel)
	return ctx
}

// briefly is for what must not happen.
func (w *world) briefly() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	w.t.Cleanup(cancel)
	return ctx
}

// rename has a node change the catalog.
func (w *world) rename(at *node, name string) {
	w.t.Helper()
	if _, err := at.Do(w.ctx(), "user eve", &catalog.RenameCluster{Name: name}); err != nil {
		w.t.Fatalf("at %s: %v", at.name, err)
	}
	if got := at.State().Cluster().Name; got != name {
		w.t.Errorf("%s is told that it is done, and the cluster is called %q", at.name, got)
	}
}

// agree checks that nodes have the same catalog.
func (w *world) agree(nodes ...*node) {
	w.t.Helper()
	w.until("all have the same catalog", func() bool {
		for _, n := range nodes {
			if err := n.Sync(w.ctx()); err != nil {
				w.t.Fatalf("at %s: %v", n.name, err)
			}
		}
		return !slices.ContainsFunc(nodes, func(n *node) bool { return !n.State().Equal(nodes[0].State()) })
	})
}

// vote waits until these are the group's members, at all of them, and have a vote.
func (w *world) vote(names ...string) {
	w.t.Helper()
	var want []cluster.Member
	for _, name := range names {
		want = append(want, cluster.Member{Node: name, Voter: true})
	}
	w.until(fmt.Sprintf("%v have a vote", names), func() bool {
		for _, name := range names {
			got, err := w.nodes[name].Members()
			slices.SortFunc(got, func(a, b cluster.Member) int { return cmp.Compare(a.Node, b.Node) })
			if err != nil || !slices.Equal(got, want) {
				return false
			}
		}
		return true
	})
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

// leader waits until one of these leads, and all know it.
func (w *world) leader(among ...*node) (leader *node) {
	w.t.Helper()
	w.until("somebody leads", func() bool {
		name := among[0].Leader()
		for _, n := range among {
			if n.Leader() != name {
				return false
			}
			if n.name == name {
				leader = n
			}
		}
		return leader != nil && leader.name == name
	})
	return leader
}

func without(nodes []*node, gone *node) []*node {
	return slices.DeleteFunc(slices.Clone(nodes), func(n *node) bool { return n == gone })
}
