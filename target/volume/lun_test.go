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
		func() error { return l.WriteAtomic(ctx, block(2), 320<<10, true) },
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

// A write of which a part was done before the replica was closed does only the rest on
// the next one: what was written over the part meanwhile stays.
func TestLUNWritesOnce(t *testing.T) {
	for name, command := range map[string]func(ctx context.Context, l *LUN) error{
		"write": func(ctx context.Context, l *LUN) error {
			return l.WriteAt(ctx, bytes.Repeat([]byte{1}, 192<<10), 0, true)
		},
		"zero": func(ctx context.Context, l *LUN) error { return l.Zero(ctx, 0, 192<<10, true) },
	} {
		t.Run(name, func(t *testing.T) {
			p, ctx := newPair(t), limited(t)
			a, b, next := p.sides[0], p.sides[1], newPair(t).sides[0]
			must(t, a.vol.WriteAt(ctx, bytes.Repeat([]byte{5}, 192<<10), 0, false))
			must(t, b.vol.WriteAt(ctx, pattern(4096, 1), 64<<10, false))
			b.store.mu.Lock() // b cannot read what a asks for
			l := NewLUN(a.vol)
			done := make(chan error)
			go func() { done <- command(ctx, l) }()
			until(ctx, t, "it waits for one extent", func() bool {
				a.store.mu.Lock()
				defer a.store.mu.Unlock()
				return a.store.data[0] != 5 && a.store.data[192<<10-1] != 5 && a.rep.Status().Waiting == 1
			})
			a.closeReplica(t)
			b.store.mu.Unlock()
			later := bytes.Repeat([]byte{9}, 192<<10)
			must(t, next.vol.WriteAt(ctx, later, 0, false))
			l.Replace(next.vol)
			must(t, <-done)
			got := make([]byte, 192<<10)
			must(t, next.vol.ReadAt(ctx, got, 0))
			want := bytes.Clone(later)
			clear(want[64<<10 : 128<<10])
			if name == "write" {
				copy(want[64<<10:], bytes.Repeat([]byte{1}, 64<<10))
			}
			if !bytes.Equal(got, want) {
				t.Error("what was written meanwhile was overwritten, or the rest was not done")
			}
		})
	}
}
