package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/replication"
	"github.com/twinlun/twinlun/webui/api"
	"github.com/twinlun/twinlun/webui/client"
)

func (c *trio) api(name string) *client.Client { return client.Local(c.cfg[name].Cluster.Socket) }

// verify compares the replicas at a node, to the end.
func (c *trio) verify(name string, n api.NewVerification) (v api.Verification) {
	c.t.Helper()
	c.until(name, "comparing", func(*Daemon) bool { _, err := c.api(name).Verify(c.t.Context(), "disk", n); return err == nil })
	c.until(name, "through", func(*Daemon) bool {
		var err error
		v, err = c.api(name).Verification(c.t.Context(), "disk")
		return err == nil && v.State == api.VerifyComplete
	})
	return v
}

// flipFile changes a byte of a replica's file.
func flipFile(t *testing.T, path string, off int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, 1)
	if _, err := f.ReadAt(p, off); err != nil {
		t.Fatal(err)
	}
	p[0] ^= 0x80
	if _, err := f.WriteAt(p, off); err != nil {
		t.Fatal(err)
	}
}

// logged waits for an event of the LUN.
func (c *trio) logged(name string, level catalog.Level, part string) {
	c.t.Helper()
	c.until(name, "told of "+part, func(d *Daemon) bool {
		for e := range d.cluster.Member().State().Events(0) {
			if e.Level == level && e.Subject == "LUN disk" && strings.Contains(e.Text, part) {
				return true
			}
		}
		return false
	})
}

// TestVerify: a byte of a replica's file changes; comparing finds it from both sites, the
// cluster's log has it, and a repair mends it, after which nothing is found.
func TestVerify(t *testing.T) {
	c := newTrio(t)
	for block := range 20 {
		c.write("ab"[block%2:block%2+1], 16*block, byte(block+1))
	}
	for _, name := range []string{"a", "b"} {
		if v := c.verify(name, api.NewVerification{}); v.Differing != 0 || v.Compared+v.Copying != 16<<20 || v.LUN != "disk" || v.Node != name {
			t.Fatalf("%+v", v)
		}
	}
	c.logged("a", catalog.Info, "no difference")
	for block := range 4 {
		c.until("a", "copied", func(d *Daemon) bool { return d.Status().LUNs[0].Dirty == 0 })
		c.until("b", "copied", func(d *Daemon) bool { return d.Status().LUNs[0].Dirty == 0 })
		flipped, asked := "ab"[block%2:block%2+1], "ab"[block/2:block/2+1]
		off := int64(16*block) << 12
		flipFile(t, filepath.Join(c.cfg[flipped].DataDir, "disk.img"), off+99)
		v := c.verify(asked, api.NewVerification{})
		if v.Differing != 4096 || len(v.Differences) != 1 || v.Differences[0].Offset != off || v.Differences[0].Length != 4096 {
			t.Fatalf("flipped at %s, asked at %s: %+v", flipped, asked, v)
		}
		c.until(asked, "alarmed", func(d *Daemon) bool { l := d.Status().LUNs[0]; return l.Differing == 4096 && l.Alarms > 0 })
		right := map[string]string{"a": "b", "b": "a"}[flipped]
		v = c.verify(asked, api.NewVerification{Repair: true, Keep: catalog.NodeID(right)})
		if v.Differing != 4096 || v.Repaired != 4096 || string(v.Keep) != right || v.Differences[0].Keeps != right {
			t.Fatalf("not repaired: %+v", v)
		}
		c.read("a", 16*block, byte(block+1))
		c.read("b", 16*block, byte(block+1))
		if v = c.verify("b", api.NewVerification{}); v.Differing != 0 {
			t.Fatalf("not clean: %+v", v)
		}
	}
	c.logged("b", catalog.Alert, "DIFFER in 4096 bytes")
	c.logged("a", catalog.Alert, "all of it is repaired")
	// A witness has nothing to compare, and two comparisons at once are refused.
	if _, err := c.api("w").Verify(t.Context(), "disk", api.NewVerification{}); err == nil || !strings.Contains(err.Error(), "ask at node a or b") {
		t.Error(err)
	}
	slow := api.NewVerification{Rate: 1 << 20}
	if _, err := c.api("a").Verify(t.Context(), "disk", slow); err != nil {
		t.Fatal(err)
	}
	if _, err := c.api("a").Verify(t.Context(), "disk", slow); err == nil || !strings.Contains(err.Error(), "already") {
		t.Error(err)
	}
	if err := c.api("a").StopVerify(t.Context(), "disk"); err != nil {
		t.Error(err)
	}
	c.until("a", "stopped", func(*Daemon) bool {
		v, err := c.api("a").Verification(t.Context(), "disk")
		return err == nil && v.State == api.VerifyStopped && v.Error != ""
	})
	c.logged("a", catalog.Warning, "ended early")
}

// Each word that people get to read about a comparison.
func TestVerifyEvent(t *testing.T) {
	begun := time.Unix(1e9, 0)
	ended := replication.VerifyStatus{Started: begun, Ended: begun.Add(time.Second), Size: 8192, Compared: 8192}
	differ := ended
	differ.Differing, differ.Differences = 4096, []replication.VerifyDifference{{Off: 4096, Length: 4096}}
	running, mended, unread, both := differ, differ, ended, differ
	running.Ended = time.Time{}
	mended.Repair, mended.Repaired = true, 4096
	unread.Unread, both.Unread = 4096, 4096
	for _, c := range []struct {
		s     replication.VerifyStatus
		level catalog.Level
		text  string
	}{
		{ended, catalog.Info, "were compared: no difference ("},
		{running, catalog.Alert, "comparing the replicas: they DIFFER in 4096 bytes, first at offset 4096; twinlun lun verify --repair makes"},
		{differ, catalog.Alert, "were compared: they DIFFER"},
		{mended, catalog.Alert, "first at offset 4096; all of it is repaired ("},
		{unread, catalog.Warning, "no difference; 4096 bytes cannot be read"},
		{both, catalog.Alert, "DIFFER"},
	} {
		if level, text := verifyEvent(&c.s); level != c.level || !strings.Contains(text, c.text) {
			t.Errorf("%s %s, want %s %s", level, text, c.level, c.text)
		}
	}
}
