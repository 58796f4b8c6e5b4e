package roles

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/failover"
	"github.com/twinlun/twinlun/target/keep"
)

func TestMemos(t *testing.T) {
	path := filepath.Join(t.TempDir(), "serving.json")
	all, err := readFile(path)
	if err != nil || len(all) != 0 {
		t.Fatalf("without a file: %v, %v", all, err)
	}
	for i := range catalog.MaxLUNs {
		all[catalog.UUID{0: byte(i), 1: byte(i >> 8), 15: 1}] = memo{Term: 1 << 63, ID: catalog.UUID{0: 0xff}, What: failover.Forced, From: 1<<63 - 1, Loss: catalog.ServeStale}
	}
	if err := os.WriteFile(path, encodeMemos(all), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := readFile(path)
	if err != nil || !reflect.DeepEqual(again, all) {
		t.Errorf("%d memos became %d, %v", len(all), len(again), err)
	}
}

// TestMemosVersion1: a file of the first version is read as it was meant.
func TestMemosVersion1(t *testing.T) {
	line := `{"version":1,"luns":{"01000000-0000-0000-0000-000000000000":{"term":3,"id":"02000000-0000-0000-0000-000000000000","what":2}}}`
	all, err := parseMemos([]byte(line + "\n" + checksum([]byte(line))))
	want := map[catalog.UUID]memo{{1}: {Term: 3, ID: catalog.UUID{2}, What: failover.Offered}}
	if err != nil || !reflect.DeepEqual(all, want) {
		t.Errorf("%v, %v", all, err)
	}
}

// TestDamagedMemos: what a node has promised must not be guessed.
func TestDamagedMemos(t *testing.T) {
	good := encodeMemos(map[catalog.UUID]memo{{1}: {Term: 3, ID: catalog.UUID{2}, What: failover.Alone}})
	seal := func(line string) []byte { return append([]byte(line+"\n"), checksum([]byte(line))...) }
	for what, text := range map[string][]byte{
		"empty": {}, "cut": good[:len(good)-1], "longer": append(bytes.Clone(good), '\n'), "flipped": bytes.Replace(good, []byte("3"), []byte("4"), 1),
		"version": seal(`{"version":3,"luns":{}}`), "field": seal(`{"version":1,"lunes":{}}`), "no JSON": seal(`hello`),
		"term":                seal(`{"version":1,"luns":{"01000000-0000-0000-0000-000000000000":{"term":0,"id":"01000000-0000-0000-0000-000000000000","what":1}}}`),
		"what":                seal(`{"version":1,"luns":{"01000000-0000-0000-0000-000000000000":{"term":1,"id":"01000000-0000-0000-0000-000000000000","what":4}}}`),
		"forced in version 1": seal(`{"version":1,"luns":{"01000000-0000-0000-0000-000000000000":{"term":4294967296,"id":"01000000-0000-0000-0000-000000000000","what":3,"from":7}}}`),
		"forced from nothing": seal(`{"version":2,"luns":{"01000000-0000-0000-0000-000000000000":{"term":4294967296,"id":"01000000-0000-0000-0000-000000000000","what":3}}}`),
		"another term":        seal(`{"version":2,"luns":{"01000000-0000-0000-0000-000000000000":{"term":4294967297,"id":"01000000-0000-0000-0000-000000000000","what":3,"from":7}}}`),
		"another policy":      seal(`{"version":2,"luns":{"01000000-0000-0000-0000-000000000000":{"term":4294967296,"id":"01000000-0000-0000-0000-000000000000","what":3,"from":7,"loss":"lose"}}}`),
	} {
		path := filepath.Join(t.TempDir(), "serving.json")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if all, err := readFile(path); err == nil || !strings.Contains(err.Error(), "join anew") {
			t.Errorf("%s: %v, %v", what, all, err)
		}
	}
}

func FuzzMemos(f *testing.F) {
	f.Add(encodeMemos(map[catalog.UUID]memo{{1}: {Term: 3, ID: catalog.UUID{2}, What: failover.Alone}}))
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := parseMemos(text)
		if err != nil {
			return
		}
		if again, err := parseMemos(encodeMemos(all)); err != nil || !reflect.DeepEqual(again, all) {
			t.Errorf("%v became %v, %v", all, again, err)
		}
	})
}

func BenchmarkHolds(b *testing.B) {
	for name, when := range map[string]failover.When{"always": failover.Always, "leased": failover.Leased} {
		b.Run(name, func(b *testing.B) {
			p := &pair{}
			p.end.Store(int64(failover.Never))
			l := &Lease{clock: BootTime}
			l.end.Store(&p.end)
			l.set(when)
			b.ReportAllocs()
			for b.Loop() {
				if !l.Holds() {
					b.Fatal("it does not hold")
				}
			}
		})
	}
}

func readFile(path string) (map[catalog.UUID]memo, error) {
	return readMemos(path, func() ([]byte, error) { return keep.Read(path, maxMemos) })
}
