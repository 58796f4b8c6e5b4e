package mapfile

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/twinlun/twinlun/dirtymap"
)

// TestCreateOS: a file of the right name is whole; what an interrupted start left
// under the other name does not matter.
func TestCreateOS(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lun.map")
	id := Identity{LUN: [16]byte{1}, Geometry: dirtymap.Geometry{Size: 1 << 20, ExtentSize: 1 << 16}}
	if err := os.WriteFile(path+".new", []byte("half a map"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := CreateOS(path, id, dirtymap.Stale, Meta{Blank: true}); err != nil {
		t.Fatal(err)
	}
	f, err := OpenOS(path)
	if err != nil {
		t.Fatal(err)
	}
	l, _, err := Open(f, &id)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if s, err := l.State(3); err != nil || s != dirtymap.Stale || !l.Meta().Blank {
		t.Fatalf("state %v, %v, meta %+v", s, err, l.Meta())
	}
	if _, err := os.Stat(path + ".new"); !os.IsNotExist(err) {
		t.Fatalf("the other name is still there: %v", err)
	}
}
