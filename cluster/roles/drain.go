package roles

import (
	"time"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/failover"
	"github.com/twinlun/twinlun/replication"
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

// emptying is a replica that is given to the other node, as hosts have left it.
type emptying struct {
	lun     catalog.UUID
	replica *replication.Replica
}

// drain is the task that has this node leave LUNs to their other nodes, while it, or its
// replica, is drained: hosts are first told to prefer the other paths (package view), then
// they are sent away; the other node gets all that it does not have; and then this one
// leaves. It can be resumed at any time.
func (k *Keeper) drain() {
	for k.cfg.Runtime.Sleep(k.ctx, drainStep) == nil {
		for _, e := range k.drainable() {
			if e.empty() {
				k.leave(e.lun)
			}
		}
	}
}

// empty gives extents back, and tells whether the other node has been told of all. While the
// replicas are not joined nobody knows: the join may find that this one has the newest data.
func (e *emptying) empty() bool {
	if _, joined := e.replica.Joined(); !joined {
		return false
	}
	left := e.replica.GiveBack(drainBatch)
	return !left && e.replica.Status().Dirty == 0
}

// drainable takes the next step with each LUN, and returns those that hosts have left.
func (k *Keeper) drainable() (all []emptying) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, id := range k.sortedLUNs() {
		switch l := k.luns[id]; {
		case l.pair == nil: // nobody else has it
		case !k.state.Drained(&l.catalog, k.cfg.Self):
			k.stay(l)
		case k.retire(l) && l.replica != nil:
			all = append(all, emptying{id, l.replica})
		}
	}
	return all
}

// retire has hosts go to the other node; it tells whether they have.
func (k *Keeper) retire(l *lun) (gone bool) {
	now := k.cfg.Runtime.Now()
	switch begun := !l.retires.IsZero(); {
	case !begun && l.role.Serve != failover.Together: // it has left already, or the other node is not there
	case !begun:
		l.retires = now.Add(k.cfg.DrainGrace)
		k.cfg.Log.Info("the LUN is left to the other site: its hosts are told to prefer that one", "lun", l.catalog.Name)
	case now.Before(l.retires):
	case l.role.Serve == failover.Together:
		k.cfg.Log.Info("hosts of the LUN have to go to the other site now", "lun", l.catalog.Name)
		l.retired = true
		k.setRole(l, l.given)
	case l.role.Serve == failover.ByItself:
		k.stay(l) // the other site has gone meanwhile
	default:
		return true
	}
	return false
}

// stay takes back what was begun.
func (k *Keeper) stay(l *lun) {
	l.retires = time.Time{}
	if l.retired {
		l.retired = false
		k.setRole(l, l.given)
	}
}

// leave has this node leave a LUN to the other one, which was told of all that it needs.
func (k *Keeper) leave(id catalog.UUID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l := k.luns[id]; l != nil && l.pair != nil && l.retired {
		k.step(l.pair, failover.Drained{LUN: id})
	}
}
