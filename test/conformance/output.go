package conformance

import (
	"regexp"
	"slices"
	"strings"
)

// Outcome is how a case went.
type Outcome int

const (
	Passed  Outcome = iota
	Skipped         // by the case itself, in whole or in part
	Failed          // an assertion does not hold
	Broken          // no verdict: a crash, a hang, a login that failed
)

func (o Outcome) String() string {
	return [...]string{"passed", "skipped", "failed", "without a verdict"}[o]
}

// A case's part of the output: what it says stands between its name and the verdict.
//
//	Test: Simple ...
//	  Send READ10 …
//	  [SKIPPED] READ10 is not implemented.
//	passed
var (
	verdict  = regexp.MustCompile(`(?s)\n  Test: \S+ \.\.\.(?:|(.*?)\n)(passed|FAILED)`)
	excuse   = regexp.MustCompile(`\[SKIPPED\] *([^\n]*)`)
	failure  = regexp.MustCompile(`(?m)^ +\d+\. (\S+:\d+ +- .*?)(?: {4}|$)`)
	complete = regexp.MustCompile(`(?m)^ +tests +1 +1 +([01]) +([01]) +0$`)
)

// judge reads what iscsi-test-cu has printed for one case: how it went, and in a few
// words why, if it has not passed.
func judge(output string) (Outcome, string) {
	m, sum := verdict.FindStringSubmatch(output), complete.FindStringSubmatch(output)
	if m == nil || sum == nil {
		return Broken, ""
	}
	if m[2] == "FAILED" || sum[1] != "1" || sum[2] != "0" {
		return Failed, join(failure.FindAllStringSubmatch(output, -1))
	}
	if excuses := excuse.FindAllStringSubmatch(m[1], -1); excuses != nil {
		return Skipped, join(excuses)
	}
	if strings.TrimSpace(m[1]) == "" { // some skip themselves so
		return Skipped, "without a word"
	}
	return Passed, ""
}

// join puts the first groups of matches into one line, each of them once.
func join(matches [][]string) string {
	var all []string
	for _, m := range matches {
		if text := strings.TrimSpace(m[1]); !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	return strings.Join(all, "; ")
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return strings.TrimSpace(text[strings.LastIndexByte(text, '\n')+1:])
}
