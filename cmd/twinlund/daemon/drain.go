package daemon

import (
	"context"
	"time"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/failover"
)

const (
	// drainGrace is how long hosts have to find out that another path is better, before
	// this one is closed: Linux looks at its paths every 5 s at first.
	drainGrace = 6 * time.Second
	// drainStep is between two looks at what is left to do.
	drainStep = 100 * time.Millisecond
	// drainBatch is how many extents are given back at once.
	drainBatch = 4096
)

// wakeDrain has drain look whether this node is drained. It does not block.
func (c *cluster) wakeDrain() {
	select {
	case c.away <- struct{}{}:
	default: // it has been woken, and not looked yet
	}
}

// drain is the task that empties this node of LUNs while it, or its replica, is drained: hosts are first told to
// prefer the other paths (package view), then sent away; the other nodes get all that they
// do not have; and then this one leaves its LUNs to them. It can be resumed at any time.
func (c *cluster) drain(ctx context.Context) {
	began := map[catalog.UUID]time.Time{}
	tick := time.NewTicker(drainStep)
	defer tick.Stop()
	for {
		select {
		case <-c.away:
		case <-tick.C:
			if len(began) == 0 {
				continue // nothing to do, and nobody has said anything
			}
		case <-ctx.Done():
			return
		}
		m := c.Member()
		if m == nil || m.Witness() {
			continue
		}
		for _, l := range c.d.all() {
			id := catalog.UUID(l.config().UUID)
			if is, _ := m.State().LUN(id); m.State().Drained(&is, m.Self()) {
				c.drainLUN(l, began)
			} else if !began[id].IsZero() {
				c.keeper().Retire(id, false)
				delete(began, id)
			}
		}
	}
}

// drainLUN takes the next step with a LUN.
func (c *cluster) drainLUN(l *lun, began map[catalog.UUID]time.Time) {
	id, k := catalog.UUID(l.config().UUID), c.keeper()
	if l.config().Peer == "" {
		return // nobody else has it
	}
	role, _ := k.Role(id)
	switch {
	case began[id].IsZero() && role.Serve != failover.Together:
		return // it has left it already, or the other node is not there
	case began[id].IsZero():
		began[id] = time.Now()
		l.log.Info("the LUN is left to the other site: its hosts are told to prefer that one")
	case time.Since(began[id]) < drainGrace:
	case role.Serve == failover.Together:
		l.log.Info("hosts of the LUN have to go to the other site now")
		k.Retire(id, true)
	case role.Serve == failover.ByItself:
		k.Retire(id, false) // the other site has gone meanwhile
		delete(began, id)
	default:
		r := l.replica()
		if left := r.GiveBack(drainBatch); left || r.Status().Dirty > 0 {
			return
		}
		if err := k.Drain(id); err != nil {
			l.log.Warn("the LUN cannot be left to the other site", "err", err)
		}
	}
}
