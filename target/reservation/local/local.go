// Package local keeps the persistent reservations of one logical unit for one
// target alone: in memory and, while initiators ask for that (APTPL), in a file.
//
// The file is as package reservation draws it, and is replaced as a whole. It is there
// if and only if the reservations are to survive a loss of power; a command that changes
// them is answered after that is so. The end of the process counts as a loss of power.
package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"

	"github.com/twinlun/twinlun/target/keep"
	"github.com/twinlun/twinlun/target/reservation"
)

// Reservations are those of one logical unit.
type Reservations struct {
	// Fixed by Open.
	path string // "": memory only
	unit [16]byte

	state atomic.Pointer[reservation.State]

	mu    sync.Mutex // one command at a time
	watch func([]reservation.Event)
	file  []byte // what the file holds; nil: there is none
	sure  bool   // that it does: no write has failed
}

// Memory keeps reservations as long as it lives.
func Memory() *Reservations {
	r := &Reservations{watch: func([]reservation.Event) {}, sure: true}
	r.state.Store(new(reservation.State))
	return r
}

// Open keeps reservations in a file, and begins with those that are in it.
func Open(path string, unit [16]byte) (*Reservations, error) {
	r := Memory()
	r.path, r.unit = path, unit
	p, err := keep.Read(path, reservation.MaxEncoded)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	var s *reservation.State
	if err == nil {
		s, err = reservation.Decode(p, unit)
	}
	if err != nil {
		return nil, fmt.Errorf("read the persistent reservations in %s: %w; move the file away to begin without any, when no cluster that relies on them is running", path, err)
	}
	r.state.Store(s)
	r.file = p
	return r, nil
}

// Load gives the state; it is never nil, and not to be changed.
func (r *Reservations) Load() *reservation.State { return r.state.Load() }

// Durable tells whether reservations can be kept through a loss of power.
func (r *Reservations) Durable() bool { return r.path != "" }

// Watch has a function called after every change, with what nexuses must be told,
// and before the command that made the change is answered. It is set before the
// first command.
func (r *Reservations) Watch(changed func([]reservation.Event)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watch = changed
}

// Apply carries out a command. With an error nothing has changed here, and the file
// may hold either.
func (r *Reservations) Apply(_ context.Context, c reservation.Command) (reservation.Outcome, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.state.Load()
	after, result := before.Apply(c)
	if after == before {
		return result.Outcome, nil
	}
	if err := r.keepLocked(after); err != nil {
		return 0, fmt.Errorf("keep persistent reservations in %s: %w", r.path, err)
	}
	r.state.Store(after)
	r.watch(result.Events)
	return result.Outcome, nil
}

// keepLocked makes the file say what a state wants kept.
func (r *Reservations) keepLocked(s *reservation.State) error {
	if r.path == "" {
		return nil
	}
	var want []byte
	if s.Persist {
		want = s.Encode(r.unit)
	}
	if r.sure && bytes.Equal(want, r.file) {
		return nil
	}
	// Until it is done nobody knows what the file holds: the next change writes it.
	r.sure = false
	if err := r.replace(want); err != nil {
		return err
	}
	r.file, r.sure = want, true
	return nil
}

func (r *Reservations) replace(p []byte) error {
	if p == nil {
		return keep.Remove(r.path)
	}
	return keep.Replace(r.path, p)
}
