package sim

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/twinlun/twinlun/replication"
)

// unitTopic is what twins talk about.
const unitTopic = 1

// twin stands for the device server of a site: it has a number that hosts raise, and
// the higher one of both sites' counts. It is a replication.Twin, and lives as long as
// the site's process.
type twin struct {
	s      *site
	number uint64
}

// raise is a host's command: when it is done, the other site has heard of it.
func (s *site) raise(ctx context.Context) {
	s.w.lastNumber++
	n := s.w.lastNumber
	s.twin.number = n
	s.done(fmt.Sprintf("raise to %d", n), s.twin.tell(ctx, n))
}

// tell tells the other site. That it cannot be told is no fault; that it is said to
// know, and does not, is one.
func (t *twin) tell(ctx context.Context, n uint64) error {
	answer, err := t.s.rep.Tell(ctx, unitTopic, binary.BigEndian.AppendUint64(nil, n))
	t.s.w.tracef("%s: tell %d: % x, %v", t.s.name, n, answer, err)
	switch {
	case errors.Is(err, replication.ErrNotTold), ctx.Err() != nil:
		return nil
	case err != nil:
		return err
	}
	got := binary.BigEndian.Uint64(answer)
	if t.s.w.heard[n] == 0 || got < n {
		return fmt.Errorf("the other site has answered %d to %d, and has heard of it at step %d", got, n, t.s.w.heard[n])
	}
	t.number = max(t.number, got)
	return nil
}

// Heard implements replication.Twin. It takes its time, as the end of commands does.
func (t *twin) Heard(ctx context.Context, topic uint16, body []byte) ([]byte, bool) {
	if chance(t.s.w.rand, 20) && t.s.group.Sleep(ctx, upTo(t.s.w.rand, 200*time.Millisecond)) != nil {
		return nil, false
	}
	n := binary.BigEndian.Uint64(body)
	t.s.w.heard[n] = t.s.w.sched.Steps()
	t.number = max(t.number, n)
	return binary.BigEndian.AppendUint64(nil, t.number), topic == unitTopic
}

// Joined implements replication.Twin: the other site may have missed something.
func (t *twin) Joined(ctx context.Context) {
	if err := t.tell(ctx, t.number); err != nil {
		t.s.w.fail("site %s, joined: %v", t.s.name, err)
	}
}
