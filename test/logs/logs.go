// Package logs collects what programs write while tests run, from several goroutines.
package logs

import (
	"bytes"
	"log/slog"
	"sync"
)

// Text is what was written. The zero value is ready; it may be read while others write.
type Text struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (t *Text) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.Write(p)
}

// String is all that was written so far.
func (t *Text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.String()
}

// Logger writes into the text, from level info on.
func (t *Text) Logger() *slog.Logger { return slog.New(slog.NewTextHandler(t, nil)) }
