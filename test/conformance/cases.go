package conformance

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
)

//go:embed cases.txt
var cases string

// Expectation is what cases.txt says of a case that does not pass.
type Expectation struct {
	Word   Word
	Reason string // why
}

// Word is the first one of a line of cases.txt.
type Word string

const (
	Skip Word = "skip" // it skips itself, for good
	Fail Word = "fail" // it fails whatever the target does
	Todo Word = "todo" // it fails or skips, until something is done
)

// Expectations are those of twinlun, by case: "Suite.Case", or "Suite.Case@Tag" if it is
// about ways with that tag alone.
func Expectations() (map[string]Expectation, error) { return parse(cases) }

// of finds what is expected of a result.
func of(expected map[string]Expectation, r Result) (e Expectation, named bool) {
	if e, named = expected[r.Case+"@"+r.Tag]; !named {
		e, named = expected[r.Case]
	}
	return e, named
}

// parse reads a list of expectations. A line is a word, a case, and a reason; lines
// that are empty or begin with # are for people.
func parse(text string) (map[string]Expectation, error) {
	all := map[string]Expectation{}
	for i, line := range strings.Split(text, "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		f := strings.Fields(line)
		if len(f) < 3 || !slices.Contains([]Word{Skip, Fail, Todo}, Word(f[0])) || strings.Count(f[1], ".") != 1 {
			return nil, fmt.Errorf("line %d, %q: not “skip Suite.Case why”, or with fail or todo", i+1, line)
		}
		if _, twice := all[f[1]]; twice {
			return nil, fmt.Errorf("line %d: %s is there twice", i+1, f[1])
		}
		all[f[1]] = Expectation{Word(f[0]), strings.Join(f[2:], " ")}
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
	case e.Word == Skip && o != Skipped, e.Word == Fail && o != Failed:
		return o.String() + ", where cases.txt says " + string(e.Word)
	}
	return ""
}
