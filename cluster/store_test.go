package cluster

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
)

func entries(from, to uint64) (all []*raft.Log) {
	for i := from; i < to; i++ {
		l := &raft.Log{Index: i, Term: 3, Type: raft.LogCommand, Data: bytes.Repeat([]byte{byte(i)}, int(i))}
		if i%2 == 0 {
			l.AppendedAt, l.Extensions = time.Unix(0, int64(i)), []byte("more")
		}
		all = append(all, l)
	}
	return all
}

func newStore(t *testing.T) (dir string, s *store) {
	t.Helper()
	dir = t.TempDir()
	s, err := openStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return dir, s
}

func checkRange(t *testing.T, s *store, first, last uint64) {
	t.Helper()
	f, errF := s.FirstIndex()
	l, errL := s.LastIndex()
	if f != first || l != last || errF != nil || errL != nil {
		t.Errorf("entries %d to %d, not %d to %d (%v, %v)", f, l, first, last, errF, errL)
	}
	for i := range last + 2 {
		got := new(raft.Log)
		err := s.GetLog(i, got)
		if within := first > 0 && i >= first && i <= last; !within {
			if err != raft.ErrLogNotFound {
				t.Errorf("entry %d: %v", i, err)
			}
		} else if want := entries(i, i+1)[0]; err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("entry %d is %+v, %v", i, got, err)
		}
	}
}

func TestStore(t *testing.T) {
	dir, s := newStore(t)
	checkRange(t, s, 0, 0)
	if err := s.StoreLogs(entries(1, 50)); err != nil {
		t.Fatal(err)
	}
	checkRange(t, s, 1, 49)
	for _, r := range [][2]uint64{{1, 20}, {45, 49}, {30, 20}} {
		if err := s.DeleteRange(r[0], r[1]); err != nil {
			t.Fatal(err)
		}
	}
	checkRange(t, s, 21, 44)
	s.applied = func() uint64 { return 40 }
	if c, err := s.committed(); c != 0 || err != nil {
		t.Errorf("committed before it was stored: %d, %v", c, err)
	}
	if err := s.StoreLog(entries(45, 46)[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get([]byte("x")); err == nil || err.Error() != "not found" {
		t.Errorf("a value that there is not: %v", err)
	}
	if err := s.SetUint64([]byte("x"), 7); err != nil {
		t.Fatal(err)
	}
	s.Close()
	again, err := openStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	checkRange(t, again, 21, 45)
	if c, err := again.committed(); c != 40 || err != nil {
		t.Errorf("committed: %d, %v", c, err)
	}
	if v, err := again.GetUint64([]byte("x")); v != 7 || err != nil {
		t.Errorf("value: %d, %v", v, err)
	}
	if err := again.DeleteRange(30, 50); err != nil {
		t.Fatal(err)
	}
	if c, err := again.committed(); c != 29 || err != nil {
		t.Errorf("committed, beyond the end: %d, %v", c, err)
	}
}

// Damage is found when the log is opened, and the error says what to do.
func TestStoreDamaged(t *testing.T) {
	change := func(do func(b *bbolt.Bucket) error) func(path string) error {
		return func(path string) error {
			db, err := bbolt.Open(path, 0o600, nil)
			if err != nil {
				return err
			}
			defer db.Close()
			return db.Update(func(tx *bbolt.Tx) error { return do(tx.Bucket(logBucket)) })
		}
	}
	for what, damage := range map[string]func(path string) error{
		"torn":    func(path string) error { return os.Truncate(path, 5000) },
		"cut off": func(path string) error { return os.Truncate(path, 40<<10) },
		"garbage": func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte("garbage"), 10_000), 0o600) },
		"zeros":   func(path string) error { return os.WriteFile(path, make([]byte, 64<<10), 0o600) },
		"gap":     change(func(b *bbolt.Bucket) error { return b.Delete(key(20)) }),
		"a bit": change(func(b *bbolt.Bucket) error {
			v := slices.Clone(b.Get(key(20)))
			v[len(v)-1] ^= 1
			return b.Put(key(20), v)
		}),
		"another's": change(func(b *bbolt.Bucket) error { return b.Put(key(20), slices.Clone(b.Get(key(21)))) }),
		"short key": change(func(b *bbolt.Bucket) error { return b.Put([]byte("x"), nil) }),
		"short":     change(func(b *bbolt.Bucket) error { return b.Put(key(20), []byte("x")) }),
	} {
		dir, s := newStore(t)
		if err := s.StoreLogs(entries(1, 400)); err != nil {
			t.Fatal(err)
		}
		s.Close()
		if err := damage(filepath.Join(dir, logFile)); err != nil {
			t.Fatal(err)
		}
		if _, err := openStore(dir); err == nil || !strings.Contains(err.Error(), "join it anew") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func FuzzDecodeEntry(f *testing.F) {
	for _, l := range entries(1, 4) {
		f.Add(encodeEntry(l)[4:], l.Index)
	}
	f.Fuzz(func(t *testing.T, b []byte, index uint64) {
		b = append(make([]byte, 4), b...)
		binary.BigEndian.PutUint32(b, crcOf(b[4:]))
		l := new(raft.Log)
		if decodeEntry(b, index, l) == nil && !bytes.Equal(encodeEntry(l), b) {
			t.Errorf("%x became %x", b, encodeEntry(l))
		}
	})
}

func FuzzReadHead(f *testing.F) {
	f.Add([]byte("TWLRAFT1\x00\x00\x00\x00\x00\x00\x00\x07\x00\x00\x00\x010123456789abcdef"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, order, err := readHead(bytes.NewReader(b)); err == nil && (len(order) > remembered || len(b) < snapshotHead+16*len(order)) {
			t.Errorf("%d proposals out of %d bytes", len(order), len(b))
		}
	})
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x02ab"))
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, body, err := readFrame(bytes.NewReader(b))
		if err != nil {
			return
		}
		again := new(bytes.Buffer)
		if writeFrame(again, kind, body) != nil || !bytes.HasPrefix(b, again.Bytes()) {
			t.Errorf("%x was read as %d, %x", b, kind, body)
		}
	})
}

func crcOf(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }
