package daemon

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/failover"
	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/dirtymap/mapfile"
)

// replicaFiles are the files of a node's only LUN: those beside its map, and its bytes.
func replicaFiles(t *testing.T, c *config.LUN) map[string][]byte {
	t.Helper()
	names, err := filepath.Glob(beside(c, ".*"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for _, name := range append(names, c.Backing) {
		if all[name], err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// renameTerm gives the term of a map file another name.
func renameTerm(t *testing.T, path string) {
	t.Helper()
	f, err := mapfile.OpenOS(path)
	if err != nil {
		t.Fatal(err)
	}
	log, _, err := mapfile.Open(f, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := log.Meta()
	m.Term.ID = [16]byte{0xee}
	if err = log.Append(m); err == nil {
		err = log.Sync()
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestAstray: a replica from another time, or of another history, is in its place when its
// node starts. It is not used; the other node goes on with what is right, and a new replica
// can take its place.
func TestAstray(t *testing.T) {
	c := newTrio(t)
	cold := catalog.Duration(500 * time.Millisecond) // so that nothing is held when b is away
	c.do(&catalog.ChangeSettings{ColdAfter: &cold})
	c.write("a", 1, 0x11)
	clean := func(d *Daemon) bool {
		s := d.Status()
		return len(s.LUNs) == 1 && s.LUNs[0].Serving && s.LUNs[0].Dirty == 0 && s.LUNs[0].Owned == 0
	}
	cfg := c.config("b", clean)
	c.stop("b")
	old := replicaFiles(t, &cfg)
	c.write("a", 1, 0x22)
	c.start("b")
	c.read("b", 1, 0x22)
	for what, spoil := range map[string]func(){
		"an older copy": func() {
			for name, text := range old {
				if err := os.WriteFile(name, text, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		},
		"another history": func() { renameTerm(t, cfg.Map) },
	} {
		t.Log(what)
		c.write("b", 2, 0x33)
		c.config("b", clean)
		c.stop("b")
		spoil()
		c.start("b")
		c.write("a", 3, 0x44) // it is left to a, which had to be asked by b when it was there
		c.read("a", 2, 0x33)
		c.until("a", "alone", func(d *Daemon) bool {
			r, _ := d.cluster.keeper().Role(catalog.UUID{1})
			return r.Serve == failover.ByItself
		})
		if s := c.d["b"].Status(); len(s.LUNs) != 0 {
			t.Errorf("%s: it is open: %+v", what, s.LUNs)
		}
		c.stop("b")
		if err := os.Remove(cfg.Map); err != nil {
			t.Fatal(err)
		}
		c.start("b")
		c.read("b", 1, 0x22)
		c.read("b", 2, 0x33)
		c.read("b", 3, 0x44)
		c.until("b", "together", func(d *Daemon) bool {
			r, _ := d.cluster.keeper().Role(catalog.UUID{1})
			return r.Serve == failover.Together
		})
	}
}

// config is that of a site's LUN, as soon as that is ready.
func (c *trio) config(name string, ready func(*Daemon) bool) config.LUN {
	c.t.Helper()
	c.until(name, "ready", ready)
	return c.d[name].all()[0].config()
}
