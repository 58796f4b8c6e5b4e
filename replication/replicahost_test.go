package replication

import (
	"context"
	"errors"
	"testing"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication/coherence"
)

// waiting makes a Request that waits for n Admits of operation 1.
func waiting(r *Replica, n uint64) *Request {
	q := r.NewRequest()
	q.ops = []uint64{1}
	r.requests[1] = &wait{q: q, left: n}
	return q
}

// A command that is aborted at the moment when its Sync is answered has entered nothing,
// and leaves nothing.
func TestCancelOfAnAnsweredSync(t *testing.T) {
	r := mustOpen(t, testConfig(new(testMapFile)))
	defer r.Close()
	r.m.Open()
	q := waiting(r, 1)
	r.mu.Lock()
	r.admitLocked(coherence.Admit{Op: 1, Sync: true})
	r.mu.Unlock()
	q.Cancel()
	if n := r.m.Users(0); n != 0 || !r.m.Begin() {
		t.Fatalf("extent 0 has %d users, or the gate does not open any more", n)
	}
	r.m.End()
}

// What was admitted before the replica closes is used, or left by Cancel; either way
// nothing stays inside.
func TestAdmitsAreNotLostWhenTheReplicaCloses(t *testing.T) {
	for _, taken := range []bool{true, false} {
		r := mustOpen(t, testConfig(new(testMapFile)))
		r.m.Open()
		if !r.m.Begin() || !r.m.Pin(5) {
			t.Fatal("extent 5 cannot be entered")
		}
		q := waiting(r, 2)
		r.mu.Lock()
		r.admitLocked(coherence.Admit{Op: 1, Extent: 5})
		r.mu.Unlock()
		r.beginClosing()
		if taken {
			admits, err := q.Next(context.Background())
			if len(admits) != 1 || err != nil {
				t.Fatalf("%d admits, %v; one is to be used", len(admits), err)
			}
			r.Leave(admits[0])
			if _, err := q.Next(context.Background()); !errors.Is(err, ErrReplicaClosed) {
				t.Errorf("then %v", err)
			}
		}
		q.Cancel()
		if !r.m.Quiet() || r.m.Users(5) != 0 || r.m.State(5)&dirtymap.Closing != 0 {
			t.Errorf("taken %v: a command stays inside: Close would wait for ever", taken)
		}
	}
}
