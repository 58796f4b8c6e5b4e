package conformance

import (
	_ "embed"
	"fmt"
	"strings"
)

//go:embed cases.txt
var cases string

// Expectation is what cases.txt says of a case that does not pass.
type Expectation struct {
	Todo   bool   // it fails or skips until something is done; false: it skips, for good
	Reason string // why
}

// Expectations are those of twinlun, by case: "Suite.Case".
func Expectations() (map[string]Expectation, error) { return parse(cases) }

// parse reads a list of expectations. A line is a word, a case, and a reason; lines
// that are empty or begin with # are for people.
func parse(text string) (map[string]Expectation, error) {
	all := map[string]Expectation{}
	for i, line := range strings.Split(text, "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		f := strings.Fields(line)
		if len(f) < 3 || f[0] != "skip" && f[0] != "todo" || strings.Count(f[1], ".") != 1 {
			return nil, fmt.Errorf("line %d, %q: not “skip Suite.Case why” or “todo Suite.Case why”", i+1, line)
		}
		if _, twice := all[f[1]]; twice {
			return nil, fmt.Errorf("line %d: %s is there twice", i+1, f[1])
		}
		all[f[1]] = Expectation{f[0] == "todo", strings.Join(f[2:], " ")}
	}
	return all, nil
}

// check compares how a case went with what was expected of it; "" is as it should be.
func (e Expectation) check(named bool, o Outcome) string {
	switch {
	case !named && o != Passed:
		return o.String() + ", and cases.txt does not know of it"
	case named && o == Passed:
		return "passed: take it out of cases.txt"
	case named && !e.Todo && o != Skipped:
		return o.String() + ", where cases.txt says that it skips"
	}
	return ""
}
