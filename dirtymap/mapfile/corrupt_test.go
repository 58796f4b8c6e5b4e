package mapfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/twinlun/twinlun/dirtymap"
)

// smallFile has one page, records of every kind in its log, and a prepared join.
func smallFile(t testing.TB) (*memFile, *model) {
	const extents = 100
	f, want := newFile(t, extents, stale), newModel(extents, stale, testMeta(1))
	l, _ := mustOpen(t, f)
	step := func(r Record) {
		t.Helper()
		must(t, l.Append(r))
		must(t, l.Sync())
		want.apply(r)
	}
	step(setOf(3, 40, owned.WithTurn(1)))
	must(t, l.Checkpoint())
	step(testMeta(5))
	step(setOf(9, extents-9, shared|dirtymap.Volatile))
	step(Prepare{Join: 3, Meta: testMeta(7), Changes: []Set{setOf(0, 5, stale.WithTurn(2))}})
	step(Commit{Join: 3})
	long := Prepare{Join: 4, Meta: testMeta(8)}
	for i := range uint64(200) {
		long.Changes = append(long.Changes, setOf(i%97, 2, owned.WithTurn(3)))
	}
	step(long)
	step(setOf(1, 1, owned.WithTurn(2)))
	return f, want
}

// flips are what can become of a byte.
var flips = []func(b byte, at int) byte{
	func(b byte, at int) byte { return b ^ 1<<(at%8) },
	func(b byte, _ int) byte { return ^b },
	func(byte, int) byte { return 0 },
}

// refusedOrRight opens bytes, one of which was changed: they are refused with a
// hint, or say the same as before.
func refusedOrRight(t *testing.T, data []byte, want *model) (refused bool) {
	t.Helper()
	l, _, err := Open(&memFile{data: data}, nil)
	if err != nil {
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "move this file away") {
			t.Fatalf("refused with %v", err)
		}
		return true
	}
	if !content(t, l).equal(want) {
		t.Fatal("opens with another state")
	}
	return false
}

func TestEveryByteDamaged(t *testing.T) {
	f, want := smallFile(t)
	refused := 0
	for at := range f.data {
		for i, flip := range flips {
			if padding := at > 0 && bytes.Count(f.data[at-1:][:2], []byte{0}) == 2; padding && i != at%len(flips) {
				continue // long and all alike
			}
			data := slices.Clone(f.data)
			if data[at] = flip(data[at], at); data[at] == f.data[at] {
				continue
			}
			if refusedOrRight(t, data, want) {
				refused++
			} else if at >= pagesAt && at < pagesAt+pageSize {
				t.Fatalf("damage of the page at offset %d went unnoticed", at)
			}
			if t.Failed() {
				t.Fatalf("offset %d: %#x became %#x", at, f.data[at], data[at])
			}
		}
	}
	if refused < pageSize {
		t.Fatalf("only %d refused", refused)
	}
}

// TestEveryByteDamagedDuringACheckpoint: a crash after any operation of a
// checkpoint, and one byte wrong as well.
func TestEveryByteDamagedDuringACheckpoint(t *testing.T) {
	f, want := smallFile(t)
	steps := &stepFile{memFile: *f}
	l, _ := mustOpen(t, steps)
	must(t, l.Checkpoint())
	if len(steps.after) < 6 {
		t.Fatalf("%d operations", len(steps.after))
	}
	rnd := rand.New(rand.NewPCG(1, 1))
	for step, data := range steps.after {
		refusedOrRight(t, slices.Clone(data), want)
		for at := step; at < len(data); at += 61 {
			broken := slices.Clone(data)
			broken[at] ^= byte(1 + rnd.IntN(255))
			refusedOrRight(t, broken, want)
			if t.Failed() {
				t.Fatalf("operation %d, offset %d", step, at)
			}
		}
	}
}

// stepFile remembers what the file was like after every change.
type stepFile struct {
	memFile
	after [][]byte
}

func (f *stepFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.memFile.WriteAt(p, off)
	f.after = append(f.after, slices.Clone(f.data))
	return n, err
}

func (f *stepFile) Truncate(size int64) error {
	err := f.memFile.Truncate(size)
	f.after = append(f.after, slices.Clone(f.data))
	return err
}

// TestEveryLength cuts the file off anywhere: it ends with the last record that
// is whole.
func TestEveryLength(t *testing.T) {
	f, possible, ends := fiveSyncs(t)
	for size := range f.data {
		if size < ends[0]-100 && size%101 != 0 {
			continue // inside of headers and pages
		}
		l, rep, err := Open(&memFile{data: slices.Clone(f.data[:size])}, nil)
		if size < ends[0] {
			if err == nil {
				t.Fatalf("%d bytes: opened", size)
			}
			continue
		}
		must(t, err)
		whole := 0
		for whole+1 < len(ends) && ends[whole+1] <= size {
			whole++
		}
		expect(t, l, possible[whole])
		if rep.Torn != int64(size-ends[whole]) || rep.Records != whole {
			t.Fatalf("%d bytes: %+v", size, rep)
		}
	}
}

// fiveSyncs is a file with five records, each synced: its contents after each,
// and where it ended then.
func fiveSyncs(t *testing.T) (f *memFile, contents []*model, ends []int) {
	const extents = 500
	f = newFile(t, extents, shared)
	l, _ := mustOpen(t, f)
	m := newModel(extents, shared, testMeta(1))
	contents, ends = append(contents, m.clone()), append(ends, len(f.data))
	for i := range uint64(5) {
		r := setOf(i*3, 5, owned.WithTurn(uint8(i)))
		must(t, l.Append(r))
		must(t, l.Sync())
		m.apply(r)
		contents, ends = append(contents, m.clone()), append(ends, len(f.data))
	}
	return f, contents, ends
}

// TestLostSectors: a sector that was never written ends the log only if nothing
// behind it says that it was durable.
func TestLostSectors(t *testing.T) {
	f, contents, ends := fiveSyncs(t)
	for i := range 5 {
		data := slices.Clone(f.data)
		clear(data[ends[i]:ends[i+1]])
		l, rep, err := Open(&memFile{data: data}, nil)
		if i < 4 {
			if !errors.Is(err, ErrDamaged) {
				t.Fatalf("block %d lost: %v", i+1, err)
			}
			continue
		}
		must(t, err)
		expect(t, l, contents[4])
		if rep.Torn != sectorSize {
			t.Fatalf("%+v", rep)
		}
	}
}

func TestTornTailIsCutOffForGood(t *testing.T) {
	f, contents, ends := fiveSyncs(t)
	f.data = append(f.data[:ends[4]+20], make([]byte, 5000)...)
	before := f.data
	l, rep := mustOpen(t, f)
	if rep.Torn != int64(len(before)-ends[4]) || len(f.data) != ends[4] {
		t.Fatalf("%+v, %d bytes left of %d", rep, len(f.data), ends[4])
	}
	expect(t, l, contents[4])
	must(t, l.Close())
	l, rep = mustOpen(t, f)
	if rep.Torn != 0 {
		t.Fatalf("%+v", rep)
	}
	expect(t, l, contents[4])
}

// TestStaleCheckpointLog has a checkpoint that is interrupted after it has begun
// a log in the free space at the front, then one that begins an empty log there.
func TestStaleCheckpointLog(t *testing.T) {
	f := newFile(t, 100, shared)
	want := newModel(100, shared, testMeta(1))
	l, _ := mustOpen(t, f)
	step := func(r Record) {
		t.Helper()
		must(t, l.Append(r))
		must(t, l.Sync())
		want.apply(r)
	}
	step(Prepare{Join: 1, Meta: testMeta(2)})
	for range 10 {
		step(setOf(1, 1, owned))
	}
	must(t, l.Checkpoint()) // its log begins behind the old one
	front := l.id.logAt()
	if l.start <= front {
		t.Fatal("no free space at the front")
	}
	step(testMeta(3))
	interrupted := &crashFile{memFile: *f, disk: slices.Clone(f.data), power: 4}
	l, _ = mustOpen(t, interrupted)
	if err := l.Checkpoint(); !errors.Is(err, errPower) {
		t.Fatalf("checkpoint: %v", err)
	}
	f = &interrupted.memFile
	l, _ = mustOpen(t, f)
	if h, _ := l.id.decodeHead(f.data[front:][:sectorSize]); h.generation != l.generation+1 {
		t.Fatalf("interrupted at the wrong place: generation %d, at the front %d", l.generation, h.generation)
	}
	expect(t, l, want)
	step(Abort{})
	steps := &stepFile{memFile: *f}
	l, _ = mustOpen(t, steps)
	must(t, l.Checkpoint())
	for i, data := range steps.after {
		l, _, err := Open(&memFile{data: data}, nil)
		if err != nil {
			t.Fatalf("operation %d: %v", i, err)
		}
		expect(t, l, want)
	}
}

// FuzzOpen: any bytes open, or are refused; what opens goes on working, and
// memory stays in proportion to the file.
func FuzzOpen(f *testing.F) {
	small, _ := smallFile(f)
	f.Add(small.data)
	f.Add(newFile(f, 1, shared).data)
	f.Add(small.data[:len(small.data)-700])
	f.Add([]byte(magic))
	huge := header{version: 1, id: Identity{Geometry: dirtymap.Geometry{Size: dirtymap.MaxSize, ExtentSize: 4096}}, generation: 1}
	huge.logAt = huge.id.logAt()
	f.Add(slices.Concat(huge.encode(), huge.encode()))
	far := header{version: 1, id: testIdentity(1), generation: 1, logAt: 1 << 60}
	f.Add(slices.Concat(far.encode(), far.encode(), small.data[pagesAt:]))
	f.Fuzz(func(t *testing.T, data []byte) {
		// The fuzzer does not find checksums: put some right.
		data = slices.Clone(data)
		reseal(data)
		file := &memFile{data: data}
		l, rep, err := Open(file, nil)
		if err != nil {
			return
		}
		if l.overlay.memory > 64*len(data)+1<<16 {
			t.Fatalf("%d bytes of overlay from a file of %d", l.overlay.memory, len(data))
		}
		want := content(t, l)
		for ext, s := range want.states {
			if !validState(s) {
				t.Fatalf("extent %d: %v", ext, s)
			}
		}
		must(t, l.Append(setOf(0, 1, owned)))
		want.apply(setOf(0, 1, owned))
		must(t, l.Checkpoint())
		must(t, l.Close())
		l, rep, err = Open(file, nil)
		if err != nil || rep.Torn != 0 {
			t.Fatalf("opened once, not again: %+v, %v", rep, err)
		}
		expect(t, l, want)
	})
}

// reseal makes the checksums of headers, pages and blocks right, where there is
// something like them.
func reseal(data []byte) {
	for i := 0; i < 2 && len(data) >= 2*slotSize; i++ {
		resum(data[i*slotSize:][:slotSize])
	}
	s, err := readSlots(&memFile{data: data})
	if err != nil || s.newest() < 0 {
		return
	}
	h := s.header[s.newest()]
	if h.version != version || h.id.logAt() > int64(len(data)) {
		return
	}
	for page := range h.id.pages() {
		h.id.sealPage(page, data[pagesAt+page*pageSize:][:pageSize])
	}
	for at := int(h.logAt); at >= 0 && at+sectorSize <= len(data); at += sectorSize {
		resealBlock(&h.id, data[at:])
	}
}

func resum(slot []byte) {
	h := crc32.Checksum(slot[:slotSize-4], castagnoli)
	binary.LittleEndian.PutUint32(slot[slotSize-4:], h)
}

// resealBlock puts a block's checksums right, if one begins here.
func resealBlock(id *Identity, b []byte) {
	le := binary.LittleEndian
	h := blockHead{length: le.Uint32(b[4:])}
	if le.Uint32(b) != blockMagic || h.length == 0 || h.length > maxPayload || h.size() > int64(len(b)) {
		return
	}
	payload, _ := id.payload(nil, &h, b[:h.size()])
	le.PutUint32(b[32:], id.sum(payload))
	le.PutUint32(b[36:], id.sum(b[:36]))
}
