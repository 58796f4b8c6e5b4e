package mapfile

import (
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/twinlun/twinlun/dirtymap"
)

const (
	shared = dirtymap.State(0)
	owned  = dirtymap.Held
	stale  = dirtymap.Stale
)

// memFile is a File in memory that forgets nothing.
type memFile struct {
	data  []byte
	syncs int
	fail  error // of every write and sync from now on
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(f.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	if f.fail != nil {
		return 0, f.fail
	}
	f.data = put(f.data, p, off)
	return len(p), nil
}

// put writes into a file's bytes, which grow with zeros.
func put(data, p []byte, off int64) []byte {
	if end := off + int64(len(p)); end > int64(len(data)) {
		data = append(data, make([]byte, end-int64(len(data)))...)
	}
	copy(data[off:], p)
	return data
}

func (f *memFile) Truncate(size int64) error {
	if f.fail != nil {
		return f.fail
	}
	f.data = resize(f.data, size)
	return nil
}

func resize(data []byte, size int64) []byte {
	if size <= int64(len(data)) {
		return slices.Clone(data[:size])
	}
	return append(data, make([]byte, size-int64(len(data)))...)
}

func (f *memFile) Sync() error          { f.syncs++; return f.fail }
func (f *memFile) Size() (int64, error) { return int64(len(f.data)), nil }
func (f *memFile) Close() error         { return nil }

var errDisk = errors.New("no space left on device")

func testIdentity(extents int64) Identity {
	return Identity{
		LUN:      [16]byte{0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f},
		Geometry: dirtymap.Geometry{Size: extents * 65536, ExtentSize: 65536},
	}
}

func testMeta(n byte) Meta {
	m := Meta{History: [16]byte{n, 1}, Join: uint64(n), BootID: [16]byte{n, 2}, Clean: n%2 == 1, Blank: n%4 == 2}
	if n%3 == 0 {
		m.Term = Term{Number: uint64(n), ID: [16]byte{n, 3}, Alone: uint64(n % 2), Fork: n%3 == 0}
	}
	return m
}

func rangeOf(first, count uint64) dirtymap.Range { return dirtymap.Range{First: first, Count: count} }

func setOf(first, count uint64, s dirtymap.State) Set {
	return Set{Range: rangeOf(first, count), State: s}
}

// newFile is a fresh map file of that many extents.
func newFile(t testing.TB, extents int64, initial dirtymap.State) *memFile {
	t.Helper()
	f := &memFile{}
	if err := Create(f, testIdentity(extents), initial, testMeta(1)); err != nil {
		t.Fatal(err)
	}
	return f
}

func mustOpen(t testing.TB, f File) (*Log, Report) {
	t.Helper()
	l, rep, err := Open(f, nil)
	if err != nil {
		t.Fatal(err)
	}
	return l, rep
}

// fataler is a *testing.T, *rapid.T …
type fataler interface {
	Helper()
	Fatal(...any)
}

func must(t fataler, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// model is what a map file should say.
type model struct {
	states   []dirtymap.State
	meta     Meta
	prepared *Prepare
}

func newModel(extents int, initial dirtymap.State, meta Meta) *model {
	m := &model{states: make([]dirtymap.State, extents), meta: meta}
	for i := range m.states {
		m.states[i] = initial
	}
	return m
}

func (m *model) clone() *model {
	c := *m
	c.states = slices.Clone(m.states)
	return &c
}

func (m *model) apply(r Record) {
	switch r := r.(type) {
	case Set:
		for ext := r.Range.First; ext < r.Range.End(); ext++ {
			m.states[ext] = r.State & dirtymap.Durable
		}
	case Meta:
		m.meta = r
	case Prepare:
		m.prepared = &r
	case Abort:
		m.prepared = nil
	case Commit:
		for _, s := range m.prepared.Changes {
			m.apply(s)
		}
		m.meta, m.prepared = m.prepared.Meta, nil
	}
}

// content is what a Log says, in the model's form.
func content(t fataler, l *Log) *model {
	t.Helper()
	m := dirtymap.New(l.Identity().Geometry)
	must(t, l.Fill(m))
	c := &model{meta: l.Meta(), prepared: l.Prepared()}
	for ext := range l.Identity().Extents() {
		c.states = append(c.states, m.State(ext))
	}
	return c
}

func (m *model) equal(o *model) bool {
	if !slices.Equal(m.states, o.states) || m.meta != o.meta || (m.prepared == nil) != (o.prepared == nil) {
		return false
	}
	return m.prepared == nil || m.prepared.Join == o.prepared.Join && m.prepared.Meta == o.prepared.Meta &&
		slices.Equal(m.prepared.Changes, o.prepared.Changes)
}

func expect(t testing.TB, l *Log, want *model) {
	t.Helper()
	got := content(t, l)
	if !got.equal(want) {
		for ext := range want.states {
			if got.states[ext] != want.states[ext] {
				t.Fatalf("extent %d: %v, want %v", ext, got.states[ext], want.states[ext])
			}
		}
		t.Fatalf("got %+v %+v, want %+v %+v", got.meta, got.prepared, want.meta, want.prepared)
	}
}
