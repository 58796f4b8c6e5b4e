package cluster

import (
	"context"
	"io"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// newLogger lets the raft library write to ours.
func newLogger(log *slog.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Level: hclog.Debug, Output: io.Discard})
	l.RegisterSink(sink{log.With("part", "raft")})
	return l
}

type sink struct{ log *slog.Logger }

// Accept implements hclog.SinkAdapter. The library informs of every step of every
// election; for us those are for debugging.
func (s sink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	switch level {
	case hclog.Warn:
		to = slog.LevelInfo
	case hclog.Error:
		to = slog.LevelWarn
	}
	s.log.Log(context.Background(), to, msg, args...)
}
