package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

const good = `
node: a
data-dir: /srv/twinlun
iscsi:
  iqn: iqn.2026-01.org.example:disks
  listen: [127.0.0.1:3260, "[::1]:3260"]
  portal-group: 1
  portals:
    - {address: 192.0.2.1:3260, group: 1}
    - {address: 192.0.2.2:3260, group: 2}
hosts:
  - initiator: iqn.1993-08.org.debian:*
  - {initiator: iqn.1993-08.org.debian:01:web, user: web, secret: correct horse battery, target-user: disks, target-secret: the target proves it}
discovery: {user: look, secret: "0123456789012345"}
peer:
  name: b
  address: 192.0.2.2:7480
  token: swordfish
  heartbeat: 250ms
luns:
  - number: 0
    name: disk
    uuid: 6ba7b810-9dad-11d1-80b4-00c04fd430c8
    size: 10GiB
    preferred: a
`

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "twinlund.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestGoodFile(t *testing.T) {
	c, err := Source{File: write(t, good)}.Load()
	if err != nil {
		t.Fatal(err)
	}
	l := c.LUNs[0]
	if c.Node != "a" || c.Peer.Heartbeat != 250*time.Millisecond || c.Peer.Streams != 2 || !c.Peer.Compress ||
		len(c.Targets[0].Listen) != 2 || c.Targets[0].Portals[1] != (Portal{"192.0.2.2:3260", 2}) {
		t.Errorf("loaded %+v", c)
	}
	if l.Size != 10<<30 || l.ExtentSize != 64<<10 || l.BlockSize != 512 || l.Backing != "/srv/twinlun/disk.img" || l.Map != "/srv/twinlun/disk.map" || l.UUID[0] != 0x6b {
		t.Errorf("loaded LUN %+v", l)
	}
}

// TestReadme loads the example of the README.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "## Two nodes without a cluster\n")
	_, rest, _ = strings.Cut(rest, "```yaml\n")
	example, rest, _ := strings.Cut(rest, "```")
	c, err := Source{File: write(t, example)}.Load()
	if err != nil || len(c.LUNs) == 0 || len(c.Targets[0].Hosts) != 2 || len(c.Targets[0].Portals) != 3 {
		t.Errorf("the example of the README: %+v, %v", c, err)
	}
	_, rest, _ = strings.Cut(rest, "```yaml\n")
	targets, _, _ := strings.Cut(rest, "```")
	before, after, _ := strings.Cut(example, "  iqn: ")
	_, after, _ = strings.Cut(after, "\n")
	c, err = Source{File: write(t, before+after+targets)}.Load()
	if err != nil || len(c.Targets) != 2 || len(c.Targets[0].Hosts) != 2 || len(c.Targets[1].Hosts) != 1 || len(c.Targets[1].Portals) != 2 {
		t.Errorf("the example of several targets: %+v, %v", c, err)
	}
}

func TestOrder(t *testing.T) {
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	AddFlags(flags)
	if err := flags.Parse([]string{"--peer-streams", "5"}); err != nil {
		t.Fatal(err)
	}
	env := []string{"TWINLUN_PEER_STREAMS=4", "TWINLUN_PEER_DEAD_AFTER=9s", "TWINLUN_CONFIG=elsewhere", "PATH=/bin"}
	c, err := Source{File: write(t, good), Environ: env, Flags: flags}.Load()
	if err != nil {
		t.Fatal(err)
	}
	if c.Peer.Streams != 5 || c.Peer.DeadAfter != 9*time.Second || c.Peer.Heartbeat != 250*time.Millisecond {
		t.Errorf("peer is %+v; want streams of the flag, dead-after of the environment, heartbeat of the file", c.Peer)
	}
}

// TestErrors changes one thing of the good file and expects an error that names it
// and says what would do.
func TestErrors(t *testing.T) {
	for _, c := range []struct{ old, new, want string }{
		{"node: a", "nod: a", `unknown key "nod"; allowed at the top are cluster, data-dir, discovery, hosts, iscsi, join, log, luns, node`},
		{"portal-group: 1", "portal-gruop: 1", `unknown key "iscsi.portal-gruop"; allowed in iscsi are alias, iqn`},
		{"group: 2", "tag: 2", `unknown key "tag"; allowed in iscsi.portals, entry 2, are address, group`},
		{"size: 10GiB", "sise: 10GiB", `unknown key "sise"; allowed in luns, entry 1, are backing`},
		{"size: 10GiB", "size: 10 pieces", "luns, entry 1: size: \"10 pieces\" is not a number of bytes"},
		{"size: 10GiB", "size: 10000", "LUN 0 (disk): size 10000: must be a multiple of 4096"},
		{"size: 10GiB", "size: 99999999TiB", "is not a number of bytes"},
		{"size: 10GiB", "size: 10GiB\n    block-size: 1024", `luns, entry 1: block-size: "1024" is no size of blocks; it is 512,`},
		{"size: 10GiB", "size: 10GiB\n    block-size: big", `block-size: "big" is no size of blocks`},
		{"number: 0", "number: 20000", "number: \"20000\" is not a number from 0 to 16383"},
		{"uuid: 6ba7b810-9dad", "uuid: 6ba7b8109-dad", "is not a UUID"},
		{"preferred: a", "preferred: c", `preferred: "c" is neither "a" nor "b"`},
		{"node: a", "", "node: is missing"},
		{"node: a", "node: b", "both nodes are called"},
		{"node: a", "node: [a, b]", `node: "a,b" is not a name`},
		{"node: a", "node: {x: 1}", "node: one value is wanted here"},
		{"node: a", "node: c", "peer.listen: is missing; c is dialed by b"},
		{"  address: 192.0.2.2:7480", "", "peer.address: is missing; a dials b"},
		{"192.0.2.2:7480", "192.0.2.2", "peer.address: \"192.0.2.2\" is not an address"},
		{"heartbeat: 250ms", "heartbeat: fast", `peer.heartbeat: "fast" is not a time`},
		{"heartbeat: 250ms", "heartbeat: 1900ms", "peer.dead-after: 2s is less than two heartbeats"},
		{"heartbeat: 250ms", "streams: 9", `peer.streams: "9" is not a whole number from 1 to 8`},
		{"heartbeat: 250ms", "compress: maybe", `peer.compress: "maybe" is neither true nor false`},
		{"iqn.2026-01", "iqn.2026-13", "is not an iSCSI name"},
		{"portal-group: 1", "portal-group: 0", "is not a portal group tag"},
		{"token: swordfish", "token: ''", "peer.token: is missing"},
		{"token: swordfish", "token: 007", "peer.token: a text is wanted here; put it in quotes"},
		{"luns:", "luns: none\nxluns:", "unknown key \"xluns\""},
		{"data-dir: /srv/twinlun", "peer: 5", "already defined"},
		{"data-dir: /srv/twinlun", "log: loud", "log: has keys below it, format, level"},
		{"data-dir: /srv/twinlun", "status: {listen: 0.0.0.0:80}", "is not a loopback address"},
		{"data-dir: /srv/twinlun", "\t- x", "read the configuration"},
		{"    preferred: a\n", `    preferred: a
  - {number: 0, name: two, uuid: 6ba7b810-9dad-11d1-80b4-00c04fd430c9, size: 1GiB, preferred: b}
`, "LUN 0 (two): the number 0 is that of disk too"},
	} {
		text := strings.Replace(good, c.old, c.new, 1)
		if text == good {
			t.Fatalf("%q is not in the good file", c.old)
		}
		_, err := Source{File: write(t, text)}.Load()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q instead of %q:\n got %v\nwant …%s…", c.new, c.old, err, c.want)
		}
	}
}

func TestPortals(t *testing.T) {
	const listen, own = `listen: [127.0.0.1:3260, "[::1]:3260"]`, "    - {address: 192.0.2.1:3260, group: 1}\n"
	for _, c := range []struct{ old, new, want string }{
		{"", "", "[{192.0.2.1:3260 1} {192.0.2.2:3260 2}]"},
		{own, "", "[{127.0.0.1:3260 1} {[::1]:3260 1} {192.0.2.2:3260 2}]"},
		{own, "    - {address: '[2001:db8::1]:3260', group: 2}\n", "[{127.0.0.1:3260 1} {[::1]:3260 1} {[2001:db8::1]:3260 2} {192.0.2.2:3260 2}]"},
		{listen, "", "[{192.0.2.1:3260 1} {192.0.2.2:3260 2}]"},
		{listen + "\n  portal-group: 1\n  portals:\n" + own, "portals:\n", "[{:3260 1} {192.0.2.2:3260 2}]"},
	} {
		text := strings.Replace(good, c.old, c.new, 1)
		cfg, err := Source{File: write(t, text)}.Load()
		if err != nil || fmt.Sprint(cfg.Targets[0].Portals) != c.want || c.old != "" && text == good {
			t.Errorf("%q instead of %q: %v, %v; want %s", c.new, c.old, cfg, err, c.want)
		}
	}
}

func TestEnvironmentErrors(t *testing.T) {
	for env, want := range map[string]string{
		"TWINLUN_PEER_STREAM=3":    "unknown variable TWINLUN_PEER_STREAM; allowed are TWINLUN_CLUSTER_LISTEN, TWINLUN_CLUSTER_ROUTES, TWINLUN_CLUSTER_SOCKET, TWINLUN_CONFIG, TWINLUN_DATA_DIR",
		"TWINLUN_PEER_STREAMS=x":   "environment TWINLUN_PEER_STREAMS: peer.streams: \"x\"",
		"TWINLUN_LOG_LEVEL=silent": "is none of debug, info, warn, error",
	} {
		_, err := Source{File: write(t, good), Environ: []string{env}}.Load()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want …%s…", env, err, want)
		}
	}
	if _, err := (Source{File: "/nonexistent/x.yaml"}).Load(); err == nil || !strings.Contains(err.Error(), "/nonexistent/x.yaml") {
		t.Errorf("a missing file: %v", err)
	}
}

func TestBlockSize(t *testing.T) {
	for text, want := range map[string]int64{"512": 512, "4096": 4096, "4KiB": 4096} {
		c, err := Source{File: write(t, good+"    block-size: "+text+"\n")}.Load()
		if err != nil || c.LUNs[0].BlockSize != want {
			t.Errorf("block-size %s: %+v, %v", text, c, err)
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "4096": 4096, "64KiB": 65536, "3MiB": 3 << 20, "1TiB": 1 << 40, "8388607TiB": 8388607 << 40} {
		if n, err := ParseSize(text); n != want || err != nil {
			t.Errorf("ParseSize(%q) = %d, %v", text, n, err)
		}
		if n, err := ParseSize(FormatSize(want)); n != want || err != nil {
			t.Errorf("%d bytes are %q, which is read as %d, %v", want, FormatSize(want), n, err)
		}
	}
	for _, text := range []string{"", "-1", "1.5GiB", "1GB", "KiB", "8388608TiB", "0x10"} {
		if n, err := ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %d", text, n)
		}
	}
}

func FuzzFile(f *testing.F) {
	f.Add(good)
	f.Add(several)
	f.Add("luns: [[]]\nnode: ~")
	f.Add("iscsi: {portals: {a: b}}")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(dir, "f.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Source{File: path}.Load()
		if err == nil && (c.Node == "" || len(c.LUNs) == 0 || len(c.Targets) == 0) {
			t.Errorf("accepted as %+v", c)
		}
	})
}
