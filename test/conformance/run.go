package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// Tools are the programs that Run needs.
var Tools = []string{"iscsi-test-cu", "stdbuf"}

// caseTime bounds one case. The longest ones wait some seconds for an answer that
// must not come; a machine may be slow, a hang is a failure.
const caseTime = 2 * time.Minute

// fewest is how many cases version 1.19 knows: fewer are a list that was misread.
const fewest = 230

// List asks iscsi-test-cu for its cases, in its order, as "Suite.Case".
func List(ctx context.Context) (all []string, err error) {
	out, err := exec.CommandContext(ctx, "iscsi-test-cu", "--list").Output()
	var exit *exec.ExitError // says nothing
	if err != nil && !errors.As(err, &exit) {
		return nil, err
	}
	for _, line := range strings.Fields(string(out)) {
		if name, ok := strings.CutPrefix(line, "ALL."); ok && strings.Contains(name, ".") {
			all = append(all, name)
		}
	}
	if len(all) < fewest {
		return nil, fmt.Errorf("iscsi-test-cu lists only %d cases, there should be %d:\n%s", len(all), fewest, out)
	}
	return all, nil
}

// Way is how the target is reached.
type Way struct {
	Name string   // for people
	URLs []string // one, or two for TwoPaths
	For  []Kind   // of cases
	Tag  string   // what lines of cases.txt may call it, after an @
	Only []string // suites; none: all
	// Blank, if it is there, makes the beginning of the LUN zeros, before each case about
	// paths: MultipathIO.CompareAndWrite zeroes 256 blocks and compares 257.
	Blank func(context.Context) error
}

// BlockSuites are those for which the size of the logical blocks matters, one of those
// that differ in nothing but their CDBs, and none that only take long.
var BlockSuites = []string{"CompareAndWrite", "ExtendedCopy", "GetLBAStatus", "Inquiry", "Mandatory", "Prefetch16",
	"Read6", "Read10", "Read16", "ReadCapacity10", "ReadCapacity16", "Unmap", "Verify16", "Write10", "Write16",
	"WriteAtomic16", "WriteSame10", "WriteSame16", "iSCSIResiduals"}

// Kind is what a case needs.
type Kind int

const (
	Disk      Kind = iota // a LUN
	Removable             // one whose medium can be ejected; others are skipped
	ReadOnly              // one that cannot be written; others are skipped
	TwoPaths              // two paths to a LUN; without, it is skipped
	Erased                // a LUN to SANITIZE, which takes between 8 s and 30 s for it
)

// kinds are those of the suites that need more than a LUN.
var kinds = map[string]Kind{
	"MultipathIO": TwoPaths, "ReadOnly": ReadOnly,
	"Sanitize": Erased,
	"NoMedia":  Removable, "PreventAllow": Removable, "StartStopUnit": Removable,
}

// takes tells whether a case is for this way.
func (w Way) takes(name string) bool {
	suite, _, _ := strings.Cut(name, ".")
	return slices.Contains(w.For, kinds[suite]) && (w.Only == nil || slices.Contains(w.Only, suite))
}

// Result is one case on one way.
type Result struct {
	Case    string
	Way     string
	Tag     string // of the way
	Outcome Outcome
	Why     string // it has not passed
	Output  string
	Took    time.Duration
}

// Run runs every case on every way it is for, one after another, so that one process
// at a time uses the target. Only ctx can end it early.
func Run(ctx context.Context, names []string, ways []Way) (all []Result, err error) {
	for _, name := range names {
		for _, w := range ways {
			if !w.takes(name) {
				continue
			}
			if w.Blank != nil {
				if err := w.Blank(ctx); err != nil {
					return all, fmt.Errorf("before %s, %s: %w", name, w.Name, err)
				}
			}
			all = append(all, run(ctx, name, w))
			if ctx.Err() != nil {
				return all, context.Cause(ctx)
			}
		}
	}
	return all, nil
}

// run runs one case. Lines are not buffered, so that a crash does not eat its reason.
func run(ctx context.Context, name string, w Way) Result {
	ctx, cancel := context.WithTimeout(ctx, caseTime)
	defer cancel()
	var out bytes.Buffer
	args := []string{"-oL", "iscsi-test-cu", "--dataloss", "--allow-sanitize", "--Verbose-scsi", "--test=ALL." + name}
	cmd := exec.CommandContext(ctx, "stdbuf", append(args, w.URLs...)...)
	cmd.Stdout, cmd.Stderr = &out, &out
	began := time.Now()
	err := cmd.Run()
	r := Result{Case: name, Way: w.Name, Tag: w.Tag, Took: time.Since(began), Output: out.String()}
	r.Outcome, r.Why = judge(r.Output)
	// Its exit status only says again whether an assertion has failed.
	if crashed := cmd.ProcessState == nil || !cmd.ProcessState.Exited(); crashed || r.Outcome == Broken {
		r.Outcome, r.Why = Broken, fmt.Sprintf("%v; its last words: %s", err, lastLine(r.Output))
	}
	return r
}
