package e2e

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/twinlun/twinlun/cmd/twinlund/status"
	"github.com/twinlun/twinlun/test/conformance"
	"github.com/twinlun/twinlun/test/initiator"
)

// TestTools: discovery, identity and capacity, the same at both sites.
func TestTools(t *testing.T) {
	t.Parallel()
	need(t, "iscsi-ls", "iscsi-inq", "iscsi-readcapacity16")
	r := start(t, "--size", "3GiB")
	info := r.info()
	var serial, naa [2]string
	for site := range 2 {
		ls := tool(t, "iscsi-ls", "-s", "iscsi://"+info.Sites[site].Portal)
		for i, s := range info.Sites {
			if want := fmt.Sprintf("Target:%s Portal:%s,%d", info.IQN, s.Portal, i+1); !strings.Contains(ls, want) {
				t.Errorf("iscsi-ls at site %d tells nothing of %q:\n%s", site, want, ls)
			}
		}
		capacity := tool(t, "iscsi-readcapacity16", r.url(site))
		if !strings.Contains(capacity, "Total size:3221225472\n") {
			t.Errorf("iscsi-readcapacity16 at site %d:\n%s", site, capacity)
		}
		inq := tool(t, "iscsi-inq", r.url(site))
		if !strings.Contains(inq, "Type:DIRECT_ACCESS") {
			t.Errorf("iscsi-inq at site %d:\n%s", site, inq)
		}
		serial[site] = field(t, tool(t, "iscsi-inq", "-e", "1", "-c", "128", r.url(site)), `Unit Serial Number:\[(.+)\]`)
		naa[site] = field(t, tool(t, "iscsi-inq", "-e", "1", "-c", "131", r.url(site)), `NAA\nDesignator:\[((?s:.+?))\]\n`)
	}
	if serial[0] != serial[1] || naa[0] != naa[1] {
		t.Errorf("the sites show different logical units: serials %q, identifiers %q", serial, naa)
	}
}

// field finds what the pattern's group matches.
func field(t *testing.T, text, pattern string) string {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("no %s in:\n%s", pattern, text)
	}
	return m[1]
}

// TestConformance runs libiscsi's own tests at both sites in turn, so that extents
// change their owner all the time, and those about paths across the sites.
func TestConformance(t *testing.T) {
	t.Parallel()
	need(t, conformance.Tools...)
	expected, err := conformance.Expectations()
	if err != nil {
		t.Fatalf("cases.txt: %v", err)
	}
	names, err := conformance.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := startPairAs(t, conformLUNs, everybody, func(p *pair) {
		p.env = []string{"TWINLUN_ISCSI_PING_TIMEOUT=90s"} // Sanitize.Reset sleeps for a minute
	})
	results, err := conformance.Run(t.Context(), names, p.ways())
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if findings := conformance.Report(&text, results, expected); findings > 0 {
		t.Errorf("%d findings", findings)
	}
	t.Logf("\n%s", &text)
	err = p.waitFor("has nothing to copy", func(s *status.Status) bool {
		return !slices.ContainsFunc(s.LUNs, func(l status.LUN) bool { return !l.Serving || l.Dirty != 0 })
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"disk", "removable", "protected", "blocks", "erased"} {
		same(t, filepath.Join(p.dirs[0], name+".img"), filepath.Join(p.dirs[1], name+".img"))
	}
}

// conformLUNs are a LUN, one that is removable, one that cannot be written, one with
// logical blocks of 4096 bytes, and one that is overwritten slowly: Sanitize.Reset does
// things for some seconds meanwhile. They are so small that Read6.BeyondEol can address their end.
const conformLUNs = `
  - {number: 0, name: disk, uuid: 6ba7b810-9dad-11d1-80b4-00c04fd430c8, size: 256MiB, preferred: a}
  - {number: 1, name: removable, uuid: 6ba7b811-9dad-11d1-80b4-00c04fd430c8, size: 64MiB, preferred: a, removable: true}
  - {number: 2, name: protected, uuid: 6ba7b812-9dad-11d1-80b4-00c04fd430c8, size: 64MiB, preferred: b, read-only: true}
  - {number: 3, name: blocks, uuid: 6ba7b813-9dad-11d1-80b4-00c04fd430c8, size: 256MiB, block-size: 4096, preferred: b}
  - {number: 4, name: erased, uuid: 6ba7b814-9dad-11d1-80b4-00c04fd430c8, size: 48MiB, preferred: a, sanitize-rate: 4MiB}`

// ways are those to the LUNs of conformLUNs: each one at each site, and the first one
// by two paths, one to each site.
func (p *pair) ways() (all []conformance.Way) {
	url := func(site, lun int) string { return fmt.Sprintf("iscsi://%s/%s/%d", p.portals[site], pairIQN, lun) }
	for site, name := range []string{"site a", "site b"} {
		other := []string{"site b", "site a"}[site]
		all = append(all,
			conformance.Way{Name: name, URLs: []string{url(site, 0)}, For: []conformance.Kind{conformance.Disk}, Tag: "512"},
			conformance.Way{Name: name, URLs: []string{url(site, 1)}, For: []conformance.Kind{conformance.Removable}},
			conformance.Way{Name: name, URLs: []string{url(site, 2)}, For: []conformance.Kind{conformance.ReadOnly}},
			conformance.Way{Name: name, URLs: []string{url(site, 4)}, For: []conformance.Kind{conformance.Erased}},
			conformance.Way{Name: name + ", 4096", URLs: []string{url(site, 3)}, For: []conformance.Kind{conformance.Disk}, Tag: "4096", Only: conformance.BlockSuites},
			conformance.Way{Name: name + ", " + other, URLs: []string{url(site, 0), url(1-site, 0)}, For: []conformance.Kind{conformance.TwoPaths}, Blank: p.blank},
		)
	}
	return all
}

// blank makes the first megabyte of LUN 0 zeros.
func (p *pair) blank(ctx context.Context) error {
	s, err := initiator.Dial(ctx, initiator.Options{Address: p.portals[0], TargetIQN: pairIQN})
	if err != nil {
		return err
	}
	return errors.Join(s.WriteAt(ctx, make([]byte, 1<<20), 0), s.Logout(ctx))
}
