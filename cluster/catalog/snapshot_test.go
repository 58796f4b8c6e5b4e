package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

// sealed adds the last line to the others.
func sealed(body string) string {
	return fmt.Sprintf("%s{\"kind\":\"end\",\"value\":{\"lines\":%d,\"crc\":\"%08x\"}}\n",
		body, strings.Count(body, "\n"), crc32.Checksum([]byte(body), castagnoli))
}

// TestSnapshotForm is the form of a snapshot.
func TestSnapshotForm(t *testing.T) {
	const none = `{"kind":"catalog","value":{"format":1,"index":0,"cluster":{"id":"00000000-0000-0000-0000-000000000000","name":""},"version":1,` +
		`"settings":{"heartbeat":"500ms","lease":"2s","preferred_delay":"1s","cold_after":"10s","hold_wait":"15s","copy_rate":0,"compress":true},` +
		`"longest_lease":"2s","discovery":{},"decided":0,"events":0}}` + "\n"
	if got := string(bytesOf(t, New())); got != sealed(none) {
		t.Errorf("got\n%swant\n%s", got, sealed(none))
	}
	s, err := Read(strings.NewReader(sealed(none)))
	if err != nil || !s.Equal(New()) {
		t.Errorf("read %v, %v", s, err)
	}
}

// TestSnapshotRefuses lists damaged snapshots; those below the line have a right checksum.
func TestSnapshotRefuses(t *testing.T) {
	whole := string(bytesOf(t, whole(t).s))
	body := whole[:strings.LastIndex(strings.TrimSuffix(whole, "\n"), "\n")+1]
	for _, c := range []struct{ corrupt, old, new, want string }{
		{"empty", whole, "", "the end is missing"},
		{"cut", whole, body, "the end is missing"},
		{"end cut", whole, whole[:len(whole)-1], "the end is missing"},
		{"more", whole, whole + "\n", "something follows"},
		{"checksum", `"disk"`, `"dusk"`, "it is damaged"},
		{"line missing", whole, strings.Replace(whole, body[strings.LastIndex(body[:len(body)-1], "\n")+1:], "", 1), "it is damaged"},
		{"long line", whole, strings.Repeat("x", maxLine+1), "more than 262144 bytes"},
		{"another file", whole, "hello\n", "invalid character"},
		{"another kind", `{"kind":"catalog"`, `{"kind":"novel"`, `begins with "novel"`},
		{"newer", `"format":1`, `"format":2`, "older than the cluster's snapshots (version 2"},
		{"newer commands", `"version":1,"settings"`, `"version":2,"settings"`, "older than the cluster's commands"},

		{"unknown kind", `{"kind":"group"`, `{"kind":"orchestra"`, `no entry of the kind "orchestra"`},
		{"unknown field", `"alias":`, `"nickname":`, "unknown field"},
		{"twice", `{"kind":"group"`, `{"kind":"group","value":{"name":"db","revision":1}}` + "\n" + `{"kind":"group"`, "there already"},
		{"no node", `{"node":"b","kind":"file"`, `{"node":"x","kind":"file"`, "there is no node x"},
		{"serving", `"serving":["a","b"]`, `"serving":["a","c"]`, "not all have a replica"},
		{"serving twice", `"serving":["a","b"]`, `"serving":["a","a"]`, `served by ["a" "a"]`},
		{"serving nobody", `"serving":["a","b"]`, `"serving":[]`, "it is served by []"},
		{"term", `"term":1,"serving"`, `"term":2,"serving"`, "does not end with the present one"},
		{"decided", `"decided":8,"join"`, `"decided":999,"join"`, "decided in the future"},
		{"chain", `"chain":[`, `"chain":[{"term":1,"id":"00000001-0000-0000-0000-000000000001"},`, "does not ascend"},
		{"same name", `"name":"other"`, `"name":"disk"`, "same name"},
		{"mapping of nothing", `"number":5,"lun":"00000015`, `"number":5,"lun":"00000016`, "there is no LUN"},
		{"group of nothing", `"group":"db","chap"`, `"group":"dc","chap"`, "does not exist"},
		{"key twice", strings.Repeat("0", 7) + "2" + strings.Repeat("0", 55) + "1", strings.Repeat("0", 7) + "1" + strings.Repeat("0", 55) + "1", "the same key"},
		{"initiator twice", `debian:01:web7"`, `debian:01:db1"`, "the same initiator"},
		{"reservations", `"state":"VFdMT`, `"state":"VFdNT`, "does not begin with"},
		{"reservations of nothing", `{"kind":"reservations","value":{"lun":"00000014`, `{"kind":"reservations","value":{"lun":"00000016`, "belongs to the logical unit"},
		{"user of nobody", `"user":"eve"`, `"user":"eva"`, "no user eva"},
		{"event missing", `"number":3,`, `"number":33,`, "stands where"},
		{"request of the future", `"kind":"request","value":{"index":3,`, `"kind":"request","value":{"index":333,`, "applied at index 333"},
		{"lease", `"longest_lease":"2s"`, `"longest_lease":"1s"`, "longer than the longest"},
		{"settings", `"heartbeat":"500ms"`, `"heartbeat":"1ms"`, "less than 50ms"},
	} {
		text := strings.Replace(whole, c.old, c.new, -1)
		if text == whole {
			t.Fatalf("%s: %q is not in the snapshot\n%s", c.corrupt, c.old, whole)
		}
		if c.old != whole && c.corrupt != "checksum" {
			text = sealed(strings.Replace(body, c.old, c.new, -1))
		}
		s, err := Read(iotest.OneByteReader(strings.NewReader(text)))
		if err == nil || !strings.Contains(err.Error(), c.want) || s != nil {
			t.Errorf("%s: %v; want …%s…", c.corrupt, err, c.want)
		}
		if newer := strings.HasPrefix(c.corrupt, "newer"); newer != errors.Is(err, ErrCannotRead) {
			t.Errorf("%s: %v, ErrCannotRead is %t", c.corrupt, err, !newer)
		}
	}
}

func TestSnapshotErrors(t *testing.T) {
	s := whole(t).s
	if _, err := s.WriteTo(writer{errors.New("disk full")}); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("WriteTo: %v", err)
	}
	if _, err := Read(iotest.ErrReader(io.ErrClosedPipe)); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("Read: %v", err)
	}
}

type writer struct{ err error }

func (w writer) Write([]byte) (int, error) { return 0, w.err }

// FuzzRead reads any snapshot, with a last line that is right: what it takes is sound, is
// written so that it is read as the same, and goes on.
func FuzzRead(f *testing.F) {
	golden, err := os.ReadFile(filepath.Join("testdata", "snapshot.v1"))
	if err != nil {
		f.Fatal(err)
	}
	for _, text := range []string{string(golden), string(bytesOf(f, whole(f).s)), string(bytesOf(f, New()))} {
		text = strings.TrimSuffix(text, "\n")
		f.Add(text[:strings.LastIndex(text, "\n")+1])
	}
	f.Fuzz(func(t *testing.T, body string) {
		s, err := Read(strings.NewReader(sealed(body)))
		if err != nil {
			return
		}
		first := bytesOf(t, s)
		again, err := Read(bytes.NewReader(first))
		if err != nil || !bytes.Equal(bytesOf(t, again), first) {
			t.Fatalf("%s\nbecame\n%s%v", body, first, err)
		}
		if s.core.Index == 1<<64-1 {
			return
		}
		raw, _ := Command{ID: id(99), Time: start, Body: &PutGroup{Name: "new"}}.Encode()
		next, _, err := s.Apply(s.core.Index+1, raw)
		if err != nil {
			t.Fatal(err)
		}
		if err := (&change{State: *next}).check(); err != nil {
			t.Fatal(err)
		}
	})
}
