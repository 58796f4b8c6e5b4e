package chaos

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/twinlun/twinlun/test/failover"
	"github.com/twinlun/twinlun/test/lab"
)

var errNotAlone = errors.New("it does not serve alone")

// diskSize has room for a replica and what stands beside it.
const diskSize = 512 << 20

// TestBrokenDisks: when a site cannot serve any more, as its disk is read-only, or full, or
// as what it knows of its replica is damaged, the other one goes on alone; and both serve
// when an operator has seen to it.
func TestBrokenDisks(t *testing.T) {
	disk := lab.NewDisk(t, diskSize)
	dir := filepath.Join(disk.Dir, "b")
	r := newRealm(t, map[failover.Role]string{failover.SiteB: dir})
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	host := r.host("host", failover.SiteA)
	p := make([]byte, 4096)
	for _, trouble := range []struct {
		name       string
		begin, end func() error
	}{
		{"the disk is read-only", disk.ReadOnly, func() error {
			if err := r.Kill(failover.SiteB); err != nil {
				return err
			}
			return disk.Repair()
		}},
		{"the disk is full", disk.Fill, func() error {
			if err := r.Kill(failover.SiteB); err != nil {
				return err
			}
			return disk.Free()
		}},
		{"the map is damaged", func() error {
			if err := r.Kill(failover.SiteB); err != nil {
				return err
			}
			if err := damage(filepath.Join(dir, "luns")); err != nil {
				return err
			}
			return r.Resume(failover.SiteB)
		}, func() error {
			// As the log says: the replica becomes a new one.
			if err := r.Kill(failover.SiteB); err != nil {
				return err
			}
			return os.RemoveAll(filepath.Join(dir, "luns"))
		}},
	} {
		name := trouble.name
		t.Log(name)
		r.must(r.Mend(ctx))
		r.must(trouble.begin())
		for block := range int64(300) { // more than fits into what is there already
			p[0]++
			if err := host.WriteAt(ctx, p, block<<18); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		r.must(eventually(ctx, func() error { return r.alone(ctx, failover.SiteA) }))
		if err := host.ReadAt(ctx, p, 0); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		r.must(trouble.end())
	}
	r.same(t)
}

// damage overwrites all maps: of a part of one there may be a copy.
func damage(folder string) error {
	maps, err := filepath.Glob(filepath.Join(folder, "*.map"))
	for _, path := range maps {
		text, e := os.ReadFile(path)
		if e != nil {
			return e
		}
		for i := range text {
			text[i] ^= 0x55
		}
		err = os.WriteFile(path, text, 0o600)
	}
	return err
}

// alone tells what keeps a site from serving alone.
func (r *realm) alone(ctx context.Context, role failover.Role) error {
	s, err := r.nodes[role].api().Node(ctx)
	if err == nil && (len(s.LUNs) != 1 || s.LUNs[0].Role != "alone" || !s.LUNs[0].Serving) {
		err = errNotAlone
	}
	return err
}
