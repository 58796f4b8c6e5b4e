package replication

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// linkLogEvery is how often a link that keeps failing says so.
const linkLogEvery = 30 * time.Second

// linkLog keeps a link that retries for days, and strangers who knock as often,
// from filling the log.
type linkLog struct {
	*slog.Logger

	mu       sync.Mutex
	down     time.Time // of the last warning that the link is down; zero: none since it was up
	stranger time.Time // of the last warning that a stream was refused
}

func (g *linkLog) up(c *linkConn) {
	g.mu.Lock()
	g.down = time.Time{}
	g.mu.Unlock()
	g.Info("link is up", "peer", c.Peer(), "bulk_streams", c.Streams(), "remote", c.streams[0].conn.RemoteAddr())
}

func (g *linkLog) failed(err error)  { g.warn(&g.down, "link is down", err) }
func (g *linkLog) refused(err error) { g.warn(&g.stranger, "stream refused", err) }

// warn demotes what comes too soon after the last warning to debug.
func (g *linkLog) warn(last *time.Time, text string, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	level := slog.LevelDebug
	if now := time.Now(); last.IsZero() || now.Sub(*last) >= linkLogEvery {
		*last, level = now, slog.LevelWarn
	}
	g.Log(context.Background(), level, text, "error", err)
}
