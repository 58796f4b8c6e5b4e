package replication

import (
	"sync/atomic"
	"time"

	"github.com/twinlun/twinlun/replication/wire"
)

// LinkStats is what a link has done since it was made.
type LinkStats struct {
	Up          bool
	Since       time.Time     // of the present connection
	RTT         time.Duration // 0: not measured yet
	Streams     int           // bulk streams of the present connection
	Queued      int64         // bytes that wait to be sent
	Connections uint64        // how often the link came up
	LastError   string        // why it went down, or did not come up, last

	// By kind of message, as sent over the wire, from HELLO on but without it.
	Sent, Received [wire.Kinds]LinkCount
}

// LinkCount counts frames and their bytes, headers included.
type LinkCount struct{ Frames, Bytes uint64 }

// Total is the sum over all kinds.
func (s *LinkStats) Total() (sent, received LinkCount) {
	for k := range s.Sent {
		sent.Frames += s.Sent[k].Frames
		sent.Bytes += s.Sent[k].Bytes
		received.Frames += s.Received[k].Frames
		received.Bytes += s.Received[k].Bytes
	}
	return sent, received
}

type linkCounters struct {
	connections    atomic.Uint64
	lastError      atomic.Pointer[string]
	sent, received [wire.Kinds]linkCounter
}

type linkCounter struct{ frames, bytes atomic.Uint64 }

func (c *linkCounter) add(bytes int) {
	c.frames.Add(1)
	c.bytes.Add(uint64(bytes))
}

func (c *linkCounter) load() LinkCount { return LinkCount{c.frames.Load(), c.bytes.Load()} }

// Stats may be called at any time.
func (l *Link) Stats() LinkStats {
	s := LinkStats{Connections: l.counters.connections.Load()}
	if text := l.counters.lastError.Load(); text != nil {
		s.LastError = *text
	}
	for k := range s.Sent {
		s.Sent[k] = l.counters.sent[k].load()
		s.Received[k] = l.counters.received[k].load()
	}
	l.mu.Lock()
	c := l.mu.current
	l.mu.Unlock()
	if c != nil {
		c.addStats(&s)
	}
	return s
}

func (c *linkConn) addStats(s *LinkStats) {
	s.Up, s.Since = c.ctx.Err() == nil, c.started
	s.RTT, s.Streams = c.RTT(), c.Streams()
	for _, st := range c.streams {
		s.Queued += st.queue.waiting()
	}
}
