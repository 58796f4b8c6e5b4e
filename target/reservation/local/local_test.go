package local

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twinlun/twinlun/target/reservation"
)

var (
	unit = [16]byte{1}
	a    = reservation.Nexus{Initiator: "a", Port: 1}
	b    = reservation.Nexus{Initiator: "b", Port: 1}
)

func open(t *testing.T, path string) *Reservations {
	t.Helper()
	r, err := Open(path, unit)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func register(t *testing.T, r *Reservations, n reservation.Nexus, key reservation.Key, persist bool) {
	t.Helper()
	res, err := r.Apply(context.Background(), reservation.Command{
		Action: reservation.RegisterAndIgnore, From: n, NewKey: key, Persist: persist})
	if err != nil || res != reservation.Done {
		t.Fatalf("register %v: %v, %v", n, res, err)
	}
}

func reserve(t *testing.T, r *Reservations, n reservation.Nexus, key reservation.Key) {
	t.Helper()
	res, err := r.Apply(context.Background(), reservation.Command{
		Action: reservation.Reserve, From: n, Key: key, Type: reservation.WriteExclusive})
	if err != nil || res != reservation.Done {
		t.Fatalf("reserve %v: %v, %v", n, res, err)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// TestPersist follows the file through APTPL on and off.
func TestPersist(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.pr")
	r := open(t, path)
	register(t, r, a, 1, false)
	if exists(path) {
		t.Error("a file without APTPL")
	}
	register(t, r, b, 2, true)
	reserve(t, r, b, 2)
	again := open(t, path).Load()
	if again.Key(a) != 1 || again.Key(b) != 2 || !again.Holds(b) || !again.Persist || again.Generation != 0 {
		t.Errorf("after a power loss: %+v", again)
	}
	register(t, r, a, 1, false)
	if exists(path) {
		t.Error("APTPL was taken back, and the file is there")
	}
	if open(t, path).Load().Registered() {
		t.Error("registrations without APTPL")
	}
}

// TestCommandsFollowThePersisted begins with what the file says.
func TestCommandsFollowThePersisted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.pr")
	r := open(t, path)
	register(t, r, a, 1, true)
	r = open(t, path)
	reserve(t, r, a, 1) // persists, too: nothing took APTPL back
	if s := open(t, path).Load(); !s.Holds(a) {
		t.Errorf("after a power loss: %+v", s)
	}
}

// TestFailure has the disk refuse: the command fails, nothing changes, and the next
// change that can be kept is.
func TestFailure(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "disk.pr")
	r := open(t, path)
	told := 0
	r.Watch(func([]reservation.Event) { told++ })
	register(t, r, a, 1, true)
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	before := r.Load()
	for _, persist := range []bool{true, false} {
		_, err := r.Apply(context.Background(), reservation.Command{
			Action: reservation.RegisterAndIgnore, From: b, NewKey: 2, Persist: persist})
		if err == nil || r.Load() != before || told != 1 {
			t.Fatalf("APTPL %v: error %v, state %+v, told %d times", persist, err, r.Load(), told)
		}
	}
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
	register(t, r, a, 1, false)
	if exists(path) {
		t.Error("the file is still there")
	}
}

// TestLeftover clears up what a crash left.
func TestLeftover(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.pr")
	if err := os.WriteFile(path+".new", []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if open(t, path).Load().Registered() || exists(path+".new") {
		t.Error("the leftover counts, or is there")
	}
}

// TestDamaged refuses to begin with a file that is not whole, whatever is wrong.
func TestDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.pr")
	register(t, open(t, path), a, 1, true)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		if err := os.WriteFile(path, append(append(bytes.Clone(whole[:i]), whole[i]^1), whole[i+1:]...), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path, unit); err == nil || !strings.Contains(err.Error(), "move the file away") {
			t.Fatalf("byte %d damaged: %v", i, err)
		}
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, [16]byte{2}); err == nil {
		t.Error("the file of another logical unit was taken")
	}
}

// TestMemory keeps nothing, and says so.
func TestMemory(t *testing.T) {
	r := Memory()
	register(t, r, a, 1, true)
	if r.Durable() || r.Load().Key(a) != 1 {
		t.Errorf("durable %v, %+v", r.Durable(), r.Load())
	}
	if !open(t, filepath.Join(t.TempDir(), "x")).Durable() {
		t.Error("a file is not durable")
	}
}
