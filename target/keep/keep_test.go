package keep

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestReplace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if _, err := Read(path, 8); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("read what is not there: %v", err)
	}
	for _, want := range []string{"one", "", "another"} {
		if err := Replace(path, []byte(want)); err != nil {
			t.Fatal(err)
		}
		if p, err := Read(path, 8); err != nil || string(p) != want {
			t.Errorf("%q, %v; want %q", p, err, want)
		}
	}
	for range 2 {
		if err := Remove(path); err != nil {
			t.Error(err)
		}
	}
}

func TestReadIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := Replace(path, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if p, err := Read(path, 10); err != nil || len(p) != 11 {
		t.Errorf("%d bytes, %v", len(p), err)
	}
}

// What a crash left between writing and renaming does not count, and goes.
func TestLeftover(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := errors.Join(Replace(path, []byte("old")), os.WriteFile(beside(path), []byte("half"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if p, err := Read(path, 8); err != nil || !bytes.Equal(p, []byte("old")) {
		t.Errorf("%q, %v", p, err)
	}
	if _, err := os.Stat(beside(path)); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the leftover is still there")
	}
}

func TestReplaceThatFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	if err := Replace(filepath.Join(dir, "f"), nil); err == nil {
		t.Error("written into a folder that is not there")
	}
}
