package failover

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// blockSize of each command, in bytes.
const blockSize = 4096

// stall is what one run has shown; see the package comment.
type stall struct{ longest, gap, first time.Duration }

// meter has workers send commands, and looks at the clock.
type meter struct {
	opts Options
	now  func() time.Time
	work sync.WaitGroup

	mu       sync.Mutex
	sent     []time.Time // by worker: its command under way; zero: none
	answered time.Time   // the last one
	answers  int
	struck   time.Time // zero: not yet
	done     []bool    // by worker: a command that it sent after the fault was answered
	left     int       // workers without one
	stall    stall
	err      error
	news     chan struct{} // capacity 1: something of the above has changed
}

func newMeter(o Options, now func() time.Time) *meter {
	return &meter{opts: o, now: now, sent: make([]time.Time, o.Depth), done: make([]bool, o.Depth), left: o.Depth, news: make(chan struct{}, 1)}
}

// load starts the workers; they end with ctx, or at the first error.
func (m *meter) load(ctx context.Context, h Host) {
	for i := range m.opts.Depth {
		m.work.Go(func() { m.worker(ctx, h, i) })
	}
}

func (m *meter) wait() { m.work.Wait() }

// worker sends one command after another to its own part of the LUN: reads and writes by
// turns.
func (m *meter) worker(ctx context.Context, h Host, i int) {
	part := max(m.opts.Size/int64(m.opts.Depth)/blockSize, 1)
	p := make([]byte, blockSize)
	for n := 0; ctx.Err() == nil; n++ {
		off := (int64(i)*part + rand.Int64N(part)) * blockSize
		m.begin(i)
		var err error
		if n%2 == 0 {
			err = h.WriteAt(ctx, p, off)
		} else {
			err = h.ReadAt(ctx, p, off)
		}
		if !m.end(i, err, ctx.Err() != nil) {
			return
		}
	}
}

func (m *meter) begin(i int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sent[i] = m.now()
}

// end notes an answer; false: the worker has to end.
func (m *meter) end(i int, err error, over bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if over {
		return false
	}
	if err != nil {
		m.err = errors.Join(m.err, err)
	} else {
		m.answerLocked(i, m.now())
	}
	select {
	case m.news <- struct{}{}:
	default:
	}
	return err == nil
}

func (m *meter) answerLocked(i int, now time.Time) {
	if !m.struck.IsZero() {
		m.stall.longest = max(m.stall.longest, now.Sub(m.sent[i]))
		m.stall.gap = max(m.stall.gap, now.Sub(m.answered))
		if after := !m.sent[i].Before(m.struck); after && !m.done[i] {
			if m.left == len(m.done) {
				m.stall.first = now.Sub(m.struck)
			}
			m.done[i] = true
			m.left--
		}
	}
	m.answered = now
	m.answers++
}

// strike notes the moment of the fault.
func (m *meter) strike() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.struck = m.now()
}

// settle returns when the load has gone on for its time.
func (m *meter) settle(ctx context.Context) error {
	if err := m.await(ctx, func() bool { return m.answers >= m.opts.Depth }); err != nil {
		return err
	}
	return rest(ctx, m.opts.Load)
}

// recover returns when each worker has had an answer to a command that it sent after the
// fault, and the load has gone on for its time: faults are found out late.
func (m *meter) recover(ctx context.Context) error {
	if err := rest(ctx, m.opts.After); err != nil {
		return err
	}
	if err := m.await(ctx, func() bool { return m.left == 0 }); err != nil {
		return err
	}
	// What was sent while the fault was found out is still under way.
	asked := m.now()
	return m.await(ctx, func() bool {
		for _, sent := range m.sent {
			if sent.Before(asked) {
				return false
			}
		}
		return true
	})
}

func rest(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// await waits for something that is looked at under mu.
func (m *meter) await(ctx context.Context, holds func() bool) error {
	limit := time.NewTimer(m.opts.Limit)
	defer limit.Stop()
	for {
		m.mu.Lock()
		ok, err := holds(), m.err
		m.mu.Unlock()
		if ok || err != nil {
			return err
		}
		select {
		case <-m.news:
		case <-limit.C:
			return fmt.Errorf("no answers to all commands within %v", m.opts.Limit)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (m *meter) result() stall {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stall
}
