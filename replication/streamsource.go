package replication

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// streamSource is the receiving half of a socket, with the sign of life that a
// connection needs: see LinkConfig.Dead. Time in which the handler does not let
// the reader read does not count.
type streamSource struct {
	conn net.Conn
	c    *linkConn // nil: the HELLOs are in progress, under a deadline of their own
}

// Read gives up only after a second look: when this process or its machine was
// stopped for a while, the time is over although bytes are waiting.
func (r *streamSource) Read(b []byte) (int, error) {
	if r.c == nil {
		return r.conn.Read(b)
	}
	began, dead := r.c.clock(), r.c.link.cfg.Dead
	for wait, looks := dead, 1; ; wait, looks = dead/8, looks+1 {
		r.conn.SetReadDeadline(time.Now().Add(wait))
		n, err := r.conn.Read(b)
		if n > 0 {
			r.c.heard.Store(r.c.clock())
			return n, nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, err
		}
		if err := r.c.silent(began); err != nil && looks > 1 {
			return 0, err
		}
	}
}

// silent judges a stream on which nothing came since began, for Dead at least.
func (c *linkConn) silent(began int64) error {
	now, dead := c.clock(), int64(c.link.cfg.Dead)
	switch {
	case now-c.heard.Load() >= dead:
		return fmt.Errorf("for %v: %w", c.link.cfg.Dead, ErrLinkSilent)
	case now-began >= linkStreamDead*dead:
		return fmt.Errorf("for %v on this stream: %w", time.Duration(now-began), ErrLinkSilent)
	}
	return nil
}
