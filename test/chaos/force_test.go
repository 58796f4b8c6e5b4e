package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/test/failover"
	"github.com/twinlun/twinlun/test/multipath"
	"github.com/twinlun/twinlun/webui/api"
)

// Blocks of the tests are in extents of their own.
const (
	blockAt = 1 << 20
	tooLong = 3 * time.Second // for a host that is not to be answered
)

func fill(b byte) []byte { return bytes.Repeat([]byte{b}, 4096) }

// reads checks what a host reads from a block.
func (r *realm) reads(ctx context.Context, c *multipath.Client, block int64, want byte) {
	r.t.Helper()
	got := make([]byte, 4096)
	r.must(c.ReadAt(ctx, got, block*blockAt))
	if !bytes.Equal(got, fill(want)) {
		r.t.Errorf("block %d reads as %x, not %x", block, got[:4], want)
	}
}

// force has an operator force a site, once it has noticed that nobody else is there.
func (r *realm) force(ctx context.Context, role failover.Role) {
	r.t.Helper()
	n := r.nodes[role]
	r.must(eventually(ctx, func() error {
		o, err := n.api().Outlook(ctx, "disk", n.Name)
		if err == nil && o.Refusal != "" {
			err = errors.New(o.Refusal)
		}
		return err
	}))
	_, err := n.api().ForceAlone(ctx, "disk", api.Force{Node: catalog.NodeID(n.Name), Confirm: "disk"})
	r.must(err)
	r.must(r.alone(ctx, role))
}

// tells checks that the cluster's log has an alert with these words.
func (r *realm) tells(ctx context.Context, words string) {
	r.t.Helper()
	all, err := r.nodes[failover.SiteA].api().Events(ctx, 0)
	r.must(err)
	for _, e := range all {
		if e.Level == catalog.Alert && strings.Contains(e.Text, words) {
			return
		}
	}
	r.t.Errorf("no alert says %q: %v", words, all)
}

// TestForced: two of three nodes are gone, the last one waits until an operator forces it,
// and goes on even after a restart. When the others come back all agree.
func TestForced(t *testing.T) {
	r := newRealm(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	a, b := r.host("host-a", failover.SiteA), r.host("host-b", failover.SiteB)
	r.must(a.WriteAt(ctx, fill(0x11), 0))
	r.must(b.WriteAt(ctx, fill(0x12), blockAt))
	r.must(r.Mend(ctx))
	n := r.nodes[failover.SiteB]
	if _, err := n.api().ForceAlone(ctx, "disk", api.Force{Node: "b", Confirm: "disk"}); err == nil {
		t.Fatal("it was forced while a majority was there")
	}
	r.must(r.Kill(failover.Witness))
	r.must(r.Kill(failover.SiteA))
	waits, done := context.WithTimeout(ctx, tooLong)
	defer done()
	if err := b.WriteAt(waits, fill(0x21), 0); err == nil {
		t.Fatal("it serves without a lease")
	}
	r.force(ctx, failover.SiteB)
	r.must(b.WriteAt(ctx, fill(0x22), 0))
	r.reads(ctx, b, 1, 0x12)
	r.must(r.Kill(failover.SiteB))
	r.must(r.Resume(failover.SiteB))
	r.must(b.WriteAt(ctx, fill(0x23), 2*blockAt))
	r.reads(ctx, b, 0, 0x22)
	r.must(r.Mend(ctx))
	for _, c := range []*multipath.Client{a, b} {
		r.reads(ctx, c, 0, 0x22)
		r.reads(ctx, c, 1, 0x12)
		r.reads(ctx, c, 2, 0x23)
	}
	for _, role := range roles {
		l, err := r.nodes[role].api().LUN(ctx, "disk")
		r.must(err)
		if len(l.Serving) != 2 || l.Term <= catalog.ForcedTerm(1) || len(l.Forks) != 0 {
			t.Errorf("%s: served by %v in term %d, forks %v", role, l.Serving, l.Term, l.Forks)
		}
	}
	r.tells(ctx, "was forced to serve alone")
	r.same(t)
}

// TestForcedTooLate: a site that is cut off is forced, and the others have gone on. Their
// version stays, at both sites, and the other one is salvaged.
func TestForcedTooLate(t *testing.T) {
	r := newRealm(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	a, b := r.host("host-a", failover.SiteA), r.host("host-b", failover.SiteB)
	for block := range int64(3) {
		r.must(a.WriteAt(ctx, fill(0x10), block*blockAt))
	}
	r.must(r.Mend(ctx))
	r.must(r.Cut(failover.SiteA, failover.SiteB))
	r.must(r.Cut(failover.Witness, failover.SiteB))
	r.must(a.WriteAt(ctx, fill(0xaa), 0))
	r.must(a.WriteAt(ctx, fill(0xaa), blockAt))
	r.must(r.alone(ctx, failover.SiteA))
	r.force(ctx, failover.SiteB)
	r.must(b.WriteAt(ctx, fill(0xbb), 0))
	r.must(b.WriteAt(ctx, fill(0xbb), 2*blockAt))
	r.must(r.Mend(ctx))
	for _, c := range []*multipath.Client{a, b} {
		r.reads(ctx, c, 0, 0xaa)
		r.reads(ctx, c, 1, 0xaa)
		r.reads(ctx, c, 2, 0x10)
	}
	r.tells(ctx, "has to be salvaged")
	r.same(t)
	r.salvaged(ctx, r.nodes[failover.SiteB], map[int64]byte{0: 0xbb, 1: 0, 2: 0xbb})
}

// TestForcedOver: a site that served alone is lost, and the other one, which is behind, cannot
// take over although a majority is there. It is forced; and when the first one comes back
// it was given up.
func TestForcedOver(t *testing.T) {
	r := newRealm(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	a, b := r.host("host-a", failover.SiteA), r.host("host-b", failover.SiteB)
	r.must(r.Kill(failover.SiteB)) // which has all zeros, and does not know of any newer data
	r.must(a.WriteAt(ctx, fill(0xaa), 0))
	r.must(r.alone(ctx, failover.SiteA))
	r.must(r.Kill(failover.SiteA))
	r.must(r.Resume(failover.SiteB))
	r.must(eventually(ctx, func() error {
		o, err := r.nodes[failover.SiteB].api().Outlook(ctx, "disk", "b")
		if err == nil && (!o.Unknown || o.Refusal != "") {
			err = fmt.Errorf("%+v", o)
		}
		return err
	}))
	r.force(ctx, failover.SiteB)
	r.must(b.WriteAt(ctx, fill(0xbb), blockAt))
	r.must(r.Mend(ctx))
	for _, c := range []*multipath.Client{a, b} {
		r.reads(ctx, c, 0, 0)
		r.reads(ctx, c, 1, 0xbb)
	}
	r.same(t)
	r.salvaged(ctx, r.nodes[failover.SiteA], map[int64]byte{0: 0xaa, 1: 0})
}

// salvaged checks what the only salvage file of a node has at some blocks.
func (r *realm) salvaged(ctx context.Context, n *node, want map[int64]byte) {
	r.t.Helper()
	folder := filepath.Join(n.dir, "salvage")
	list := r.twinlun(ctx, "salvage", "list", "--dir", folder)
	lines := strings.Split(strings.TrimSpace(list), "\n")
	if len(lines) != 2 || !strings.Contains(lines[1], "whole") {
		r.t.Fatalf("salvage list:\n%s", list)
	}
	image := filepath.Join(r.t.TempDir(), "image")
	r.twinlun(ctx, "salvage", "export", "--dir", folder, strings.Fields(lines[1])[0], image)
	text, err := os.ReadFile(image)
	r.must(err)
	for block, b := range want {
		if got := text[block*blockAt:][:4096]; !bytes.Equal(got, fill(b)) {
			r.t.Errorf("block %d of the salvage is %x, not %x", block, got[:4], b)
		}
	}
}

// twinlun runs a command.
func (r *realm) twinlun(ctx context.Context, args ...string) string {
	r.t.Helper()
	out, err := exec.CommandContext(ctx, filepath.Join(bin, "twinlun"), args...).CombinedOutput()
	if err != nil {
		r.t.Fatal(fmt.Errorf("twinlun %s: %w\n%s", strings.Join(args, " "), err, out))
	}
	return string(out)
}
