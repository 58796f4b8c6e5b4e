package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/identity"
	"github.com/twinlun/twinlun/cluster/member"
	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/test/initiator"
)

// trio is a cluster of two sites and a witness, in this process.
type trio struct {
	t       *testing.T
	cfg     map[string]*config.Config
	portals map[string]string
	d       map[string]*Daemon
}

var trioNames = []string{"a", "b", "w"}

// newTrio makes the cluster, with one LUN that everybody sees at both sites.
func newTrio(t *testing.T) *trio {
	t.Helper()
	c := &trio{t: t, cfg: map[string]*config.Config{}, portals: map[string]string{}, d: map[string]*Daemon{}}
	for _, name := range trioNames {
		c.add(name)
	}
	if err := c.d["a"].cluster.Found(member.FoundOptions{Cluster: "test", Node: "a", Site: "paris", Addresses: []string{c.cfg["a"].Cluster.Listen}}); err != nil {
		t.Fatal(err)
	}
	c.join("b", "rome")
	c.join("w", "oslo")
	lun := &catalog.AddLUN{ID: catalog.UUID{1}, Name: "disk", Size: 16 << 20, BlockSize: 512, ExtentSize: 64 << 10, NAA: catalog.NAA{0x60, 1}, Preferred: "a", Loss: catalog.Hold, Epoch: catalog.UUID{2}}
	for _, name := range trioNames[:2] {
		lun.Replicas = append(lun.Replicas, catalog.Replica{Node: catalog.NodeID(name), Kind: catalog.File, Path: filepath.Join(c.cfg[name].DataDir, "disk.img")})
	}
	everybody := catalog.Subject{Host: "everybody"}
	for _, body := range []catalog.Body{
		lun,
		&catalog.PutTarget{Name: iqn, Portals: []catalog.Portal{{Node: "a", Address: c.portals["a"]}, {Node: "b", Address: c.portals["b"]}}},
		&catalog.PutHost{Name: "everybody", Initiators: []string{"*"}},
		&catalog.Map{Mapping: catalog.Mapping{Target: iqn, Subject: everybody, Number: 3, LUN: lun.ID}},
	} {
		c.do(body)
	}
	return c
}

// add starts a node that is in no cluster yet.
func (c *trio) add(name string) {
	c.t.Helper()
	cfg, err := config.Source{Environ: []string{
		"TWINLUN_DATA_DIR=" + filepath.Join(c.t.TempDir(), name), "TWINLUN_CLUSTER_LISTEN=" + freeAddress(c.t), "TWINLUN_STATUS_LISTEN=127.0.0.1:0",
	}}.Load()
	if err != nil {
		c.t.Fatal(err)
	}
	c.cfg[name], c.portals[name] = cfg, freeAddress(c.t)
	c.start(name)
	c.t.Cleanup(func() { c.stop(name) })
}

func (c *trio) start(name string) {
	c.t.Helper()
	d, err := Start(c.cfg[name], "test", slog.New(slog.NewTextHandler(c.t.Output(), nil)).With("at", name))
	if err != nil {
		c.t.Fatal(err)
	}
	c.d[name] = d
}

func (c *trio) stop(name string) {
	c.t.Helper()
	if c.d[name] == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := c.d[name].Stop(ctx); err != nil {
		c.t.Error(err)
	}
	c.d[name] = nil
}

func (c *trio) join(name, site string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	token, _, err := c.d["a"].cluster.Member().NewToken(ctx, "test", time.Hour)
	if err == nil {
		err = c.d[name].cluster.Join(ctx, token, identity.Newcomer{Node: name, Site: site, Addresses: []string{c.cfg[name].Cluster.Listen}, Witness: name == "w"})
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *trio) do(body catalog.Body) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := c.d["a"].cluster.Member().Do(ctx, "test", body); err != nil {
		c.t.Fatalf("%s: %v", body.Kind(), err)
	}
}

// host logs in at a site, again and again until something succeeds there.
func (c *trio) host(name string, do func(ctx context.Context, s *initiator.Session) error) {
	c.t.Helper()
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = c.try(name, do); err == nil {
			return
		}
	}
	c.t.Fatalf("site %s: %v", name, err)
}

func (c *trio) try(name string, do func(ctx context.Context, s *initiator.Session) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, err := initiator.Dial(ctx, initiator.Options{Address: c.portals[name], TargetIQN: iqn, InitiatorIQN: iqn + "-host", LUN: 3})
	if err != nil {
		return err
	}
	defer s.Close()
	return do(ctx, s)
}

func (c *trio) write(name string, block int, fill byte) {
	c.t.Helper()
	c.host(name, func(ctx context.Context, s *initiator.Session) error {
		return s.WriteAt(ctx, bytes.Repeat([]byte{fill}, 4096), int64(block)<<12)
	})
}

func (c *trio) read(name string, block int, want byte) {
	c.t.Helper()
	got := make([]byte, 4096)
	c.host(name, func(ctx context.Context, s *initiator.Session) error { return s.ReadAt(ctx, got, int64(block)<<12) })
	if !bytes.Equal(got, bytes.Repeat([]byte{want}, 4096)) {
		c.t.Errorf("site %s: block %d reads as %x…, not %x", name, block, got[:4], want)
	}
}

// until waits for a site's LUN.
func (c *trio) until(name, what string, holds func(d *Daemon) bool) {
	c.t.Helper()
	for end := time.Now().Add(time.Minute); !holds(c.d[name]); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			c.t.Fatalf("site %s: not %s: %s", name, what, fmt.Sprintf("%+v", c.d[name].Status()))
		}
	}
}

// TestCluster: two sites serve a LUN; one of them goes on alone while the other is away;
// and both serve again.
func TestCluster(t *testing.T) {
	c := newTrio(t)
	c.write("a", 1, 0x11)
	c.read("b", 1, 0x11)
	c.write("b", 2, 0x22)
	c.read("a", 2, 0x22)
	clean := func(d *Daemon) bool {
		s := d.Status()
		return len(s.LUNs) == 1 && s.LUNs[0].Serving && s.LUNs[0].Dirty == 0
	}
	for i, away := range []string{"a", "b", "a"} {
		here := map[string]string{"a": "b", "b": "a"}[away]
		c.until("a", "clean", clean)
		c.until("b", "clean", clean)
		c.stop(away)
		fill := byte(0x31 + i)
		c.write(here, 1, fill)
		c.write(here, 3, fill)
		c.read(here, 2, 0x22)
		c.start(away)
		c.read(away, 1, fill)
		c.read(away, 3, fill)
		c.write(away, 4, fill)
		c.read(here, 4, fill)
	}
	c.stop("w")
	c.write("a", 5, 0x55)
	c.read("b", 5, 0x55)
}

// TestDrain empties a site while a host uses the other one, stops it, and has it serve
// again.
func TestDrain(t *testing.T) {
	c := newTrio(t)
	for block := range 40 {
		c.write("a", 16*block, byte(block+1))
	}
	stop, written := make(chan struct{}), make(chan error)
	go func() { written <- c.load("b", stop) }()
	drained := func(yes bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := c.d["b"].cluster.Member().Do(ctx, "test", &catalog.ChangeNode{Name: "a", Drained: &yes}); err != nil {
			t.Fatal(err)
		}
	}
	serving := func(n int) func(*Daemon) bool {
		return func(d *Daemon) bool {
			l, _ := d.cluster.Member().State().LUN(catalog.UUID{1})
			return len(l.Serving) == n
		}
	}
	drained(true)
	c.until("b", "alone", serving(1))
	if err := c.try("a", func(context.Context, *initiator.Session) error { return nil }); err == nil {
		c.until("a", "without its target", func(d *Daemon) bool { return len(d.config().Targets) == 0 })
	}
	c.stop("a")
	for block := range 40 {
		c.read("b", 16*block, byte(block+1)) // also what only a had
	}
	if held := c.d["b"].Status().LUNs[0].Held; held > 0 {
		t.Errorf("%d commands failed", held)
	}
	c.start("a")
	time.Sleep(time.Second) // it must not serve by itself
	if !serving(1)(c.d["b"]) {
		t.Error("a site that is drained serves again")
	}
	drained(false)
	c.until("b", "together", serving(2))
	c.read("a", 16, 2)
	close(stop)
	if err := <-written; err != nil {
		t.Error(err)
	}
}

// TestReplicaAnew takes a replica out of a LUN, while hosts go on at the other one, and adds
// it again: in another file, and in the one of before. What was written meanwhile is in
// neither, and what their map files said counts no more.
func TestReplicaAnew(t *testing.T) {
	c := newTrio(t)
	lun := catalog.UUID{1}
	now := func() catalog.LUN {
		l, _ := c.d["b"].cluster.Member().State().LUN(lun)
		return l
	}
	path := now().Replicas[0].Path
	for i, at := range []string{path + ".2", path} {
		for block := range 8 {
			c.write("a", 16*block, byte(i+1))
		}
		c.do(&catalog.DrainReplica{LUN: lun, Node: "a", Drained: true})
		c.until("b", "alone", func(*Daemon) bool { l := now(); return l.Alone("b") })
		c.do(&catalog.RemoveReplica{LUN: lun, Node: "a"})
		c.until("a", "without the LUN", func(d *Daemon) bool { return len(d.Status().LUNs) == 0 })
		c.write("b", 16, 0x77)
		c.do(&catalog.AddReplica{LUN: lun, Replica: catalog.Replica{Node: "a", Kind: catalog.File, Path: at}})
		c.until("b", "together", func(*Daemon) bool { return len(now().Serving) == 2 })
		for block := range 8 {
			want := byte(i + 1)
			if block == 1 {
				want = 0x77
			}
			c.read("a", 16*block, want)
		}
	}
}

// TestNodeReplaced: a node has died for good, and another one of its site takes its place,
// wherever its name sorts.
func TestNodeReplaced(t *testing.T) {
	for _, name := range []string{"c", "0"} {
		t.Run(name, func(t *testing.T) { replaceNode(t, name) })
	}
}

func replaceNode(t *testing.T, name string) {
	c := newTrio(t)
	lun := catalog.UUID{1}
	for block := range 8 {
		c.write("a", 16*block, byte(block+1)) // what b had written would be held
	}
	c.stop("b")
	c.write("a", 16, 0x77)
	now := func() catalog.LUN {
		l, _ := c.d["a"].cluster.Member().State().LUN(lun)
		return l
	}
	c.until("a", "alone", func(*Daemon) bool { l := now(); return l.Alone("a") })
	c.add(name)
	c.join(name, "rome")
	c.do(&catalog.RemoveReplica{LUN: lun, Node: "b"})
	c.do(&catalog.AddReplica{LUN: lun, Replica: catalog.Replica{Node: catalog.NodeID(name), Kind: catalog.File, Path: filepath.Join(c.cfg[name].DataDir, "disk.img")}})
	c.do(&catalog.PutTarget{Name: iqn, Portals: []catalog.Portal{{Node: "a", Address: c.portals["a"]}, {Node: catalog.NodeID(name), Address: c.portals[name]}}})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.d["a"].cluster.Member().RemoveNode(ctx, "test", "b"); err != nil {
		t.Fatal(err)
	}
	for block := range 8 {
		want := byte(block + 1)
		if block == 1 {
			want = 0x77
		}
		c.read(name, 16*block, want)
	}
	c.write(name, 2048, 0x22)
	c.read("a", 2048, 0x22)
}

// load writes at a site until stop, in one session, and tells what went wrong.
func (c *trio) load(name string, stop <-chan struct{}) error {
	ctx := context.Background()
	s, err := initiator.Dial(ctx, initiator.Options{Address: c.portals[name], TargetIQN: iqn, InitiatorIQN: iqn + "-load", LUN: 3})
	if err != nil {
		return err
	}
	defer s.Close()
	p := make([]byte, 4096)
	for n := 0; ; n++ {
		select {
		case <-stop:
			return nil
		default:
		}
		err := s.WriteAt(ctx, p, int64(2048+n%64)<<12)
		var check *initiator.CheckCondition
		if errors.As(err, &check) && (check.Key == initiator.SenseUnitAttention || check.Key == initiator.SenseNotReady) {
			continue // as hosts do: it was done while the lease ran out, and could not be acknowledged
		}
		if err != nil {
			return fmt.Errorf("write %d: %w", n, err)
		}
	}
}
