package conformance

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// lastLines of a case's output are shown: what led to the failure, and the verdict.
const lastLines = 60

// Report tells how the cases went: sums for every way, then every case that has not
// passed. It returns how many findings there are: outcomes that differ from what was
// expected, each shown with its output, and expectations about cases that were not
// run. Without expectations (nil) nothing is a finding.
func Report(w io.Writer, all []Result, expected map[string]Expectation) (findings int) {
	sums(w, all)
	fmt.Fprintln(w)
	for _, name := range order(all) {
		findings += reportCase(w, those(all, name), expected)
	}
	for name := range expected {
		if !slices.ContainsFunc(all, func(r Result) bool { return name == r.Case || name == r.Case+"@"+r.Tag }) {
			findings++
			fmt.Fprintf(w, "FINDING  %s is in cases.txt, and was not run\n", name)
		}
	}
	return findings
}

// sums prints a table with a line for every way.
func sums(w io.Writer, all []Result) {
	fmt.Fprintf(w, "%-16s %6s %6s %6s %7s %10s\n", "", "run", "passed", "failed", "skipped", "no verdict")
	var ways []string
	count := map[string]*[4]int{}
	for _, r := range all {
		if count[r.Way] == nil {
			ways, count[r.Way] = append(ways, r.Way), new([4]int)
		}
		count[r.Way][r.Outcome]++
	}
	for _, way := range ways {
		n := count[way]
		fmt.Fprintf(w, "%-16s %6d %6d %6d %7d %10d\n", way, n[Passed]+n[Failed]+n[Skipped]+n[Broken], n[Passed], n[Failed], n[Skipped], n[Broken])
	}
}

// order lists the cases, each of them once.
func order(all []Result) (names []string) {
	for _, r := range all {
		if len(names) == 0 || names[len(names)-1] != r.Case {
			names = append(names, r.Case)
		}
	}
	return names
}

// those takes the results of one case out of all.
func those(all []Result, name string) (some []Result) {
	for _, r := range all {
		if r.Case == name {
			some = append(some, r)
		}
	}
	return some
}

// reportCase prints a case that has not passed everywhere, or should not have.
func reportCase(w io.Writer, results []Result, expected map[string]Expectation) (findings int) {
	for i, r := range results {
		e, named := of(expected, r)
		finding := e.check(named, r.Outcome)
		if expected != nil && finding != "" {
			findings++
			fmt.Fprintf(w, "FINDING  %s, %s: %s\n", r.Case, r.Way, finding)
		}
		show := r.Outcome == Failed || r.Outcome == Broken
		if show && finding != "" {
			fmt.Fprintf(w, "%s, %s: %s after %v: %s\n%s\n", r.Case, r.Way, r.Outcome, r.Took.Round(1e6), r.Why, indent(r.Output))
		} else if r.Outcome != Passed && (i == 0 || r.Outcome != results[i-1].Outcome || r.Why != results[i-1].Why) {
			fmt.Fprintf(w, "%-36s %s%s; it says: %s\n", r.Case, r.Outcome, reason(e, named), r.Why)
		}
	}
	return findings
}

// reason is what cases.txt says of a case.
func reason(e Expectation, named bool) string {
	switch {
	case !named:
		return ""
	case e.Word == Todo:
		return ", not yet done: " + e.Reason
	}
	return ", " + e.Reason
}

// indent shows the end of an output.
func indent(output string) string {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	lines = lines[max(0, len(lines)-lastLines):]
	return "    | " + strings.Join(lines, "\n    | ")
}
