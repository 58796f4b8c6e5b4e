package config

import (
	"maps"
	"strings"
	"testing"
)

// TestViews: how hosts see the target.
func TestViews(t *testing.T) {
	text := strings.Replace(good, "  - initiator: iqn.1993-08.org.debian:*\n",
		"  - {initiator: iqn.1993-08.org.debian:*, prefer: b}\n  - {initiator: iqn.x:y, luns: [7=0]}\n  - {initiator: iqn.x:z, luns: none}\n", 1)
	c, err := Source{File: write(t, text)}.Load()
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Targets[0].Views) != 3 || c.Targets[0].Views[0].Initiator != "iqn.1993-08.org.debian:*" || c.Targets[0].Views[0].Prefer != "b" || c.Targets[0].Views[0].LUNs != nil ||
		!maps.Equal(c.Targets[0].Views[1].LUNs, map[uint16]uint16{7: 0}) || c.Targets[0].Views[2].LUNs == nil || len(c.Targets[0].Views[2].LUNs) != 0 {
		t.Errorf("views %+v", c.Targets[0].Views)
	}
	if c, err := (Source{File: write(t, good)}).Load(); err != nil || c.Targets[0].Views != nil {
		t.Errorf("views of a file that has none: %+v, %v", c.Targets[0].Views, err)
	}
}

func TestViewErrors(t *testing.T) {
	const host = "  - initiator: iqn.1993-08.org.debian:*\n"
	for _, c := range []struct{ entry, want string }{
		{"prefer: c", `hosts: prefer of iqn.x:y: "c" is neither "a" nor "b"`},
		{"luns: 1", "hosts: luns of iqn.x:y: there is no LUN with the number 1"},
		{"luns: 0 1=0", `hosts, entry 1: luns: "1=0": the LUN, or its number, stands twice`},
		{"luns: 0 0", `luns: "0": the LUN, or its number, stands twice`},
		{"luns: zero", `luns: "zero" is none of LUN, LUN=NUMBER`},
		{"luns: 0=", `luns: "0=" is none of LUN, LUN=NUMBER`},
		{"luns: 16384=0", `luns: "16384=0" is none of`},
		{`luns: ","`, "luns: is empty; leave it out to show all, or say none"},
		{"luns: {0: 0}", "luns: one value is wanted here"},
		{"prefer: a}\n  - {initiator: iqn.x:y, luns: 0", "hosts, entry 2: prefer and luns of iqn.x:y stand in another entry"},
	} {
		text := strings.Replace(good, host, "  - {initiator: iqn.x:y, "+c.entry+"}\n", 1)
		if _, err := (Source{File: write(t, text)}).Load(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s:\n got %v\nwant …%s…", c.entry, err, c.want)
		}
	}
}

// TestKinds: LUNs that hosts cannot write, or can eject.
func TestKinds(t *testing.T) {
	text := strings.Replace(good, "    preferred: a\n", "    preferred: a\n    read-only: true\n    removable: true\n", 1)
	c, err := Source{File: write(t, text)}.Load()
	if err != nil || !c.LUNs[0].ReadOnly || !c.LUNs[0].Removable {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err := (Source{File: write(t, good)}).Load(); err != nil || c.LUNs[0].ReadOnly || c.LUNs[0].Removable {
		t.Errorf("without: %+v, %v", c, err)
	}
	for _, key := range []string{"read-only", "removable"} {
		text := strings.Replace(good, "    preferred: a\n", "    preferred: a\n    "+key+": maybe\n", 1)
		if _, err := (Source{File: write(t, text)}).Load(); err == nil || !strings.Contains(err.Error(), key+": ") {
			t.Errorf("%s: maybe: %v", key, err)
		}
	}
}
