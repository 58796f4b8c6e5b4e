package conformance

import (
	"strings"
	"testing"
)

// head and tail stand around every case's own output.
const (
	head = "    [SKIPPED] PERSISTENT RESERVE IN is not implemented.\n\nSuite: Read10\n  Test: Simple ..."
	tail = "    Send PRIN/READ_KEYS\n    [SKIPPED] PERSISTENT RESERVE IN is not implemented.\n\n\n" +
		"Run Summary:    Type  Total    Ran Passed Failed Inactive\n" +
		"              suites      1      1    n/a      0        0\n"
	good = tail + "               tests      1      1      1      0        0\n"
	bad  = tail + "               tests      1      1      0      1        0\n"
)

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name, output string
		outcome      Outcome
		why          string
	}{
		{"passed", head + "\n    Send READ10\n    [OK] READ10 returned SUCCESS\npassed" + good, Passed, ""},
		{"skipped", head + "    [SKIPPED] Not removable.\npassed" + good, Skipped, "Not removable."},
		{"skipped in part", head + "\n    Send READ10\n    [SKIPPED] X.\n    [SKIPPED] X.\n    [SKIPPED] Y.\npassed" + good, Skipped, "X.; Y."},
		{"did nothing", head + "passed" + good, Skipped, "without a word"},
		{"failed", head + "\n    Send READ10\nFAILED\n    1. a.c:29  - CU_ASSERT_EQUAL(ret,0)\n    2. a.c:30  - x" + bad, Failed, "a.c:29  - CU_ASSERT_EQUAL(ret,0); a.c:30  - x"},
		{"failed after a skip", head + "    [SKIPPED] X.\nFAILED\n    1. a.c:29  - x" + bad, Failed, "a.c:29  - x"},
		{"passed, but the sum says no", head + "\n    Send READ10\npassed" + bad, Failed, ""},
		{"no sum", head + "\n    Send READ10\npassed" + tail, Broken, ""},
		{"crashed", head + "\n    Send READ10\n", Broken, ""},
		{"no login", "Failed to connect to SCSI device 0\n", Broken, ""},
		{"nothing", "", Broken, ""},
	} {
		if o, why := judge(c.output); o != c.outcome || why != c.why {
			t.Errorf("%s: %v, %q; want %v, %q", c.name, o, why, c.outcome, c.why)
		}
	}
}

func TestParse(t *testing.T) {
	all, err := parse("# c\n\n skip A.B it is so \ntodo C.D-1 x\nskip A.B@512 y\n")
	if err != nil || len(all) != 3 || all["A.B@512"] != (Expectation{Skip, "y"}) || all["A.B"] != (Expectation{Skip, "it is so"}) || all["C.D-1"] != (Expectation{Todo, "x"}) {
		t.Errorf("%v, %v", all, err)
	}
	for _, text := range []string{"skip A.B", "pass A.B x", "skip A x", "skip A.B.C x", "skip A.B x\ntodo A.B y"} {
		if _, err := parse(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
	if _, err := Expectations(); err != nil {
		t.Errorf("cases.txt: %v", err)
	}
}

// TestFindings: every combination of what is expected and what comes out.
func TestFindings(t *testing.T) {
	expected := map[string]Expectation{"S.Skip": {Skip, "why"}, "S.Fail": {Fail, "why"}, "S.Todo": {Todo, "what"}}
	for _, c := range []struct {
		name    string
		finding [4]bool // by outcome
	}{
		{"S.Pass", [4]bool{Passed: false, Skipped: true, Failed: true, Broken: true}},
		{"S.Skip", [4]bool{Passed: true, Skipped: false, Failed: true, Broken: true}},
		{"S.Fail", [4]bool{Passed: true, Skipped: true, Failed: false, Broken: true}},
		{"S.Todo", [4]bool{Passed: true, Skipped: false, Failed: false, Broken: false}},
	} {
		for o, finding := range c.finding {
			only := map[string]Expectation{}
			if e, ok := expected[c.name]; ok {
				only[c.name] = e
			}
			results := []Result{{Case: c.name, Way: "w", Outcome: Outcome(o), Output: "the output"}}
			var text strings.Builder
			if n := Report(&text, results, only); (n == 1) != finding || strings.Contains(text.String(), "FINDING") != finding {
				t.Errorf("%s, %v: %d findings, want one: %v\n%s", c.name, Outcome(o), n, finding, &text)
			}
			if n := Report(&text, results, nil); n != 0 {
				t.Errorf("%s, %v: %d findings without expectations", c.name, Outcome(o), n)
			}
		}
	}
	var text strings.Builder
	if n := Report(&text, []Result{{Case: "S.Pass", Way: "w"}}, expected); n != 3 {
		t.Errorf("%d findings about three cases that were not run:\n%s", n, &text)
	}
	tagged := map[string]Expectation{"S.A@x": {Fail, "why"}, "S.B": {Fail, "why"}, "S.B@x": {Skip, "why"}, "S.C@x": {Skip, "why"}}
	results := []Result{{Case: "S.A", Tag: "x", Outcome: Failed}, {Case: "S.A", Tag: "y"}, {Case: "S.B", Tag: "x", Outcome: Skipped},
		{Case: "S.B", Tag: "y", Outcome: Failed}, {Case: "S.C", Tag: "y"}}
	text.Reset()
	if n := Report(&text, results, tagged); n != 1 || !strings.Contains(text.String(), "S.C@x is in cases.txt, and was not run") {
		t.Errorf("%d findings, should be one about S.C@x:\n%s", n, &text)
	}
	text.Reset()
	for i := range results {
		results[i].Tag = map[string]string{"x": "y", "y": "x"}[results[i].Tag]
	}
	if n := Report(&text, results, tagged); n != 5 {
		t.Errorf("%d findings with tags exchanged:\n%s", n, &text)
	}
}

// TestReport: a failure is shown with its output.
func TestReport(t *testing.T) {
	var text strings.Builder
	Report(&text, []Result{
		{Case: "S.One", Way: "site a"}, {Case: "S.One", Way: "site b", Outcome: Failed, Why: "x.c:1", Output: "sent\nreceived"},
		{Case: "S.Two", Way: "site a", Outcome: Skipped, Why: "no"},
	}, nil)
	for _, want := range []string{"site a                2      1      0       1          0\n", "site b                1      0      1       0          0\n", "S.One, site b: failed", "    | sent\n    | received\n", "it says: no"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in:\n%s", want, &text)
		}
	}
}
