package journal

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

var testLUN = [16]byte{0x10, 0x11, 0x12, 0x13, 15: 0x1f}

// file is a File in memory with a cache in front of it. fail, if set, is what every
// write and sync returns.
type file struct {
	cache, durable []byte
	from, to       int // of the cache that was not synced
	sparse         int // the file is so long, and zeros behind the cache
	fail           error
	syncs          int
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if end := min(int(off)+len(p), f.sparse); end > len(f.cache) {
		clear(p)
		copy(p, f.cache[min(int(off), len(f.cache)):])
		return end - int(off), nil
	}
	if off >= int64(len(f.cache)) {
		return 0, io.EOF
	}
	n := copy(p, f.cache[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	if f.fail != nil {
		return 0, f.fail
	}
	f.cache = append(f.cache, make([]byte, max(0, int(off)+len(p)-len(f.cache)))...)
	if f.from == f.to {
		f.from = int(off)
	}
	f.from, f.to = min(f.from, int(off)), max(f.to, int(off)+len(p))
	return copy(f.cache[off:], p), nil
}

func (f *file) Sync() error {
	f.syncs++
	if f.fail == nil {
		f.persist(f.from, f.to)
		f.from, f.to = 0, 0
	}
	return f.fail
}

func (f *file) persist(from, to int) {
	f.durable = append(f.durable, make([]byte, max(0, to-len(f.durable)))...)
	copy(f.durable[from:to], f.cache[from:])
}

// tear takes the last sync back for what do has written: it was not reached, but for
// those sectors that keep names.
func (f *file) tear(do func() error, keep func(sector int) bool) (*file, error) {
	was := bytes.Clone(f.durable[:20*sector])
	if err := do(); err != nil {
		return nil, err
	}
	torn := &file{cache: bytes.Clone(f.cache[:20*sector]), durable: was}
	for s := range 20 {
		if keep(s) {
			torn.persist(s*sector, (s+1)*sector)
		}
	}
	return &file{cache: torn.durable, durable: bytes.Clone(torn.durable), sparse: FileSize}, nil
}

// crash keeps some sectors of what was not synced.
func (f *file) crash(keep func(sector int) bool) *file {
	for s := f.from / sector; s*sector < f.to; s++ {
		if keep(s) {
			f.persist(s*sector, min((s+1)*sector, f.to))
		}
	}
	return &file{cache: bytes.Clone(f.durable), durable: f.durable}
}

func (f *file) Size() (int64, error) { return int64(max(len(f.cache), f.sparse)), nil }
func (f *file) Close() error         { return nil }

func mustOpen(t *testing.T, f *file, want ...Write) *Journal {
	t.Helper()
	j, got, err := Open(f, testLUN)
	if err != nil {
		t.Fatal(err)
	}
	if len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
		t.Fatalf("pending are %d writes, want %d", len(got), len(want))
	}
	return j
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func pattern(n int, b byte) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = b + byte(i*7) + byte(i>>9)
	}
	return p
}

// batches are Puts of several sizes: within a sector, at its edges, and the largest.
func batches() [][]Write {
	var many []Write
	for i := range MaxWrites {
		many = append(many, Write{int64(i) << 30, pattern(MaxBytes/MaxWrites, byte(i))})
	}
	return [][]Write{
		{{0, []byte{1}}},
		{{512, pattern(sectorData-recordHead, 1)}},
		{{512, pattern(sectorData-recordHead+1, 2)}},
		{{1 << 40, pattern(4096, 3)}, {4096, pattern(512, 4)}},
		{{7, pattern(MaxBytes, 5)}},
		many,
	}
}

func TestPutAndClear(t *testing.T) {
	f := &file{}
	j := mustOpen(t, f)
	for i, b := range batches() {
		must(t, j.Put(b))
		if !bytes.Equal(f.cache, f.durable) {
			t.Fatal("not synced")
		}
		mustOpen(t, f, b...)
		j = mustOpen(t, f, b...) // again: a crash while it was written
		must(t, j.Clear())
		if !zero(f.cache[recordsAt:]) {
			t.Fatal("data is left in a journal that was cleared")
		}
		if i%2 == 0 {
			j = mustOpen(t, f)
		}
	}
	if len(f.cache) != FileSize {
		t.Errorf("%d bytes", len(f.cache))
	}
}

// TestFormat: the bytes of a small journal. The checksums were computed by other means
// than this package's.
func TestFormat(t *testing.T) {
	f := &file{}
	j := mustOpen(t, f)
	must(t, j.Put([]Write{{0x1122, []byte("ab")}, {3, bytes.Repeat([]byte{0xee}, 500)}}))
	zeros := func(n int) string { return strings.Repeat("00", n) }
	head := "54574c4e41545731" + "01000000" + "02000000" + "101112130000000000000000000000" + "1f" +
		"0200000000000000" + "0e020000" + "2539101d" + zeros(460) + "5ca5d61f"
	want := head + head +
		"2211000000000000" + "02000000" + "6162" + "0300000000000000" + "f4010000" + strings.Repeat("ee", 478) + "0200000000000000" +
		strings.Repeat("ee", 22) + zeros(482) + "0200000000000000"
	if got := hex.EncodeToString(f.cache[:len(want)/2]); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if !zero(f.cache[len(want)/2:]) {
		t.Error("something behind the records")
	}
}

// TestCrashes: whatever a crash in a Put or a Clear leaves of it, the next start finds
// all of the writes or none, and goes on; also when that crashes again.
func TestCrashes(t *testing.T) {
	one := []Write{{4096, pattern(3000, 1)}}
	two := []Write{{512, pattern(2000, 2)}, {8192, pattern(100, 3)}}
	made := &file{}
	mustOpen(t, made)
	made.cache, made.durable = made.cache[:20*sector], made.durable[:20*sector]
	for subset := range 1 << 8 { // both heads, and the six sectors of one's records
		keep := func(s int) bool { return s < 8 && subset>>s&1 == 1 }
		f := &file{sparse: FileSize, cache: bytes.Clone(made.cache), durable: bytes.Clone(made.durable)}
		j := mustOpen(t, f)
		f, err := f.tear(func() error { return j.Put(one) }, keep)
		must(t, err)
		j, got, err := Open(f, testLUN)
		must(t, err)
		whole := subset&3 != 0 && subset>>2 == 1<<6-1
		if whole && !reflect.DeepEqual(got, one) || !whole && got != nil {
			t.Fatalf("sectors %08b of a Put: %d writes", subset, len(got))
		}
		if !whole && !zero(f.cache[recordsAt:]) {
			t.Fatal("a Put that a crash interrupted has left data")
		}
		if !whole {
			f, err = f.tear(func() error { return j.Put(two) }, func(s int) bool { return keep((s + 3) % 8) })
			must(t, err)
			if j, got, err = Open(f, testLUN); err != nil || got != nil && !reflect.DeepEqual(got, two) {
				t.Fatalf("a second crash: %d writes, %v", len(got), err)
			}
		}
		must(t, j.Clear())
		must(t, j.Put(two))
		f, err = f.tear(j.Clear, keep)
		must(t, err)
		if _, got, err := Open(f, testLUN); err != nil || (len(got) == 2) != (subset&0x7f == 0) || subset&0x7f != 0 && got != nil {
			t.Fatalf("sectors %08b of a Clear: %d writes, %v", subset, len(got), err)
		}
	}
}

// TestCrashWhileMade: a start that is interrupted before there is a journal.
func TestCrashWhileMade(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 10 {
		made := &file{}
		_, _, err := Open(made, testLUN)
		must(t, err)
		f := &file{cache: make([]byte, r.IntN(FileSize))} // some of the zeros
		mustOpen(t, f)
		f = &file{durable: make([]byte, FileSize), cache: made.cache, to: recordsAt}
		mustOpen(t, f.crash(func(int) bool { return r.IntN(2) == 0 }))
	}
}

// TestDamage: of a journal with writes in it, no damage makes others, and what is damaged
// after it was durable is not taken for what a crash leaves, but for the stamps.
func TestDamage(t *testing.T) {
	f := &file{}
	j := mustOpen(t, f)
	want := []Write{{4096, pattern(1500, 1)}}
	must(t, j.Put(want))
	b := bytes.Clone(f.cache)
	for at := 0; at < 6*sector; at += 1 + at/recordsAt*4 {
		copy(b, f.cache[:6*sector])
		b[at] ^= 0x40
		_, got, err := Open(&file{cache: b}, testLUN)
		record := at >= recordsAt && (at-recordsAt)/sector*sectorData+at%sector < 1500+recordHead
		stamp := at >= recordsAt && (at-recordsAt)/sector < 3 && at%sector >= sectorData
		switch {
		case stamp && err == nil && got == nil:
		case record && !stamp && errors.Is(err, ErrDamaged):
		case !record && !stamp && err == nil && reflect.DeepEqual(got, want):
		default:
			t.Errorf("byte %d is damaged: %d writes, %v", at, len(got), err)
		}
	}
}

func TestWhatIsNotAJournal(t *testing.T) {
	f := &file{}
	j := mustOpen(t, f)
	must(t, j.Put([]Write{{0, pattern(600, 1)}}))
	good := f.cache
	other := testLUN
	other[0]++
	headless := bytes.Clone(good)
	headless[0], headless[sector] = 0, 0
	newer := bytes.Clone(good)
	newer[8] = 2
	mend(newer)
	long := bytes.Clone(good)
	long[16*2+8+2] = 0xff // a length beyond the file
	mend(long)
	for name, c := range map[string]struct {
		b    []byte
		lun  [16]byte
		want error
	}{
		"another LUN's":  {good, other, ErrForeign},
		"newer":          {newer, testLUN, ErrVersion},
		"too much in it": {long, testLUN, ErrDamaged},
		"no heads":       {headless, testLUN, ErrDamaged},
		"cut off":        {good[:FileSize-1], testLUN, ErrDamaged},
		"cut off early":  {good[:100], testLUN, ErrDamaged},
		"too long":       {append(bytes.Clone(good), 0), testLUN, ErrDamaged},
		"something else": {bytes.Repeat([]byte("else"), FileSize/4), testLUN, ErrDamaged},
	} {
		if _, _, err := Open(&file{cache: c.b, durable: c.b}, c.lun); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestFailureIsFinal: after a write or a sync that failed nobody knows what is there.
func TestFailureIsFinal(t *testing.T) {
	broken := errors.New("medium error")
	one := []Write{{0, []byte("x")}}
	for _, put := range []bool{false, true} {
		f := &file{}
		j := mustOpen(t, f)
		if !put {
			must(t, j.Put(one))
		}
		f.fail = broken
		for range 2 {
			err := j.Clear()
			if put {
				err = j.Put(one)
			}
			if !errors.Is(err, broken) || !errors.Is(err, ErrFailed) {
				t.Error(err)
			}
			f.fail = nil
		}
	}
}

// mend makes the checksums and stamps of a file's first head right, and drops the second.
func mend(b []byte) {
	le := binary.LittleEndian
	number, length := le.Uint64(b[32:]), min(int(le.Uint32(b[40:])), maxRecords)
	records := append([]byte{}, b[16:32]...)
	for at, left := recordsAt, length; left > 0; at, left = at+sector, left-sectorData {
		le.PutUint64(b[at+sectorData:], number)
		records = append(records, b[at:at+min(left, sectorData)]...)
	}
	le.PutUint32(b[44:], crc32.Checksum(records, castagnoli))
	le.PutUint32(b[headSize-4:], crc32.Checksum(b[:headSize-4], castagnoli))
	clear(b[headSize:recordsAt])
}

// FuzzOpen: whatever is in the file, Open gives an error or writes that make sense, and
// what it gives can be put and found again.
func FuzzOpen(f *testing.F) {
	for _, b := range append(batches()[:4], nil) {
		m := &file{}
		j, _, _ := Open(m, testLUN)
		if b != nil {
			j.Put(b)
		}
		f.Add(m.cache[:10*sector])
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		// Sums and stamps are put right, so that the fuzzer gets behind them.
		for _, right := range []bool{false, true} {
			b := append(bytes.Clone(p), make([]byte, max(0, FileSize-len(p)))...)[:FileSize]
			if right {
				mend(b)
			}
			j, writes, err := Open(&file{cache: b}, testLUN)
			if err != nil {
				continue
			}
			total := 0
			for _, w := range writes {
				if total += len(w.Data); w.Off < 0 || len(w.Data) == 0 || w.Off+int64(len(w.Data)) < 0 {
					t.Fatalf("%d bytes at %d", len(w.Data), w.Off)
				}
			}
			if len(writes) == 0 {
				continue
			}
			if !Fits(len(writes), total) {
				t.Fatalf("%d writes of %d bytes", len(writes), total)
			}
			must(t, j.Clear())
			m := &file{}
			j = mustOpen(t, m)
			must(t, j.Put(writes))
			mustOpen(t, m, writes...)
		}
	})
}
