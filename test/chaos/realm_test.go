package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/test/failover"
	"github.com/twinlun/twinlun/test/initiator"
	"github.com/twinlun/twinlun/test/lab"
	"github.com/twinlun/twinlun/test/multipath"
	"github.com/twinlun/twinlun/webui/api"
	"github.com/twinlun/twinlun/webui/client"
)

const (
	iqn        = "iqn.2026-01.org.example:chaos"
	nodesPort  = 7480
	iscsiPort  = 3260
	patience   = time.Minute // it bounds a failure: nothing waits for it to pass
	lunSize    = 256 << 20
	checkPaths = 100 * time.Millisecond
)

// realm is a running cluster that can be broken: a failover.Cluster.
type realm struct {
	t     testing.TB
	lab   *lab.Lab
	hosts *lab.Node
	size  int64 // of the LUN
	nodes map[failover.Role]*node
}

// node is a site or the witness.
type node struct {
	*lab.Node
	role    failover.Role
	dir     string
	process *lab.Process // nil: it does not run
	stopped bool
}

var roles = []failover.Role{failover.SiteA, failover.SiteB, failover.Witness}

// newRealm makes a cluster, with one LUN that everybody sees. dirs are the nodes' folders,
// if they are not to be the test's.
func newRealm(t testing.TB, dirs map[failover.Role]string) *realm {
	t.Helper()
	return newRealmOf(t, dirs, lunSize)
}

// newRealmOf is newRealm with a LUN of so many bytes.
func newRealmOf(t testing.TB, dirs map[failover.Role]string, size int64) *realm {
	t.Helper()
	r := &realm{t: t, size: size, nodes: map[failover.Role]*node{}}
	root := t.TempDir()
	t.Cleanup(func() {
		if t.Failed() {
			r.tell()
		}
		r.checkLogs()
	})
	r.lab = lab.New(t, "a", "b", "w", "hosts")
	r.hosts = r.lab.Node("hosts")
	for i, role := range roles {
		name := []string{"a", "b", "w"}[i]
		n := &node{Node: r.lab.Node(name), role: role, dir: filepath.Join(root, name)}
		if dir := dirs[role]; dir != "" {
			n.dir = dir
		}
		r.nodes[role] = n
		r.must(os.MkdirAll(n.dir, 0o700))
		r.must(r.start(n))
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r.must(r.found(ctx))
	r.must(r.Mend(ctx))
	return r
}

func (r *realm) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (n *node) log() string         { return filepath.Join(n.dir, "twinlund.log") }
func (n *node) api() *client.Client { return client.Local(filepath.Join(n.dir, "api.sock")) }

// start starts a node's daemon.
func (r *realm) start(n *node) error {
	args := []string{"--data-dir", n.dir, "--cluster-listen", n.At(nodesPort)}
	if n.role == failover.Witness {
		args = append(args, "--witness")
	}
	p, err := n.Start(n.log(), filepath.Join(bin, "twinlund"), args...)
	if err != nil {
		return err
	}
	n.process, n.stopped = p, false
	return nil
}

// found makes the cluster as an operator does.
func (r *realm) found(ctx context.Context) error {
	a := r.nodes[failover.SiteA]
	first := a.api()
	if err := eventually(ctx, func() error { _, err := first.Node(ctx); return err }); err != nil {
		return err
	}
	if _, err := first.Init(ctx, api.NewCluster{Cluster: "chaos", Node: "a", Site: "a", Addresses: []string{a.At(nodesPort)}}); err != nil {
		return err
	}
	lun := api.NewLUN{Name: "disk", Size: r.size, Replicas: []api.NewReplica{{Node: "a", Path: filepath.Join(a.dir, "disk.img")}}}
	target := api.TargetBody{Portals: []catalog.Portal{{Node: "a", Address: a.At(iscsiPort)}}}
	for _, role := range roles[1:] {
		n := r.nodes[role]
		if err := eventually(ctx, func() error { _, err := n.api().Node(ctx); return err }); err != nil {
			return err
		}
		token, err := first.CreateToken(ctx, api.NewToken{Life: "1h"})
		if err != nil {
			return err
		}
		witness := role == failover.Witness
		if _, err := n.api().Join(ctx, api.NewMember{Token: token.Token, Node: n.Name, Site: n.Name, Addresses: []string{n.At(nodesPort)}, Witness: witness}); err != nil {
			return err
		}
		if !witness {
			lun.Replicas = append(lun.Replicas, api.NewReplica{Node: catalog.NodeID(n.Name), Path: filepath.Join(n.dir, "disk.img")})
			target.Portals = append(target.Portals, catalog.Portal{Node: catalog.NodeID(n.Name), Address: n.At(iscsiPort)})
		}
	}
	cold := catalog.Duration(500 * time.Millisecond) // so that little is held when a site is lost
	_, err := first.ChangeSettings(ctx, api.SettingsChange{ColdAfter: &cold})
	for _, step := range []func() error{
		func() error { _, err := first.CreateLUN(ctx, lun); return err },
		func() error { _, err := first.PutTarget(ctx, iqn, target); return err },
		func() error {
			_, err := first.PutHost(ctx, "everybody", api.HostBody{Initiators: []string{"*"}})
			return err
		},
		func() error { return first.Map(ctx, api.Mapping{Target: iqn, Host: "everybody", LUN: "disk"}) },
	} {
		if err == nil {
			err = step()
		}
	}
	return err
}

// eventually tries until it succeeds, or ctx ends.
func eventually(ctx context.Context, f func() error) error {
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; the last: %w", context.Cause(ctx), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Kill implements failover.Cluster.
func (r *realm) Kill(role failover.Role) error {
	n := r.nodes[role]
	if n.process == nil {
		return nil
	}
	err := n.process.Kill()
	n.process, n.stopped = nil, false
	return err
}

// Halt implements failover.Cluster.
func (r *realm) Halt(role failover.Role) error {
	n := r.nodes[role]
	if n.process == nil || n.stopped {
		return nil
	}
	n.stopped = true
	return n.process.Stop()
}

// Resume takes a Halt back, and starts what was killed.
func (r *realm) Resume(role failover.Role) error {
	n := r.nodes[role]
	switch {
	case n.process == nil:
		return r.start(n)
	case n.stopped:
		n.stopped = false
		return n.process.Continue()
	}
	return nil
}

// Cut implements failover.Cluster.
func (r *realm) Cut(x, y failover.Role) error { return r.lab.Cut(r.nodes[x].Node, r.nodes[y].Node) }

// CutOneWay implements failover.Cluster.
func (r *realm) CutOneWay(from, to failover.Role) error {
	return r.lab.CutOneWay(r.nodes[from].Node, r.nodes[to].Node)
}

// Isolate implements failover.Cluster.
func (r *realm) Isolate(role failover.Role) error { return r.lab.Isolate(r.nodes[role].Node) }

// Mend implements failover.Cluster.
func (r *realm) Mend(ctx context.Context) error {
	if err := r.lab.HealAll(); err != nil {
		return err
	}
	for _, role := range roles {
		if err := r.Resume(role); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return eventually(ctx, func() error {
		if _, err := r.nodes[failover.Witness].api().Node(ctx); err != nil {
			return err
		}
		return errors.Join(r.whole(ctx, failover.SiteA), r.whole(ctx, failover.SiteB))
	})
}

// whole tells what a site lacks to serve, and to hold nothing that the other one does not.
func (r *realm) whole(ctx context.Context, role failover.Role) error {
	s, err := r.nodes[role].api().Node(ctx)
	if err != nil {
		return err
	}
	if len(s.LUNs) != 1 {
		return fmt.Errorf("%s has %d LUNs", role, len(s.LUNs))
	}
	l := s.LUNs[0]
	if l.Role != "together" || !l.Serving || l.Dirty > 0 || l.Owned > 0 {
		return fmt.Errorf("%s: role %s, serving %t (%s), %d bytes dirty, %d extents owned", role, l.Role, l.Serving, l.Why, l.Dirty, l.Owned)
	}
	return nil
}

func (r *realm) options(name string, role failover.Role) initiator.Options {
	return initiator.Options{
		Address: r.nodes[role].At(iscsiPort), TargetIQN: iqn, InitiatorIQN: "iqn.2026-01.org.example:" + name,
		Dial: r.hosts.DialContext, PingInterval: time.Second,
	}
}

// Host implements failover.Cluster.
func (r *realm) Host(_ context.Context, role failover.Role) (failover.Host, error) {
	return multipath.New(multipath.Options{Paths: []initiator.Options{r.options("stalls", role)}, Timeout: failover.AimMax + 2*time.Second, Check: checkPaths})
}

// tell shows what the daemons have said.
func (r *realm) tell() {
	for _, role := range roles {
		if n := r.nodes[role]; n != nil {
			text, _ := os.ReadFile(n.log())
			r.t.Logf("end of the log of %s:\n%s", role, text[max(0, len(text)-8000):])
		}
	}
}

// checkLogs looks for what must never happen.
func (r *realm) checkLogs() {
	for _, role := range roles {
		n := r.nodes[role]
		if n == nil {
			continue
		}
		text, err := os.ReadFile(n.log())
		if err != nil {
			r.t.Error(err)
		}
		for _, word := range []string{"panic:", "fatal error:", "DATA RACE", "cannot happen"} {
			if i := bytes.Index(text, []byte(word)); i >= 0 {
				r.t.Errorf("%s: %s", role, text[i:min(len(text), i+3000)])
			}
		}
	}
}
