package history

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// ErrUndecided is a check that took too long: nothing wrong was found.
var ErrUndecided = errors.New("linearizability not decided in time")

// Violation is a block whose operations no order explains.
type Violation struct {
	Block int64
	// Culprit is the read or write whose return makes the history impossible;
	// without it and all that came later there is an order.
	Culprit Op
	Around  []Op   // what happened on the block at about that time
	Picture string // file with porcupine's drawing, or ""
}

func (v *Violation) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "block %d is not linearizable: nothing explains %v; about that time:", v.Block, v.Culprit)
	for _, op := range v.Around {
		fmt.Fprintf(&b, "\n\t%v", op)
	}
	if v.Picture != "" {
		fmt.Fprintf(&b, "\nsee %s", v.Picture)
	}
	return b.String()
}

func (op Op) String() string {
	to := op.To.String()
	if op.Return == Open {
		to = "…"
	}
	what := fmt.Sprintf("reads %v", op.Value)
	switch {
	case op.Swap && op.Write:
		what = fmt.Sprintf("swaps %v for %v", op.Expect, op.Value)
	case op.Swap:
		what = fmt.Sprintf("does not find %v", op.Expect)
	case op.Write:
		what = fmt.Sprintf("writes %v", op.Value)
	}
	s := fmt.Sprintf("client %d %s, %v to %s", op.Client, what, op.From, to)
	if op.Maybe {
		s += fmt.Sprintf(" (perhaps: %v)", op.Err)
	}
	return s
}

// Check looks at everything recorded, when Run has returned: torn and foreign blocks first, then each
// block's history. Limit bounds the time for one block. A picture of a violation
// is put into dir; "": none. All that is wrong is in the error: *BadBlock,
// *Violation, ErrUndecided.
func Check(rec *Recorder, limit time.Duration, dir string) error {
	return errors.Join(errors.Join(rec.Bad()...), CheckOps(rec.Ops(), limit, dir))
}

// CheckOps checks a list of operations.
func CheckOps(ops []Op, limit time.Duration, dir string) error {
	byBlock := map[int64][]Op{}
	for _, op := range ops {
		byBlock[op.Block] = append(byBlock[op.Block], op)
	}
	var errs []error
	for _, block := range slices.Sorted(maps.Keys(byBlock)) {
		errs = append(errs, checkBlock(block, byBlock[block], limit, dir))
	}
	return errors.Join(errs...)
}

func checkBlock(block int64, ops []Op, limit time.Duration, dir string) error {
	switch result := decide(ops, limit); result {
	case porcupine.Ok:
		return nil
	case porcupine.Unknown:
		return fmt.Errorf("block %d, %d operations: %w", block, len(ops), ErrUndecided)
	}
	v := &Violation{Block: block}
	ops, v.Culprit = blame(ops, limit)
	v.Around = around(ops, v.Culprit)
	if dir == "" {
		return v
	}
	path := filepath.Join(dir, fmt.Sprintf("block-%d.html", block))
	if err := draw(ops, limit, path); err != nil {
		return errors.Join(v, err)
	}
	v.Picture = path
	return v
}

// decide asks porcupine.
func decide(ops []Op, limit time.Duration) porcupine.CheckResult {
	return porcupine.CheckOperationsTimeout(register, operations(simplify(ops)), limit)
}

// draw writes porcupine's picture into a file.
func draw(ops []Op, limit time.Duration, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("draw the violation: %w", err)
	}
	_, info := porcupine.CheckOperationsVerbose(register, operations(simplify(ops)), limit)
	if err := porcupine.VisualizePath(register, info, path); err != nil {
		return fmt.Errorf("draw the violation: %w", err)
	}
	return nil
}

// blame finds the shortest beginning of a history that is impossible already, and
// the operation whose return makes it so. A beginning of an impossible history
// may be possible, but never the other way round, so halving finds it.
func blame(ops []Op, limit time.Duration) ([]Op, Op) {
	returns := make([]Op, 0, len(ops))
	for _, op := range ops {
		if op.Return != Open {
			returns = append(returns, op)
		}
	}
	slices.SortStableFunc(returns, func(a, b Op) int { return int(a.Return - b.Return) })
	n, _ := slices.BinarySearchFunc(returns, 0, func(op Op, _ int) int {
		if decide(beginning(ops, op.Return), limit) == porcupine.Illegal {
			return 1
		}
		return -1
	})
	n = min(n, len(returns)-1)
	return beginning(ops, returns[n].Return), returns[n]
}

// beginning is what an observer knew just after tick end: a write that had not
// returned may have happened, a read that had not says nothing.
func beginning(ops []Op, end int64) []Op {
	var known []Op
	for _, op := range ops {
		if op.Call > end || op.Return > end && !op.Write {
			continue
		}
		if op.Return > end {
			op.Return, op.Maybe, op.Err = Open, true, errors.New("under way")
		}
		known = append(known, op)
	}
	return known
}

// around picks the operations nearest to the culprit.
func around(ops []Op, culprit Op) []Op {
	const most = 12
	near := slices.Clone(ops)
	distance := func(op Op) int64 { return max(culprit.Call-min(op.Return, culprit.Return), 0) }
	slices.SortStableFunc(near, func(a, b Op) int { return int(distance(a) - distance(b)) })
	near = near[:min(len(near), most)]
	for _, op := range ops { // who wrote what the culprit saw belongs to it
		same := func(o Op) bool { return o.Write && o.Call == op.Call }
		if op.Write && (op.Value == culprit.Value || culprit.Swap && op.Value == culprit.Expect) && !slices.ContainsFunc(near, same) {
			near = append(near, op)
		}
	}
	slices.SortStableFunc(near, func(a, b Op) int { return int(a.Call - b.Call) })
	return near
}
