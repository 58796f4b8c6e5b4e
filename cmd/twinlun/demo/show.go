package demo

import (
	"context"
	"fmt"
	"time"

	"github.com/twinlun/twinlun/cmd/twinlund/status"
	"github.com/twinlun/twinlun/test/initiator"
)

const (
	pollEvery = time.Second
	// plainEvery is the time between status lines where they cannot be drawn over.
	plainEvery = 5 * time.Second
	askTime    = 2 * time.Second // limit for one question to a daemon
)

// show waits until both sites serve, tells what can be done, and shows the status
// until ctx ends.
func (d *demo) show(ctx context.Context) error {
	d.out.print(fmt.Sprintf("starting sites a and b and the witness in %s …", d.dir))
	if err := d.setUp(ctx); err != nil {
		return err
	}
	if !d.waitUntilServing(ctx) {
		return context.Cause(ctx)
	}
	if err := d.updateJSON(true); err != nil {
		return fmt.Errorf("write the file for scripts: %w", err)
	}
	d.out.print(d.welcome())
	every := plainEvery
	if d.o.Live {
		every = pollEvery
	}
	for next := time.NewTicker(every); ; {
		d.out.status(d.statusLines(ctx))
		select {
		case <-next.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// waitUntilServing returns true when an initiator can use the LUN at both sites.
func (d *demo) waitUntilServing(ctx context.Context) bool {
	for ctx.Err() == nil {
		if ready(ctx, d.sites[0].portal) && ready(ctx, d.sites[1].portal) {
			return true
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return false
}

// ready logs in at a portal as a host does, and has a block read: that is answered
// only when both sites have joined.
func ready(ctx context.Context, portal string) bool {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	s, err := initiator.Dial(ctx, initiator.Options{Address: portal, TargetIQN: IQN, InitiatorIQN: IQN + "-probe"})
	if err != nil {
		return false
	}
	defer s.Close()
	return s.ReadAt(ctx, make([]byte, 4096), 0) == nil && s.Logout(ctx) == nil
}

// statusLines asks both sites.
func (d *demo) statusLines(ctx context.Context) (lines []string) {
	for _, s := range d.sites[:2] {
		ask, cancel := context.WithTimeout(ctx, askTime)
		st, err := status.Get(ask, s.page)
		cancel()
		if err != nil || len(st.LUNs) == 0 {
			lines = append(lines, fmt.Sprintf("site %s  %s  does not run", s.name, s.portal))
			s.last = sample{}
			continue
		}
		lines = append(lines, s.statusLine(st, time.Now()))
	}
	return lines
}

// sample is what rates are computed from.
type sample struct {
	at     time.Time
	copies uint64
	bytes  uint64
}

// statusLine is a site's status in one line.
func (s *site) statusLine(st *status.Status, now time.Time) string {
	l := &st.LUNs[0]
	link := "link down"
	if st.Link.Up {
		link = fmt.Sprintf("link up, round trip %.1f ms", float64(st.Link.RTT)/1e6)
	}
	serving := "serves"
	switch {
	case !l.Serving:
		serving = "waits"
	case l.Alone:
		serving = "serves alone"
	}
	perSecond, bytesPerSecond := s.rates(sample{now, l.Copies, l.CopiedBytes})
	return fmt.Sprintf("site %s  %s  %-6s  %s  dirty %s  marks %d  fetches %d  copies %.0f/s (%s/s)",
		s.name, s.portal, serving, link, people(float64(l.Dirty)), l.Marks, l.Fetches, perSecond, people(bytesPerSecond))
}

// rates compares with the sample before.
func (s *site) rates(now sample) (copies, bytes float64) {
	old := s.last
	s.last = now
	seconds := now.at.Sub(old.at).Seconds()
	if old.at.IsZero() || seconds <= 0 || now.copies < old.copies {
		return 0, 0 // the first one, or of another run of the daemon
	}
	return float64(now.copies-old.copies) / seconds, float64(now.bytes-old.bytes) / seconds
}

// people is a number of bytes as people read it.
func people(n float64) string {
	for _, unit := range []string{"B", "KiB", "MiB", "GiB"} {
		if n < 1000 {
			return fmt.Sprintf("%.3g %s", n, unit)
		}
		n /= 1024
	}
	return fmt.Sprintf("%.3g TiB", n)
}
