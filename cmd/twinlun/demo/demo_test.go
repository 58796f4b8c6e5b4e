package demo

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/cmd/twinlund/status"
)

func TestLUNOfAFolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "demo.json")
	first, err := openLUN(path, 64<<20, 4096)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := config.ParseUUID(first.UUID); err != nil || first.Size != 64<<20 || first.BlockSize != 4096 {
		t.Errorf("a new LUN: %+v, %v", first, err)
	}
	for _, size := range []int64{0, 64 << 20} {
		if again, err := openLUN(path, size, size/(16<<10)); again != first || err != nil {
			t.Errorf("again, size %d: %+v, %v; want %+v", size, again, err, first)
		}
	}
	if _, err := openLUN(path, 1<<30, 0); err == nil || !strings.Contains(err.Error(), "has 64MiB") {
		t.Errorf("another size: %v", err)
	}
	if _, err := openLUN(path, 0, 512); err == nil || !strings.Contains(err.Error(), "has blocks of 4096 bytes") {
		t.Errorf("other blocks: %v", err)
	}
	old := filepath.Join(t.TempDir(), "old.json")
	if err := os.WriteFile(old, []byte(`{"uuid":"x","size":4096}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := openLUN(old, 0, 0); l.BlockSize != 512 || err != nil {
		t.Errorf("made before there was a choice: %+v, %v", l, err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openLUN(path, 0, 0); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a damaged file: %v", err)
	}
	if fresh, err := openLUN(filepath.Join(t.TempDir(), "x"), 0, 0); fresh.Size != DefaultSize || fresh.BlockSize != 512 || err != nil {
		t.Errorf("without a wish: %+v, %v", fresh, err)
	}
}

// TestConfigurations: what the demo writes is what the daemon takes.
func TestConfigurations(t *testing.T) {
	d := &demo{o: Options{BasePort: 13260}, dir: filepath.Join(t.TempDir(), "with space \"quoted\"")}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.makeSites(); err != nil {
		t.Fatal(err)
	}
	for i, s := range d.sites {
		c, err := config.Source{File: s.file("twinlund.yaml")}.Load()
		if err != nil {
			t.Fatal(err)
		}
		if c.Cluster == nil || c.DataDir != s.dir || c.Cluster.Listen != s.peer || c.Cluster.Socket != s.file("api.sock") || (c.Witness != nil) != (i == 2) {
			t.Errorf("node %s: %+v", s.name, c)
		}
		other := []string{"b", "a", "a"}[i]
		if want := []string{"127.0.0.1:13262", "127.0.0.1:13273", "127.0.0.1:13264"}[i]; len(c.Cluster.Routes) != 2 || c.Cluster.Routes[other][0] != want {
			t.Errorf("node %s: routes %v, want %s for %s", s.name, c.Cluster.Routes, want, other)
		}
	}
}

func TestEnvironmentOfDaemons(t *testing.T) {
	t.Setenv("TWINLUN_NODE", "x")
	t.Setenv("OTHER", "y")
	env := strings.Join(cleanEnvironment(), "\n")
	if strings.Contains(env, "TWINLUN_") || !strings.Contains(env, "OTHER=y") {
		t.Error("the daemons' environment has settings meant for somebody else, or misses what is not")
	}
}

func TestStatusLine(t *testing.T) {
	s := newSite("a", "/d", Options{BasePort: 13260})
	st := &status.Status{Link: status.Link{Up: true, RTT: 50 * time.Millisecond}, LUNs: []status.LUN{{
		Serving: true, Dirty: 3 << 20, Marks: 7, Fetches: 8, Copies: 100, CopiedBytes: 1 << 20}}}
	now := time.Now()
	s.statusLine(st, now)
	st.LUNs[0].Copies, st.LUNs[0].CopiedBytes = 150, 5<<20
	want := "site a  127.0.0.1:13260  serves  link up, round trip 50.0 ms  dirty 3 MiB  marks 7  fetches 8  copies 25/s (2 MiB/s)"
	if got := s.statusLine(st, now.Add(2*time.Second)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	st.LUNs[0].Copies, st.LUNs[0].Serving, st.Link.Up = 1, false, false // a new daemon
	if got := s.statusLine(st, now.Add(3*time.Second)); !strings.Contains(got, "waits   link down") || !strings.Contains(got, "copies 0/s") {
		t.Errorf("after a restart: %s", got)
	}
}

// TestScreen follows the terminal's orders: whatever is printed, the last status
// stands at the bottom, once.
func TestScreen(t *testing.T) {
	var out bytes.Buffer
	s := &screen{w: &out, live: true}
	s.print("hello")
	s.status([]string{"a 1", "b 1"})
	s.print("news")
	s.status([]string{"a 2", "b 2"})
	if got := render(out.String()); got != "hello\nnews\na 2\nb 2\n" {
		t.Errorf("the terminal shows %q", got)
	}
	out.Reset()
	plain := &screen{w: &out}
	plain.status([]string{"a 1"})
	plain.print("news")
	if out.String() != "a 1\nnews\n" {
		t.Errorf("a file gets %q", out.String())
	}
}

// render is a terminal that knows "cursor up n", "to the line's start", and "clear to
// the end".
func render(text string) string {
	lines := []string{}
	for len(text) > 0 {
		if rest, ok := strings.CutPrefix(text, "\x1b[2A\r\x1b[J"); ok {
			lines, text = lines[:len(lines)-2], rest
			continue
		}
		line, rest, _ := strings.Cut(text, "\n")
		line = strings.NewReplacer("\x1b[?7l", "", "\x1b[?7h", "").Replace(line)
		if rest2, ok := strings.CutPrefix(rest, "\x1b[?7h"); ok {
			rest = rest2
		}
		lines, text = append(lines, line), rest
	}
	return strings.Join(lines, "\n") + "\n"
}
