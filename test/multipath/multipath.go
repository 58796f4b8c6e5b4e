// Package multipath is a host with several paths to one LUN, for tests: it does what the
// multipath layer of a host does with asymmetric access (SPC-4 5.15), over the initiator of
// package test/initiator, one session to a path.
//
// Of each path it knows by REPORT TARGET PORT GROUPS, every Check and whenever a unit
// attention says that states have changed, whether it is active, optimized and preferred.
// Commands go by the best one; by the present one among equals. One that is answered by
// NOT READY, that gets no answer within Timeout, or whose connection is lost, goes by
// another path; if there is none it waits, as with queue_if_no_path.
//
// # What a try without an answer may still do
//
// The host sends a write to site a, gets no answer, and sends it to site b, which answers.
// Site a may have it still: in the buffer of a socket, in a process that is halted, on the
// way to a disk. Closing the connection does not take it back, if a cannot hear of that.
// It is over when
//   - site a has answered it, by whatever status; or
//   - a login to a's portal with the same ISID has succeeded: the target ends the tasks of
//     the older session before it answers (RFC 7143 section 6.3.5); if it was restarted
//     meanwhile, they ended with the process.
//
// Until then, perhaps for ever, it may take effect, once: also after the retry was answered,
// and over what others have written since. No host can exclude that, and package history
// records it so (history.Straggler), a write of its own for each try. This is no excuse for
// a target: one that does not serve any more must refuse such a write, as it must refuse
// any other; and one that is carried out after its site was told to stop, is a violation
// as soon as a read at one of the sites does not see it.
package multipath

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twinlun/twinlun/test/history"
	"github.com/twinlun/twinlun/test/initiator"
)

// retryPause is between a status that says "later" and the next try by the same path.
const retryPause = 5 * time.Millisecond

// Options say what the host is like.
type Options struct {
	// Paths are the portals, all of the same LUN. PingInterval should be below Timeout.
	Paths []initiator.Options
	// Timeout is how long a try may take until its path counts as dead; default 5 s. A
	// Linux host has 30 s for that, but gives a session up after two pings of 5 s.
	Timeout time.Duration
	// Check is how often each path is looked at; default 1 s.
	Check time.Duration
}

// Client is the host. Its methods may be called concurrently.
type Client struct {
	opts  Options
	paths []*path

	life  context.Context // ends with Close
	end   context.CancelFunc
	tends sync.WaitGroup

	mu      sync.Mutex
	current *path
	moves   int
	changed chan struct{} // closed, and made anew, when a path's state changes
}

var _ history.Straggler = (*Client)(nil)

// New makes a host; it logs in by all paths at once, and does not wait for that.
func New(o Options) (*Client, error) {
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	if o.Check == 0 {
		o.Check = time.Second
	}
	if len(o.Paths) == 0 {
		return nil, errors.New("multipath: no paths")
	}
	c := &Client{opts: o, changed: make(chan struct{})}
	c.life, c.end = context.WithCancel(context.Background())
	for _, p := range o.Paths {
		if p.ISID == [6]byte{} {
			p.ISID = initiator.RandomISID() // one for the path's life: see the package comment
		}
		c.paths = append(c.paths, &path{client: c, opts: p, poke: make(chan struct{}, 1)})
	}
	for _, p := range c.paths {
		c.tends.Go(p.tend)
	}
	return c, nil
}

// Close ends the host; commands that wait return initiator.ErrClosed.
func (c *Client) Close() error {
	c.end()
	c.tends.Wait()
	return nil
}

// ReadAt fills p with the bytes at off, in whole blocks.
func (c *Client) ReadAt(ctx context.Context, p []byte, off int64) error {
	return c.do(ctx, nothingSent, func(ctx context.Context, s *initiator.Session) error { return s.ReadAt(ctx, p, off) })
}

// WriteAt stores p at off, at least once.
func (c *Client) WriteAt(ctx context.Context, p []byte, off int64) error {
	return c.WriteAtStraggling(ctx, p, off, nothingSent)
}

// WriteAtStraggling is WriteAt, and tells of its tries; see history.Straggler.
func (c *Client) WriteAtStraggling(ctx context.Context, p []byte, off int64, sent func() (over func())) error {
	return c.do(ctx, sent, func(ctx context.Context, s *initiator.Session) error { return s.WriteAt(ctx, p, off) })
}

// CompareAndWriteStraggling puts put in the place of old if that is there; whether it was
// is the word of the last try.
func (c *Client) CompareAndWriteStraggling(ctx context.Context, old, put []byte, off int64, sent func() (over func())) (done bool, err error) {
	err = c.do(ctx, sent, func(ctx context.Context, s *initiator.Session) (err error) {
		done, err = s.CompareAndWrite(ctx, old, put, off)
		return err
	})
	return done, err
}

func nothingSent() (over func()) { return func() {} }

// Moves is how many times the host has taken another path than before.
func (c *Client) Moves() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.moves
}

// do sends a command by one path after another, until it has an answer that is one.
func (c *Client) do(ctx context.Context, sent func() (over func()), f func(context.Context, *initiator.Session) error) error {
	for tries := 1; ; tries++ {
		r, err := c.route(ctx)
		if err != nil {
			return err
		}
		over := sent()
		limited, cancel := context.WithTimeout(ctx, c.opts.Timeout)
		err = f(limited, r.session)
		slow := limited.Err() != nil
		cancel()
		switch verdict := judge(err, slow); verdict {
		case answered:
			return err
		case unanswered:
			r.path.straggle(r.session, over, ctx.Err() == nil)
		case later, attention, refused:
			over()
			r.path.heed(r.session, verdict)
		}
		if !pause(ctx, retryPause) {
			return fmt.Errorf("%w; %d tries, the last: %w", context.Cause(ctx), tries, err)
		}
	}
}

// route is the way that a command takes.
type route struct {
	path    *path
	session *initiator.Session
}

// route finds the best path, or waits for one.
func (c *Client) route(ctx context.Context) (route, error) {
	for {
		r, changed := c.best()
		if r.path != nil {
			return r, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return route{}, fmt.Errorf("no path: %w", context.Cause(ctx))
		case <-c.life.Done():
			return route{}, initiator.ErrClosed
		}
	}
}

// best is the best path now, if there is one, and what is closed when that may change.
func (c *Client) best() (route, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	best := c.current
	for _, p := range c.paths {
		if best == nil || p.rank > best.rank {
			best = p
		}
	}
	if best.rank == dead || c.life.Err() != nil {
		return route{}, c.changed
	}
	if c.current != nil && c.current != best {
		c.moves++
	}
	c.current = best
	return route{best, best.session}, c.changed
}

// changedLocked wakes those who wait for a path.
func (c *Client) changedLocked() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// verdict is what is to be done about a command.
type verdict int

const (
	answered   verdict = iota // nothing: here is the answer, good or bad
	later                     // send it again
	attention                 // send it again; states may have changed
	refused                   // send it by another path
	unanswered                // so, too, and nobody knows what becomes of this one
)

// Additional sense of unit attentions that tell of changed states (SPC-4 5.15.2.2).
const (
	ascParameters     = 0x2a
	ascqAccessChanged = 0x06
	ascqAccessFailed  = 0x07
)

// judge tells what an error means; slow: the time for the try was over.
func judge(err error, slow bool) verdict {
	var check *initiator.CheckCondition
	var status *initiator.StatusError
	var breach *initiator.ProtocolError
	switch {
	case err == nil, errors.As(err, &breach): // a breach is to be seen, not to be smoothed over
		return answered
	case errors.As(err, &check):
		return judgeSense(check)
	case errors.As(err, &status):
		switch status.Status {
		case initiator.StatusBusy, initiator.StatusTaskSetFull, initiator.StatusTaskAborted:
			return later
		}
		return answered
	case slow, errors.Is(err, initiator.ErrConnectionLost), errors.Is(err, initiator.ErrClosed), errors.Is(err, initiator.ErrAborted):
		return unanswered
	}
	return answered
}

func judgeSense(check *initiator.CheckCondition) verdict {
	switch check.Key {
	case initiator.SenseNotReady:
		return refused
	case initiator.SenseUnitAttention:
		if check.ASC == ascParameters && (check.ASCQ == ascqAccessChanged || check.ASCQ == ascqAccessFailed) {
			return attention
		}
		return later
	case initiator.SenseAborted:
		return later
	}
	return answered
}

// pause waits; false: ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
