package volume

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/twinlun/twinlun/replication"
)

// closeReplica closes a side's replica, as before it is opened anew.
func (s *side) closeReplica(t *testing.T) {
	t.Helper()
	s.node.Remove(s.rep)
	if err := s.rep.Close(); err != nil {
		t.Fatal(err)
	}
}

// Commands of all kinds wait while there is no replica, and go on with the next one;
// none of them fails, and an update is done once.
func TestLUNOutlivesItsReplica(t *testing.T) {
	ctx := context.Background()
	first, next := newPair(t).sides[0], newPair(t).sides[0]
	block := func(b byte) []byte { return bytes.Repeat([]byte{b}, 4096) }
	if err := next.vol.WriteAt(ctx, block(7), 0, true); err != nil {
		t.Fatal(err)
	}
	l := NewLUN(first.vol)
	first.closeReplica(t)
	calls := 0
	commands := []func() error{
		func() error {
			p := make([]byte, 4096)
			err := l.ReadAt(ctx, p, 0)
			if err == nil && !bytes.Equal(p, block(7)) {
				err = errors.New("it read something else")
			}
			return err
		},
		func() error { return l.WriteAt(ctx, block(1), 64<<10, true) },
		func() error { return l.Zero(ctx, 128<<10, 4096, false) },
		func() error { return l.Sync(ctx) },
		func() error {
			return l.Update(ctx, 256<<10, 512, true, func([]byte) bool { calls++; return true })
		},
	}
	ends := make(chan error, len(commands))
	for _, c := range commands {
		go func() { ends <- c() }()
	}
	for waiting := 0; waiting < len(commands); {
		l.mu.Lock()
		waiting = len(l.waiting)
		l.mu.Unlock()
		select {
		case err := <-ends:
			t.Fatalf("a command ended without a replica: %v", err)
		default:
		}
	}
	l.Replace(next.vol)
	for range commands {
		if err := <-ends; err != nil {
			t.Error(err)
		}
	}
	if calls != 1 {
		t.Errorf("an update was done %d times", calls)
	}
}

// A command that waits for the next replica can be aborted; and when there will be
// none, commands end.
func TestLUNEnds(t *testing.T) {
	s := newPair(t).sides[0]
	l := NewLUN(s.vol)
	s.closeReplica(t)
	aborted := errors.New("aborted")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(aborted)
	if err := l.ReadAt(ctx, make([]byte, 512), 0); !errors.Is(err, aborted) || len(l.waiting) > 0 {
		t.Errorf("%v, %d wait", err, len(l.waiting))
	}
	l.End()
	if err := l.Sync(context.Background()); !errors.Is(err, replication.ErrReplicaClosed) {
		t.Error(err)
	}
}
