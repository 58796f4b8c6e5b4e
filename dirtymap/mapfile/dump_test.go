package mapfile

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

// dumpOf is a file's dump, line by line without the numbers of slots.
func dumpOf(t *testing.T, data []byte, want error) string {
	t.Helper()
	f := &memFile{data: slices.Clone(data)}
	var b bytes.Buffer
	if err := Dump(&b, f); !errors.Is(err, want) {
		t.Fatalf("%v, want %v", err, want)
	}
	if !bytes.Equal(f.data, data) || f.syncs != 0 {
		t.Fatal("the file was changed")
	}
	return b.String()
}

func TestDump(t *testing.T) {
	f, _ := smallFile(t)
	f.data = append(f.data, make([]byte, 100)...)
	got := dumpOf(t, f.data, nil)
	for _, want := range []string{
		"header slot 0: version 1, number 4, generation 2\n",
		"LUN 101112131415161718191a1b1c1d1e1f: 6553600 bytes, 100 extents of 65536 bytes, blocks of 512 bytes for hosts\n",
		"1 pages, log at offset 12288",
		"torn tail: 100 bytes\n",
		"\nhistory 07010000000000000000000000000000, join 7, boot id 07020000000000000000000000000000, clean true, blank false\n",
		"prepared join 4, not committed: 200 changes\n  history 0801",
		"  extents 5-6: O3\n",
		"total S0v    91 extents\n",
		"total T2     4 extents\n",
		"extents 0-0: T2\nextents 1-1: O2\nextents 2-4: T2\nextents 5-8: O1\nextents 9-99: S0v\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("lacks %q:\n%s", want, got)
		}
	}
	if strings.Contains(got, "ERROR") || strings.Contains(got, "DAMAGED") {
		t.Errorf("a good file:\n%s", got)
	}
}

func TestDumpOfDamagedFiles(t *testing.T) {
	f := newFile(t, 3*pageStates, stale)
	change := func(at int) []byte {
		data := slices.Clone(f.data)
		data[at] ^= 1
		return data
	}
	both := change(0)
	both[slotSize] ^= 1
	for name, c := range map[string]struct {
		data []byte
		want error
		says []string
	}{
		"a header slot": {change(100), nil, []string{"header slot 0: DAMAGED", "extents 0-12263: T0\n"}},
		"both slots":    {both, ErrDamaged, []string{"header slot 1: DAMAGED", "ERROR", "move this file away"}},
		"a page": {change(pagesAt + pageSize + 50), ErrDamaged, []string{
			"extents 0-4087: T0\nextents 4088-8175: DAMAGED\nextents 8176-12263: T0\n", "total DAMAGED 4088 extents\n", "ERROR", "page 1: wrong checksum"}},
		"cut off": {f.data[:pagesAt+pageSize], ErrDamaged, []string{"ERROR"}},
		"nothing": {nil, ErrEmpty, []string{"ERROR"}},
		"text":    {[]byte("hello"), ErrDamaged, []string{"ERROR"}},
	} {
		got := dumpOf(t, c.data, c.want)
		for _, want := range c.says {
			if !strings.Contains(got, want) {
				t.Errorf("%s: lacks %q:\n%s", name, want, got)
			}
		}
	}
}

func TestDumpOfADamagedLog(t *testing.T) {
	f, _, ends := fiveSyncs(t)
	f.data[ends[2]+headSize] ^= 1
	got := dumpOf(t, f.data, ErrDamaged)
	if !strings.Contains(got, "2 records") || !strings.Contains(got, "block 3 has a wrong checksum") || !strings.Contains(got, "extents 0-2: O0\n") {
		t.Fatal(got)
	}
}
