package initiator

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

// TestWriteIsRepeated: on a new session with the same ISID, and the caller is told
// when one try is over.
func TestWriteIsRepeated(t *testing.T) {
	var mu sync.Mutex
	var isids, said []string
	say := func(list *[]string, what string) { mu.Lock(); defer mu.Unlock(); *list = append(*list, what) }
	lose := func(f *fake) {
		f.accept()
		say(&isids, fmt.Sprintf("%x", f.login[8:14]))
		f.expect(opSCSICommand)
		say(&said, "lost")
	}
	o := serve(t, lose, lose, func(f *fake) {
		f.accept()
		say(&isids, fmt.Sprintf("%x", f.login[8:14]))
		for cmd, _, ok := f.next(); ok && cmd.op() == opSCSICommand; cmd, _, ok = f.next() {
			say(&said, "done")
			f.respond(cmd, 0, nil)
		}
	})
	r, err := NewResilient(o, 0)
	if err != nil {
		t.Fatal(err)
	}
	err = r.Run(t.Context(), func() { say(&said, "again") }, func(ctx context.Context, s *Session) error {
		s.blockSize.Store(512)
		return s.WriteAt(ctx, make([]byte, 512), 0)
	})
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	if got := fmt.Sprint(said); got != "[lost again lost again done]" {
		t.Error(got)
	}
	if isids[0] != isids[1] || isids[1] != isids[2] || r.Logins() != 3 {
		t.Errorf("%d logins with %v", r.Logins(), isids)
	}
}

// TestNoAnswerIsALoss: a try without an answer takes its session with it.
func TestNoAnswerIsALoss(t *testing.T) {
	o := serve(t, logged((*fake).drain), logged(func(f *fake) {
		cmd, _ := f.expect(opSCSICommand)
		f.respond(cmd, 0, nil)
		f.drain()
	}))
	r, err := NewResilient(o, 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Sync(t.Context()); err != nil || r.Logins() != 2 {
		t.Errorf("%d logins, %v", r.Logins(), err)
	}
}

func TestResilientGivesUp(t *testing.T) {
	refuse := func(class byte) func(*fake) {
		return func(f *fake) {
			req, _ := f.expect(opLoginRequest)
			f.answer(req, 0, class, 1, nil)
		}
	}
	r, err := NewResilient(serve(t, refuse(3), refuse(2)), 0)
	if err != nil {
		t.Fatal(err)
	}
	var refused *LoginError
	if err := r.Sync(t.Context()); !errors.As(err, &refused) || refused.Class != 2 {
		t.Errorf("class 3 passes, class 2 does not: %v", err)
	}
	r.Close()
	if err := r.Sync(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	// Nobody listens: until the context ends.
	r, err = NewResilient(Options{Address: fmt.Sprintf("127.0.0.1:%d", freePort(t)), TargetIQN: fakeName}, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := r.Sync(ctx); err == nil || ctx.Err() == nil {
		t.Error(err)
	}
}
