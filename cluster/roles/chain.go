package roles

import (
	"fmt"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/failover"
	"github.com/twinlun/twinlun/replication"
)

// remedy is what an operator can do about a replica that is not up to date.
const remedy = "nothing of it is used, and the other replica goes on. If an old disk or a copy was put in its place, bring the right one back. " +
	"If there is none, move its map file away, or remove the replica (twinlun lun replica remove) and add it again with a new file: it then starts as new"

// astray says why a replica cannot be taken for this LUN's present one; nil: it can, as far
// as the catalog knows. A term that the catalog does not know yet is not judged.
func astray(c *catalog.LUN, s replication.Standing) error {
	switch {
	case !s.HasData:
		return nil // it is new
	case s.Join < c.Join:
		return fmt.Errorf("the replica of LUN %s is an older copy: its last join is number %d, and number %d was durable at both; %s", c.Name, s.Join, c.Join, remedy)
	case s.Term == 0 || s.Term > c.Term:
		return nil
	}
	if known, _ := c.Descends(catalog.Epoch{Term: s.Term, ID: s.ID}); !known {
		return fmt.Errorf("the replica of LUN %s was served last in term %d (%v), which the history of the LUN does not have: it is of another history, or from before the last %d terms; %s",
			c.Name, s.Term, catalog.UUID(s.ID), catalog.MaxChain, remedy)
	}
	return nil
}

// astray judges a replica of this node. What an operator has forced it to serve is not
// judged before the cluster has decided about that.
func (k *Keeper) astray(l *lun, r *replication.Replica) error {
	if k.memos[l.id].What == failover.Forced {
		return nil
	}
	return astray(&l.catalog, r.Standing())
}

// check takes a replica out of service that the catalog is found not to have.
func (k *Keeper) check(l *lun) {
	if l.replica == nil || l.replica.Fault() != nil {
		return
	}
	if err := k.astray(l, l.replica); err != nil {
		l.lease.set(failover.Hold)
		l.replica.Break(err)
	}
}

// Judge returns what says of a peer's replica of a LUN, as it greets, why it cannot be joined
// (replication.ReplicaConfig.Judge): the peer may know less of the catalog than this node.
func (k *Keeper) Judge(id catalog.UUID) func(term uint64, epoch [16]byte, fork bool) (reason string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.luns[id]
	if l == nil {
		return nil
	}
	return func(term uint64, epoch [16]byte, fork bool) string {
		return strange(l.current.Load(), catalog.Epoch{Term: term, ID: epoch}, fork)
	}
}

// strange is why the history of a LUN does not have the peer's replica in a term; fork: it
// says itself that it has lost.
func strange(c *catalog.LUN, e catalog.Epoch, fork bool) string {
	if e.Term == 0 || e.Term > c.Term {
		return "" // this node does not know yet
	}
	switch known, forked := c.Descends(e); {
	case !known:
		return fmt.Sprintf("the peer's replica of LUN %s was served last in term %d (%v), which the history of the LUN does not have; %s", c.Name, e.Term, e.ID, remedy)
	case forked && !fork:
		return fmt.Sprintf("the peer was forced to serve LUN %s in term %d, when others did, and has not heard that it was too late", c.Name, e.Term)
	}
	return ""
}
