package member

import (
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/twinlun/twinlun/cluster/catalog"
)

// fsm is the catalog as the raft node sees it: a cluster.FSM.
type fsm struct {
	applied func(*catalog.State, catalog.Result)
	nodes   func() // after the list of nodes has changed; does not block

	state atomic.Pointer[catalog.State]

	mu    sync.Mutex // held while one state takes the place of another
	begun bool       // under mu; before, applied hears nothing of what is only taken up

	changed chan struct{} // under mu; closed by the next take; nil: nobody waits
}

func newFSM(applied func(*catalog.State, catalog.Result), nodes func()) *fsm {
	f := &fsm{applied: applied, nodes: nodes}
	f.state.Store(catalog.New())
	return f
}

// begin tells what is known at the start.
func (f *fsm) begin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.begun = true
	f.applied(f.state.Load(), catalog.Result{})
}

func (f *fsm) take(next *catalog.State, r catalog.Result) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.begun {
		f.applied(next, r)
	}
	f.state.Store(next)
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

// next is closed when another state takes the place of the present one.
func (f *fsm) next() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.changed == nil {
		f.changed = make(chan struct{})
	}
	return f.changed
}

// Apply implements cluster.FSM. The result is a catalog.Result.
func (f *fsm) Apply(cmd []byte, index uint64) (any, error) {
	next, result, err := f.state.Load().Apply(index, cmd)
	f.take(next, result)
	if slices.ContainsFunc(result.Changes, aboutNode) {
		f.nodes()
	}
	return result, err
}

func aboutNode(c catalog.Change) bool {
	switch c.(type) {
	case catalog.NodeChanged, catalog.ClusterChanged:
		return true
	}
	return false
}

// Snapshot implements cluster.FSM.
func (f *fsm) Snapshot() (func(io.Writer) error, error) {
	state := f.state.Load()
	return func(w io.Writer) error {
		_, err := state.WriteTo(w)
		return err
	}, nil
}

// Restore implements cluster.FSM.
func (f *fsm) Restore(r io.Reader) error {
	state, err := catalog.Read(r)
	if err != nil {
		return err
	}
	f.take(state, catalog.Result{})
	f.nodes()
	return nil
}
