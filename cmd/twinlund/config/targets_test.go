package config

import (
	"fmt"
	"maps"
	"strings"
	"testing"
)

// several is the good file with two targets instead of one.
var several = strings.Replace(good, "  iqn: iqn.2026-01.org.example:disks\n", "", 1) + `targets:
  - {number: 0, iqn: "iqn.2026-01.org.example:disks"}
  - number: 7
    iqn: iqn.2026-01.org.example:web
    alias: for the web
    listen: [192.0.2.9:3260, "192.0.2.9:860"]
    hosts:
      - {initiator: "iqn.x:web", user: web, secret: another long secret, luns: [1=0]}
    luns: [3=0]
`

func TestTargets(t *testing.T) {
	c, err := Source{File: write(t, several)}.Load()
	if err != nil || len(c.Targets) != 2 || len(c.Warnings) > 0 {
		t.Fatalf("%+v, %v", c, err)
	}
	disks, web := c.Targets[0], c.Targets[1]
	if disks.Number != 0 || disks.IQN != "iqn.2026-01.org.example:disks" || len(disks.Listen) != 2 || len(disks.Hosts) != 2 || disks.LUNs != nil ||
		fmt.Sprint(disks.Portals) != "[{192.0.2.1:3260 1} {192.0.2.2:3260 2}]" {
		t.Errorf("%+v", disks)
	}
	if web.Number != 7 || web.IQN != "iqn.2026-01.org.example:web" || web.Alias != "for the web" || len(web.Hosts) != 1 ||
		!maps.Equal(web.LUNs, map[uint16]uint16{3: 0}) || len(web.Views) != 1 || !maps.Equal(web.Views[0].LUNs, map[uint16]uint16{1: 0}) ||
		fmt.Sprint(web.Portals) != "[{192.0.2.9:3260 1} {192.0.2.9:860 1}]" {
		t.Errorf("%+v", web)
	}
	one, err := Source{File: write(t, good)}.Load()
	if err != nil || len(one.Targets) != 1 || one.Targets[0].Number != 0 || one.Targets[0].IQN != disks.IQN {
		t.Errorf("without the list: %+v, %v", one, err)
	}
	text := strings.Replace(several, `    listen: [192.0.2.9:3260, "192.0.2.9:860"]`, "    portals: [{address: 198.51.100.1:3260, group: 1}]", 1)
	if c, err := (Source{File: write(t, text)}).Load(); err != nil || fmt.Sprint(c.Targets[1].Portals) != "[{198.51.100.1:3260 1}]" || len(c.Targets[1].Listen) != 2 {
		t.Errorf("own portals, told of the common addresses: %+v, %v", c, err)
	}
}

func TestTargetErrors(t *testing.T) {
	const first, iqn = "{number: 0, iqn: \"iqn.2026-01.org.example:disks\"}", "iqn: iqn.2026-01.org.example:web"
	for _, c := range []struct{ old, new, want string }{
		{"targets:", "targets: []\nxtargets:", `unknown key "xtargets"`},
		{first, "5", "targets, entry 1: has no keys; allowed are alias, hosts, iqn, listen, luns, number, portals"},
		{"alias: for", "name: for", `unknown key "name"; allowed in targets, entry 2, are alias`},
		{"alias: for the web", "alias: {a: b}", "targets, entry 2: alias: one value is wanted here"},
		{"number: 7", "number: 128", `targets, entry 2: number: "128" is not a number from 0 to 127`},
		{"    alias", "    alia\n    alias", "read the configuration"},
		{"number: 7\n    ", "", `targets, entry 2: number: "" is not a number`},
		{"number: 7", "number: 0", "target iqn.2026-01.org.example:web: the number 0 is that of iqn.2026-01.org.example:disks, too"},
		{iqn, "iqn: iqn.2026-01.org.example:disks", "the name iqn.2026-01.org.example:disks is that of"},
		{iqn, "iqn: web", `targets, entry 2: iqn: "web" is not an iSCSI name`},
		{"luns: [3=0]", "luns: [3=1]", "target iqn.2026-01.org.example:web: luns: there is no LUN with the number 1"},
		{"luns: [3=0]", "luns: three", `targets, entry 2: luns: "three" is none of`},
		{"luns: [1=0]", "luns: [1=4]", "target iqn.2026-01.org.example:web: hosts: luns of iqn.x:web: there is no LUN with the number 4"},
		{"[192.0.2.9:3260, \"192.0.2.9:860\"]", "192.0.2.9", `targets, entry 2: listen: "192.0.2.9" is not an address`},
		{"[192.0.2.9:3260, \"192.0.2.9:860\"]", `","`, "target iqn.2026-01.org.example:web: listen: is empty"},
		{"    luns: [3=0]", "    portals: [{address: x}]", `targets, entry 2: portals, entry 1: address: "x" is not`},
		{"    luns: [3=0]", "    portals: [{address: '192.0.2.9:860', group: 300}]", "portals: a group over 255 allows one target only"},
		{"      - {initiator: \"iqn.x:web\", ", "      - {initiator: \"iqn.x:web\", pasword: x, ", "unknown key \"pasword\"; allowed in hosts, entry 1, are"},
		{"user: web, secret: another long secret, ", "user: web, ", `targets, entry 2: hosts, entry 1: secret: is missing`},
		{"another long secret", "the target proves it", "hosts and discovery: user \"web\" has the secret by which"},
		{first, first[:len(first)-1] + ", hosts: []}", "target iqn.2026-01.org.example:disks: hosts: is missing, nobody could log in"},
		{first, first[:len(first)-1] + ", hosts: }", "target iqn.2026-01.org.example:disks: hosts: is missing, nobody could log in"},
		{"  portal-group: 1\n", "  portal-group: 1\n  iqn: iqn.2026-01.org.example:more\n", "targets: iscsi.iqn and iscsi.alias have no place beside this list"},
		{"  portal-group: 1\n", "  portal-group: 1\n  alias: more\n", "targets: iscsi.iqn and iscsi.alias have no place beside this list"},
	} {
		text := strings.Replace(several, c.old, c.new, 1)
		if text == several {
			t.Fatalf("%q is not in the file", c.old)
		}
		_, err := Source{File: write(t, text)}.Load()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q instead of %q:\n got %v\nwant …%s…", c.new, c.old, err, c.want)
		}
	}
	if _, err := (Source{File: write(t, good+"targets: []\n")}).Load(); err == nil || !strings.Contains(err.Error(), "targets: is empty") {
		t.Errorf("no targets: %v", err)
	}
}

// TestIdleHosts warns of a list of hosts that no target uses.
func TestIdleHosts(t *testing.T) {
	text := strings.Replace(several, `disks"}`, `disks", hosts: [{initiator: "*"}]}`, 1)
	c, err := Source{File: write(t, text)}.Load()
	if err != nil || len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "hosts: nobody is let in by this list") {
		t.Errorf("%v, %v", c, err)
	}
}
