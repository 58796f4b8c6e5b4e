package e2e

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
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

// families of iscsi-test-cu. ProutRegister belongs to persistent reservations, which
// are still to come.
var families = regexp.MustCompile(`^ALL\.((?:Read|Write)[A-Za-z0-9]*|Inquiry|ModeSense6|Mandatory)$`)

// TestConformance runs libiscsi's own tests at both sites, each family in a process
// of its own: they leave their sessions behind.
func TestConformance(t *testing.T) {
	t.Parallel()
	need(t, "iscsi-test-cu")
	r := start(t, "--size", "256MiB")
	list, _ := try("iscsi-test-cu", "--list") // its exit status says nothing
	found := 0
	for _, name := range strings.Fields(list) {
		m := families.FindStringSubmatch(name)
		if m == nil {
			continue
		}
		found++
		for site := range 2 {
			t.Run(fmt.Sprintf("%s/%s", m[1], []string{"a", "b"}[site]), func(t *testing.T) {
				conform(t, name, r.url(site))
			})
		}
	}
	if found < 15 {
		t.Errorf("iscsi-test-cu lists only %d of the families:\n%s", found, list)
	}
	r.waitClean()
	sameBytes(t, r)
}

var summary = regexp.MustCompile(`(?m)^ +tests +(\d+) +(\d+) +(\d+) +(\d+)`)

// conform runs a family, and reads its summary.
func conform(t *testing.T, family, url string) {
	out, err := try("iscsi-test-cu", "--dataloss", "--normal", "--test="+family, url)
	m := summary.FindStringSubmatch(out)
	if err != nil || m == nil {
		t.Fatalf("%v\n%s", err, out)
	}
	total, _ := strconv.Atoi(m[1])
	ran, _ := strconv.Atoi(m[2])
	passed, _ := strconv.Atoi(m[3])
	if total == 0 || passed != total || ran != total {
		t.Errorf("%d tests, %d ran, %d passed:\n%s", total, ran, passed, out)
	}
	skipped := strings.Count(out, "[SKIPPED]") - strings.Count(out, "PERSISTENT RESERVE IN")
	t.Logf("%d passed; %d things skipped as not implemented or not applicable", passed, skipped)
}
