package chaos

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twinlun/twinlun/test/failover"
	"github.com/twinlun/twinlun/test/multipath"
)

// verify runs twinlun lun verify at a site, as an operator does.
func (r *realm) verify(ctx context.Context, role failover.Role, args ...string) (string, error) {
	args = append([]string{"lun", "verify", "disk", "--socket", filepath.Join(r.nodes[role].dir, "api.sock")}, args...)
	out, err := exec.CommandContext(ctx, filepath.Join(bin, "twinlun"), args...).CombinedOutput()
	return string(out), err
}

// differs runs a comparison that must end in time, and tells whether it says that the
// replicas differ, with the exit code of a failure.
func (r *realm) differs(ctx context.Context, role failover.Role, args ...string) bool {
	r.t.Helper()
	var out string
	err := eventually(ctx, func() (err error) {
		out, err = r.verify(ctx, role, append(args, "--wait", "--rate", "0")...)
		var exit *exec.ExitError
		if errors.As(err, &exit) && strings.Contains(out, "the replicas differ in ") {
			return nil
		}
		return err
	})
	if err != nil {
		r.t.Fatalf("%v\n%s", err, out)
	}
	return strings.Contains(out, "the replicas differ in ")
}

// TestVerify: hosts write at both sites, the line is cut and a site killed while replicas
// are compared: nothing is found. A byte that has changed in a replica's file is, and is
// mended under load.
func TestVerify(t *testing.T) {
	r := newRealmOf(t, nil, 64<<20)
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	load, quiet := context.WithCancel(ctx)
	defer quiet()
	done := make(chan struct{}, 2)
	for i, role := range roles[:2] {
		host := r.host("host"+string('0'+rune(i)), role)
		go func() {
			writeHere(load, host, uint64(i))
			done <- struct{}{}
		}()
	}
	for i, trouble := range []func() error{
		func() error { return nil },
		func() error { return r.Cut(failover.SiteA, failover.SiteB) },
		func() error { return r.Kill(failover.SiteB) },
	} {
		role := roles[i%2]
		if r.differs(ctx, role) {
			t.Fatal("false alarm")
		}
		out, err := r.verify(ctx, failover.SiteA, "--rate", "16MiB")
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		r.must(trouble())
		r.must(r.lab.HealAll())
		r.must(r.Resume(failover.SiteB))
		if err := eventually(ctx, func() error { // it goes on by itself
			out, err = r.verify(ctx, failover.SiteA, "--status")
			if err == nil && !strings.Contains(out, "complete") {
				err = errors.New("not complete")
			}
			return err
		}); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	for _, role := range roles[:2] {
		r.must(flip(filepath.Join(r.nodes[role].dir, "disk.img"), 60<<20)) // where nobody writes
		if !r.differs(ctx, failover.SiteA) || !r.differs(ctx, failover.SiteB) {
			t.Fatal("not found")
		}
		if r.differs(ctx, role, "--repair", "--yes") || r.differs(ctx, failover.SiteA) || r.differs(ctx, failover.SiteB) {
			t.Fatal("not repaired")
		}
	}
	quiet()
	for range roles[:2] {
		<-done
	}
	r.must(r.Mend(ctx))
	r.same(t)
}

// writeHere writes blocks of the first 32 MiB until it is told to stop. While its site is
// away it cannot.
func writeHere(ctx context.Context, host *multipath.Client, id uint64) {
	rnd, p := rand.New(rand.NewPCG(id, 3)), make([]byte, 8192)
	for ctx.Err() == nil {
		p[0]++
		_ = host.WriteAt(ctx, p, rnd.Int64N(32<<20/8192)*8192)
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// flip changes a byte of a file.
func flip(path string, off int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	p := make([]byte, 1)
	if _, err := f.ReadAt(p, off); err != nil {
		return err
	}
	p[0] ^= 1
	_, err = f.WriteAt(p, off)
	return err
}
