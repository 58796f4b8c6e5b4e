package history

import (
	"context"
	"errors"
	"sync"
)

// errRepeated is why it is not known what became of a try.
var errRepeated = errors.New("repeated")

// tries is one write on its way, try by try. Each is in the recorder from its beginning,
// as one that may have happened.
type tries struct {
	*user
	first, n int64
	op       Op // what each of them does

	mu   sync.Mutex // a client may call from another goroutine
	now  pending    // the try that was sent last
	over bool
}

// writeBy has the client write, in the way that tells most about its tries.
func (t *tries) writeBy(ctx context.Context, p []byte) error {
	off := t.first * BlockSize
	switch c := t.client.(type) {
	case Straggler:
		return c.WriteAtStraggling(ctx, p, off, t.sent)
	case Repeater:
		t.sent()
		return c.WriteAtTries(ctx, p, off, t.again)
	default:
		t.sent()
		return t.client.WriteAt(ctx, p, off)
	}
}

// swapBy has it compare and write.
func (t *tries) swapBy(ctx context.Context, old, put []byte) (done bool, err error) {
	off := t.first * BlockSize
	if c, ok := t.client.(Straggler); ok {
		return c.CompareAndWriteStraggling(ctx, old, put, off, t.sent)
	}
	t.sent()
	return t.client.(Swapper).CompareAndWriteTries(ctx, old, put, off, t.again)
}

// sent records that another try begins, and returns what is to be called when it is over.
func (t *tries) sent() (over func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return func() {}
	}
	this := t.rec.open(t.op, t.first, t.n)
	t.now = this
	return func() { t.rec.close(this, errRepeated) }
}

// again records that a try is over and may have happened, and begins the next one.
func (t *tries) again() {
	t.mu.Lock()
	now, over := t.now, t.over
	t.mu.Unlock()
	if !over {
		t.rec.close(now, errRepeated)
		t.sent()
	}
}

// end is the word of the client: nothing begins after it.
func (t *tries) end() pending {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	return t.now
}

// miss records that the last try of a swap found something else.
func (t *tries) miss() {
	t.rec.settle(t.end(), func(op *Op) { op.Write, op.Value, op.Maybe = false, Value{}, false })
}

// last records how the last try ended: with an error it may happen at any time.
func (t *tries) last(err error) {
	now := t.end()
	if err != nil {
		t.rec.excuse(now, err)
		return
	}
	t.rec.settle(now, func(op *Op) { op.Maybe = false })
}
