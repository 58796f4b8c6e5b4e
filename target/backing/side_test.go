package backing

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// A file beside a replica is made, belongs to one process, and stays.
func TestSide(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.journal")
	s, err := OpenSide(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenSide(path); !errors.Is(err, ErrInUse) {
		t.Errorf("opened twice: %v", err)
	}
	if _, err := s.WriteAt([]byte("kept"), 512); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Sync(), s.Close()); err != nil {
		t.Fatal(err)
	}
	if s, err = OpenSide(path); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p := make([]byte, 4)
	if n, err := s.Size(); n != 516 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if _, err := s.ReadAt(p, 512); err != nil || string(p) != "kept" {
		t.Errorf("%q, %v", p, err)
	}
	if err := os.Symlink(path, path+".link"); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{path + ".link", filepath.Dir(path), filepath.Join(path, "x")} {
		if s, err := OpenSide(bad); err == nil {
			s.Close()
			t.Errorf("%s was opened", bad)
		}
	}
}
