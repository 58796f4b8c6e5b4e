package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twinlun/twinlun/test/conformance"
)

// reservationSuites are libiscsi's suites about persistent reservations. With two URLs
// their second initiator comes by the second one.
var reservationSuites = []string{"PrinReadKeys", "PrinReportCapabilities", "PrinServiceactionRange", "ProutRegister", "ProutReserve", "ProutClear", "ProutPreempt"}

// TestReservations: what one initiator reserves at one site holds for another one at the
// other site; also when either of the sites is killed and started before each case.
func TestReservations(t *testing.T) {
	t.Parallel()
	need(t, conformance.Tools...)
	all, err := conformance.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, name := range all {
		if suite, _, _ := strings.Cut(name, "."); slices.Contains(reservationSuites, suite) || suite == "MultipathIO" {
			names = append(names, name)
		}
	}
	if len(names) < 20 {
		t.Fatalf("only %q", names)
	}
	r := start(t, "--size", "256MiB", "--no-restart")
	n := 0
	restart := func(context.Context) error {
		n++
		r.restart(n % 2)
		return nil
	}
	kinds, suites := []conformance.Kind{conformance.Disk, conformance.TwoPaths}, append(slices.Clone(reservationSuites), "MultipathIO")
	results, err := conformance.Run(t.Context(), names, []conformance.Way{
		{Name: "a, then b", URLs: []string{r.url(0), r.url(1)}, For: kinds, Only: suites, Blank: r.blank},
		{Name: "b, then a", URLs: []string{r.url(1), r.url(0)}, For: kinds, Only: suites, Blank: r.blank},
		{Name: "one was restarted", URLs: []string{r.url(0), r.url(1)}, For: kinds, Only: suites, Blank: func(ctx context.Context) error {
			if err := restart(ctx); err != nil {
				return err
			}
			return r.blank(ctx)
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	passed := map[string]int{}
	for _, c := range results {
		if c.Outcome != conformance.Passed {
			t.Errorf("%s (%s): %v: %s\n%s", c.Case, c.Way, c.Outcome, c.Why, c.Output)
			continue
		}
		passed[c.Way]++
	}
	t.Logf("passed of %d: %v", len(names), passed)
}

// blank makes the beginning of the LUN zeros, by both sites: then hosts are answered at
// both, which is not so before a site that was started knows the reservations.
func (r *running) blank(ctx context.Context) error {
	for site := range 2 {
		c := r.resilient(site, "blank")
		if err := errors.Join(c.WriteAt(ctx, make([]byte, 1<<20), 0), c.Close()); err != nil {
			return err
		}
	}
	return nil
}

// restart kills a site, and starts it again, and waits until both serve.
func (r *running) restart(site int) {
	r.t.Helper()
	r.kill(site)
	r.revive(site)
	r.eventually(fmt.Sprintf("site %d is back", site), func() error {
		for site := range 2 {
			s, err := r.status(site)
			if err != nil {
				return err
			}
			if l := s.LUNs[0]; !l.Serving || l.Role != "together" {
				return fmt.Errorf("site %d: role %s, serving %t", site, l.Role, l.Serving)
			}
		}
		return nil
	})
}
