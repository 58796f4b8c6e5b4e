package replication

import (
	"testing"
	"time"
)

// syncStore tells of every Sync, and waits until it may go on.
type syncStore struct {
	testStore
	begun, end chan struct{}
}

func (s *syncStore) Sync() error {
	s.begun <- struct{}{}
	<-s.end
	return nil
}

// A flush serves those that asked before it began. What was written, and asked for,
// while it ran may not be on the medium: it needs another one.
func TestFlushServesThoseBeforeIt(t *testing.T) {
	file := new(testMapFile)
	cfg := testConfig(file)
	store := &syncStore{testStore{testFile{make([]byte, testGeometry.Size)}}, make(chan struct{}), make(chan struct{})}
	cfg.Store = store
	r := mustOpen(t, cfg)
	waiting := func() int {
		r.flush.mu.Lock()
		defer r.flush.mu.Unlock()
		return len(r.flush.waiting)
	}
	r.flush.put(flushWait{token: 1001, copied: true})
	linkAwait(t, store.begun, "the first flush")
	if n := waiting(); n != 0 {
		t.Fatalf("%d wait when the flush for them has begun", n)
	}
	r.flush.put(flushWait{token: 1002, copied: true})
	r.flush.put(flushWait{token: 1003})
	if n := waiting(); n != 2 {
		t.Fatalf("%d wait, and two came after the flush began", n)
	}
	store.end <- struct{}{}
	select {
	case <-store.begun:
	case <-time.After(linkWait):
		t.Fatal("a flush that began before them was taken for theirs")
	}
	store.end <- struct{}{}
	go func() { // Close flushes, and may find the flusher at it
		for range store.begun {
			store.end <- struct{}{}
		}
	}()
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	close(store.begun)
}
