package chaos

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/test/failover"
	"github.com/twinlun/twinlun/test/initiator"
	"github.com/twinlun/twinlun/test/multipath"
	"github.com/twinlun/twinlun/webui/api"
)

// at runs a command at a site, as an operator does.
func (r *realm) at(ctx context.Context, role failover.Role, args ...string) string {
	r.t.Helper()
	return r.twinlun(ctx, append(args, "--socket", filepath.Join(r.nodes[role].dir, "api.sock"))...)
}

// recover has an operator make a new group at site b, and checks what he is told.
func (r *realm) recover(ctx context.Context, lost ...string) {
	r.t.Helper()
	out := r.at(ctx, failover.SiteB, "cluster", "recover", "--yes-i-know", "chaos")
	for _, word := range append(lost, "served by the replica that is left: disk", "has a new group, led by node b") {
		if !strings.Contains(out, word) {
			r.t.Errorf("the operator is not told %q:\n%s", word, out)
		}
	}
}

// replace has a new node join at the place of one that is lost.
func (r *realm) replace(ctx context.Context, role failover.Role, name string) (lost *node) {
	r.t.Helper()
	lost = r.nodes[role]
	at, err := r.lab.Add(name)
	r.must(err)
	n := &node{Node: at, role: role, dir: filepath.Join(r.t.TempDir(), name)}
	r.must(os.MkdirAll(n.dir, 0o700))
	r.must(r.start(n))
	r.nodes[role] = n
	r.must(eventually(ctx, func() error { _, err := n.api().Node(ctx); return err }))
	token := strings.TrimSpace(r.at(ctx, failover.SiteB, "token", "create"))
	args := []string{"join", token, "--node", name, "--site", lost.Name, "--address", n.At(nodesPort)}
	if role == failover.Witness {
		args = append(args, "--witness")
	}
	r.at(ctx, role, args...)
	return lost
}

// reserve has a host register for persistent reservations, which needs a majority.
func (r *realm) reserve(ctx context.Context, role failover.Role, key uint64) error {
	o := r.options("reserver", role)
	o.ISID = [6]byte{0x80, 5: byte(key)}
	s, err := initiator.Dial(ctx, o)
	if err != nil {
		return err
	}
	defer s.Close()
	for err = s.TestUnitReady(ctx); ; err = s.TestUnitReady(ctx) { // that the nexus was lost is told first
		if check := new(initiator.CheckCondition); !errors.As(err, &check) || check.Key != 6 {
			break
		}
	}
	if err != nil {
		return err
	}
	list := binary.BigEndian.AppendUint64(make([]byte, 8, 24), key)
	_, err = s.Command(ctx, []byte{0x5f, 6, 0, 8: 24, 9: 0}, append(list, make([]byte, 8)...), nil) // SPC-4 6.16, REGISTER AND IGNORE EXISTING KEY
	return err
}

// adopted tells whether the cluster has agreed that site b serves alone.
func (r *realm) adopted(ctx context.Context) error {
	l, err := r.nodes[failover.SiteB].api().LUN(ctx, "disk")
	if err == nil && !l.Alone("b") {
		err = fmt.Errorf("served by %v in term %d", l.Serving, l.Term)
	}
	return err
}

// TestRecover: site a and the witness are destroyed. Site b is forced to serve, and makes a
// new group while hosts go on; new nodes take the places of the lost ones, one of which
// comes back and gets nothing. Then all is lost once more, and nobody forces.
func TestRecover(t *testing.T) {
	r := newRealmOf(t, nil, 64<<20)
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	a, b := r.host("host-a", failover.SiteA), r.host("host-b", failover.SiteB)
	r.must(a.WriteAt(ctx, fill(0x11), 0))
	r.must(b.WriteAt(ctx, fill(0x12), blockAt))
	r.must(r.Mend(ctx))
	r.must(r.Kill(failover.Witness))
	r.must(r.Kill(failover.SiteA))
	r.force(ctx, failover.SiteB)
	r.must(b.WriteAt(ctx, fill(0x22), 2*blockAt))

	stop := r.writing(ctx, b)
	r.recover(ctx, "  a  ", "w (witness)")
	r.must(eventually(ctx, func() error { return r.adopted(ctx) }))
	written := stop()
	r.must(eventually(ctx, func() error { return r.reserve(ctx, failover.SiteB, 7) }))
	if out := r.at(ctx, failover.SiteB, "status"); !strings.Contains(out, "Recovery 1:") || strings.Count(out, "given up") != 2 {
		t.Errorf("status:\n%s", out)
	}

	r.replace(ctx, failover.Witness, "v")
	old := r.replace(ctx, failover.SiteA, "c")
	r.at(ctx, failover.SiteB, "lun", "replica", "move", "disk", "a", "c="+filepath.Join(r.nodes[failover.SiteA].dir, "disk.img"), "--yes")
	_, err := r.nodes[failover.SiteB].api().PutTarget(ctx, iqn, api.TargetBody{Portals: []catalog.Portal{
		{Node: "b", Address: r.nodes[failover.SiteB].At(iscsiPort)}, {Node: "c", Address: r.nodes[failover.SiteA].At(iscsiPort)}}})
	r.must(err)
	r.must(r.Mend(ctx))
	c := r.host("host-c", failover.SiteA)
	for _, host := range []*multipath.Client{b, c} {
		r.reads(ctx, host, 0, 0x11)
		r.reads(ctx, host, 1, 0x12)
		r.reads(ctx, host, 2, 0x22)
		r.reads(ctx, host, 3, written)
	}
	r.must(c.WriteAt(ctx, fill(0x31), 0))
	r.must(b.WriteAt(ctx, fill(0x32), blockAt))
	r.tells(ctx, "an operator has made a new group at node b")

	r.comesBack(ctx, old, a)
	for _, name := range []string{"a", "w"} {
		r.at(ctx, failover.SiteB, "node", "remove", name, "--yes")
	}
	r.same(t)

	r.must(r.Kill(failover.Witness))
	r.must(r.Kill(failover.SiteA))
	_, err = r.nodes[failover.SiteB].api().Recover(ctx, api.Recover{Confirm: "chaos", GiveUp: []catalog.NodeID{"c", "v"}})
	r.must(err)
	r.must(b.WriteAt(ctx, fill(0x42), 0))
	r.must(r.adopted(ctx))
	r.reads(ctx, b, 1, 0x32)
}

// writing writes to a block all the time, and must not fail, until stop, which returns what
// it has written last.
func (r *realm) writing(ctx context.Context, c *multipath.Client) (stop func() byte) {
	end, done := make(chan struct{}), make(chan byte)
	go func() {
		last := byte(1)
		for ; ; last = last%0x7f + 1 {
			if err := c.WriteAt(ctx, fill(last), 3*blockAt); err != nil {
				r.t.Errorf("while the cluster is recovered: %v", err)
			}
			select {
			case <-end:
				done <- last
				return
			default:
			}
		}
	}()
	return func() byte {
		close(end)
		return <-done
	}
}

// comesBack starts a node that was given up, with the folder that it had: it is told that it
// is out, and no host gets anything from it.
func (r *realm) comesBack(ctx context.Context, old *node, host *multipath.Client) {
	r.t.Helper()
	r.must(r.start(old))
	for path, words := range map[string]string{old.log(): "given up by a recovery", r.nodes[failover.SiteB].log(): "it was given up when the cluster was recovered"} {
		r.must(eventually(ctx, func() error {
			text, err := os.ReadFile(path)
			if err == nil && !strings.Contains(string(text), words) {
				err = fmt.Errorf("%s does not say %q", path, words)
			}
			return err
		}))
	}
	waits, done := context.WithTimeout(ctx, tooLong)
	defer done()
	if err := host.ReadAt(waits, make([]byte, 4096), 0); err == nil {
		r.t.Error("a node that was given up serves")
	}
	s, err := old.api().Node(ctx)
	r.must(err)
	if len(s.LUNs) != 1 || s.LUNs[0].Lease || s.LUNs[0].Alone {
		r.t.Errorf("a node that was given up: %+v", s.LUNs)
	}
	r.must(old.process.Kill())
	old.process = nil
}
