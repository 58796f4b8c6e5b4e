package salvage

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication/wire"
)

func testHeader() Header {
	return Header{
		LUN: [16]byte{1, 15: 2}, Geometry: dirtymap.Geometry{Size: 5 * dirtymap.BlockSize, ExtentSize: 2 * dirtymap.BlockSize},
		Join: 7, Time: time.Unix(1700000000, 5), Place: "süd",
	}
}

// testBlocks are both blocks of extent 0, one of zeros, and the only one of extent 2.
func testBlocks() []wire.Blocks {
	return []wire.Blocks{
		{Extent: 0, Present: dirtymap.MaskOf(0, 2), Zero: dirtymap.MaskOf(0, 1), Data: bytes.Repeat([]byte{5}, dirtymap.BlockSize)},
		{Extent: 2, Present: dirtymap.MaskOf(0, 1), Data: bytes.Repeat([]byte{6}, dirtymap.BlockSize)},
	}
}

func written(t testing.TB, to io.Writer) {
	t.Helper()
	w, err := NewWriter(to, testHeader())
	for _, b := range testBlocks() {
		err = errors.Join(err, w.Add(b))
	}
	if err = errors.Join(err, w.End()); err != nil {
		t.Fatal(err)
	}
}

func TestRoundTrip(t *testing.T) {
	var file bytes.Buffer
	written(t, &file)
	r, err := NewReader(&file)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := r.Header(), testHeader(); !got.Time.Equal(want.Time) || got.Geometry != want.Geometry || got.LUN != want.LUN || got.Join != want.Join || got.Place != want.Place {
		t.Errorf("header %+v", got)
	}
	for _, want := range testBlocks() {
		got, err := r.Next()
		if err != nil || got.Extent != want.Extent || got.Present != want.Present || got.Zero != want.Zero || !bytes.Equal(got.Data, want.Data) {
			t.Errorf("extent %d, %v", got.Extent, err)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

// TestDamage: whatever bit is wrong, and wherever a file ends, that is noticed.
func TestDamage(t *testing.T) {
	var file bytes.Buffer
	written(t, &file)
	whole := file.Bytes()
	for at := 0; at < len(whole); at += 7 {
		flipped := slices.Clone(whole)
		flipped[at] ^= 0x10
		if _, err := exported(flipped); err == nil {
			t.Errorf("byte %d flipped, not noticed", at)
		}
		if _, err := exported(whole[:at]); !errors.Is(err, ErrDamaged) {
			t.Errorf("cut off at %d: %v", at, err)
		}
	}
}

func exported(data []byte) (image, error) {
	r, err := NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	to := image{}
	_, err = Export(to, r)
	return to, err
}

// image is blocks by offset.
type image map[int64]byte

func (m image) WriteAt(p []byte, off int64) (int, error) {
	m[off] = p[0]
	return len(p), nil
}

func TestExport(t *testing.T) {
	var file bytes.Buffer
	written(t, &file)
	got, err := exported(file.Bytes())
	if err != nil || len(got) != 3 || got[0] != 0 || got[4096] != 5 || got[4*4096] != 6 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestOS(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lun.salvage")
	for range 2 { // the second takes the first one's place
		f, err := CreateOS(path)
		if err != nil {
			t.Fatal(err)
		}
		written(t, f)
		if err := f.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	f, err := CreateOS(path)
	if err != nil || f.Discard() != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exported(data); err != nil {
		t.Error(err)
	}
	if names, _ := filepath.Glob(path + "*"); len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
}

func FuzzReader(f *testing.F) {
	var file bytes.Buffer
	written(f, &file)
	f.Add(file.Bytes())
	f.Add(file.Bytes()[:headerSize])
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := NewReader(bytes.NewReader(data))
		if err != nil {
			return
		}
		for {
			b, err := r.Next()
			if err != nil {
				return
			}
			if h := r.Header(); b.Extent >= h.Extents() || len(b.Data) != b.Present.Minus(b.Zero).Count()*dirtymap.BlockSize {
				t.Fatalf("extent %d, %d bytes", b.Extent, len(b.Data))
			}
		}
	})
}
