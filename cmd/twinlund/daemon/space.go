package daemon

import (
	"context"
	"sync"
	"time"

	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/cmd/twinlund/status"
	"github.com/twinlun/twinlun/target/backing"
)

// spaceEvery is how often the space for the LUNs is looked at: a host fills some GB
// meanwhile at most, and asking costs some microseconds.
const spaceEvery = 5 * time.Second

// space is what is known of the space for a LUN.
type space struct {
	looking sync.Mutex // one look at a time

	mu    sync.Mutex
	known bool
	now   backing.Space
	limit int64 // bytes; 0: none
	low   bool  // under the limit, and hosts were told
}

// take takes what there is now; crossed: hosts are to be told that it is low, as it was
// not before; eased: it is low no more.
func (s *space) take(now backing.Space, limit int64) (crossed, eased bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.low
	switch {
	case now.Available < limit:
		s.low = true
	case now.Available >= enough(limit, now.Size):
		s.low = false
	}
	s.known, s.now, s.limit = true, now, limit
	return s.low && !was, was && !s.low
}

// enough is how much has to be available for low space not to be low any more: a quarter
// more than the limit, so that files that come and go do not make hosts hear of it again
// and again; but no more than there can be.
func enough(limit, size int64) int64 { return limit + min(limit/4, max(0, size-limit)/2) }

func (s *space) status() *status.Space {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.known {
		return nil
	}
	return &status.Space{Used: s.now.Used, Available: s.now.Available, Size: s.now.Size, Threshold: s.limit, Low: s.low}
}

// threshold is the LUN's, in bytes; 0: none, or it cannot be told.
func (l *lun) threshold() int64 {
	now, ok := l.replica().Space()
	if !ok {
		return 0
	}
	return l.config().Space.Of(now.Size)
}

// inMiB is a number of bytes for people, rounded down.
func inMiB(bytes int64) string { return config.FormatSize(bytes &^ (1<<20 - 1)) }

// watchSpace is the task that looks at the space for all LUNs.
func (d *Daemon) watchSpace(ctx context.Context) {
	t := time.NewTicker(spaceEvery)
	defer t.Stop()
	for {
		for _, l := range d.all() {
			d.lookAtSpace(l)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// lookAtSpace tells hosts, and the log, once, when the space for a LUN runs low.
func (d *Daemon) lookAtSpace(l *lun) {
	l.space.looking.Lock()
	defer l.space.looking.Unlock()
	c := l.config()
	now, ok := l.replica().Space()
	if !ok {
		return // a device, or closed for a moment
	}
	limit := c.Space.Of(now.Size)
	crossed, eased := l.space.take(now, limit)
	err := d.device.SetThreshold(c.Number, limit)
	if crossed && err == nil {
		err = d.device.ThresholdReached(c.Number)
	}
	if err != nil {
		return // it is being taken away
	}
	about := []any{"backing", c.Backing, "available", inMiB(now.Available), "threshold", inMiB(limit)}
	switch {
	case crossed:
		l.log.Warn("the space for the LUN runs low; hosts cannot write what has no space yet when it is used up: "+
			"make room in the file system of its backing, or make that larger", about...)
	case eased:
		l.log.Info("there is space for the LUN again", about...)
	}
}
