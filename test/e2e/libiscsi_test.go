package e2e

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

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
	r := start(t, "--size", "256MiB")
	a, b := r.url(0), r.url(1)
	results, err := conformance.Run(t.Context(), names, []conformance.Way{
		{Name: "site a", URLs: []string{a}}, {Name: "site b", URLs: []string{b}},
		{Name: "sites a and b", URLs: []string{a, b}, Blank: r.blank}, {Name: "sites b and a", URLs: []string{b, a}, Blank: r.blank},
	})
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if findings := conformance.Report(&text, results, expected); findings > 0 {
		t.Errorf("%d findings", findings)
	}
	t.Logf("\n%s", &text)
	r.waitClean()
	sameBytes(t, r)
}

// blank makes the first megabyte of the LUN zeros.
func (r *running) blank(ctx context.Context) error {
	info := r.info()
	s, err := initiator.Dial(ctx, initiator.Options{Address: info.Sites[0].Portal, TargetIQN: info.IQN, LUN: uint16(info.LUN)})
	if err != nil {
		return err
	}
	return errors.Join(s.WriteAt(ctx, make([]byte, 1<<20), 0), s.Logout(ctx))
}
