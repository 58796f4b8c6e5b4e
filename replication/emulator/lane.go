package emulator

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Direction is one of the line's two.
type Direction int

// The directions. A is the end that connects.
const (
	AToB Direction = 0
	BToA Direction = 1
)

// Cut is a set of directions that are cut.
type Cut int

// The cuts.
const (
	CutNone Cut = 0
	CutAToB Cut = 1 << AToB
	CutBToA Cut = 1 << BToA
	CutBoth     = CutAToB | CutBToA
)

// String is as in the control port's JSON.
func (c Cut) String() string {
	switch c {
	case CutNone:
		return "none"
	case CutAToB:
		return "a-to-b"
	case CutBToA:
		return "b-to-a"
	case CutBoth:
		return "both"
	}
	return fmt.Sprintf("Cut(%d)", int(c))
}

// ParseCut is the reverse of String.
func ParseCut(s string) (Cut, error) {
	for c := CutNone; c <= CutBoth; c++ {
		if c.String() == s {
			return c, nil
		}
	}
	return 0, fmt.Errorf("cut %q: must be none, both, a-to-b or b-to-a", s)
}

// Sizes of what a lane works with, in bytes and time.
const (
	turnTime = time.Millisecond     // how long one connection keeps a crowded line at a time
	minTurn  = 1448                 // one packet
	maxTurn  = 128 << 10            // enough to make reads cheap
	slack    = 4 * time.Millisecond // how far ahead of the line a connection may read: more than a sleep is late
	// freeBound is what a connection may have on a lane without a rate: 5 Gbit/s
	// over 50 ms.
	freeBound = 32 << 20
	minBound  = 256 << 10
)

// lane is one direction: the pace that its connections share.
type lane struct {
	direction Direction

	bytes  atomic.Uint64 // that have left it
	queued atomic.Int64  // that are on it

	mu      sync.Mutex
	now     State         // with this direction's part of Cut only
	changed chan struct{} // closed at the next change of now
	busy    time.Time     // until when the line is taken
	flipIn  int64         // bytes before the one to be damaged; < 0: none
}

func newLane(d Direction, s State) *lane {
	ln := &lane{direction: d, changed: make(chan struct{}), flipIn: -1}
	ln.set(s)
	return ln
}

func (ln *lane) set(s State) {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	s.Cut &= 1 << ln.direction
	if s.Rate != ln.now.Rate {
		ln.busy = time.Time{}
	}
	ln.now = s
	close(ln.changed)
	ln.changed = make(chan struct{})
}

func (ln *lane) state() State {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	return ln.now
}

// whole returns once the lane is not cut; false: ctx has ended before.
func (ln *lane) whole(ctx context.Context) bool {
	for {
		ln.mu.Lock()
		cut, changed := ln.now.Cut, ln.changed
		ln.mu.Unlock()
		if cut == 0 {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// enter sends n bytes on their way: when they leave the sender's end (then the
// connection may send again), and when they arrive.
func (ln *lane) enter(n int) (left, arrive time.Time) {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	left = time.Now()
	if ln.now.Rate > 0 {
		if ln.busy.After(left) {
			left = ln.busy
		}
		left = left.Add(transmission(n, ln.now.Rate))
		ln.busy = left
	}
	return left, left.Add(ln.now.Delay)
}

func transmission(n int, rate int64) time.Duration {
	return time.Duration(float64(n) * 8 / float64(rate) * float64(time.Second))
}

// turn is how much a connection may send at once.
func (s State) turn() int {
	if s.Rate == 0 {
		return maxTurn
	}
	return int(min(max(s.capacity(turnTime), minTurn), maxTurn))
}

// bound is how much one connection may have on a lane.
func (s State) bound() int64 {
	if s.Rate == 0 {
		return freeBound
	}
	return max(s.capacity(2*(s.Delay+slack)), minBound)
}

// capacity is what the line transmits in d, at most freeBound.
func (s State) capacity(d time.Duration) int64 {
	return int64(min(float64(s.Rate)/8*d.Seconds(), freeBound))
}

func (ln *lane) flip(skip int64) {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	ln.flipIn = max(skip, 0)
}

// damage inverts a bit of b, if its turn has come.
func (ln *lane) damage(b []byte) {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	switch {
	case ln.flipIn < 0:
	case ln.flipIn < int64(len(b)):
		b[ln.flipIn] ^= 0x10
		ln.flipIn = -1
	default:
		ln.flipIn -= int64(len(b))
	}
}
