package roles

import (
	"context"
	"fmt"
	"time"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/failover"
	"github.com/twinlun/twinlun/replication/coherence"
)

// Outlook is what a node knows of a LUN that it may be forced to serve alone.
type Outlook struct {
	LUN     catalog.LUN // as the catalog has it
	Role    failover.Role
	Peer    catalog.NodeID // with the other replica; empty: there is none
	Linked  bool           // with the peer
	Heard   time.Time      // when the peer last said something; zero: not since the start of this process
	Open    bool           // this node's replica is, and works
	HasData bool           // it has been joined, or has begun the LUN's history
	Missing uint64         // extents whose newest data is, or may be, at the peer only
	Loss    catalog.LossPolicy
}

// Outlook is that of a LUN now.
func (k *Keeper) Outlook(id catalog.UUID) (Outlook, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.luns[id]
	if l == nil {
		return Outlook{}, fmt.Errorf("LUN %v has no replica at this node", id)
	}
	o := Outlook{LUN: l.catalog, Role: l.role, Open: l.fit(), Loss: k.lossOf(l, l.role)}
	if p := l.pair; p != nil {
		o.Peer, o.Linked, o.Heard = p.peer, p.conn != nil, p.heard
	}
	if o.Open {
		o.HasData, o.Missing = l.replica.Standing().HasData, l.replica.Missing()
	}
	return o, nil
}

// Unforced is why a node must not be forced to serve a LUN alone, and what to do instead;
// empty: it may. majority, which is asked only if it matters, tells whether the nodes can
// agree on anything.
func (o *Outlook) Unforced(self catalog.NodeID, majority func() bool) (why, hint string) {
	l := &o.LUN
	switch {
	case o.Peer == "":
		return fmt.Sprintf("LUN %s has one replica: nobody else can serve it", l.Name), ""
	case !o.Open:
		return fmt.Sprintf("the replica of LUN %s at node %s is not open, or has failed", l.Name, self), "twinlun status tells why"
	case !o.HasData:
		return fmt.Sprintf("the replica of LUN %s at node %s is new: it has no data yet", l.Name, self), "bring the other replica back"
	case o.Role.Forced && o.Role.Serve == failover.None:
		return fmt.Sprintf("node %s was forced to serve LUN %s before, when others did; they go on", self, l.Name), "wait until the two replicas have been joined"
	case o.Role.Forced:
		return "", "" // another loss policy, perhaps
	case o.Role.Free:
		return fmt.Sprintf("node %s serves LUN %s alone already", self, l.Name), ""
	case !majority():
		return "", ""
	case l.Serves(self):
		return fmt.Sprintf("a majority of the nodes is there: node %s needs no force", self), "they decide within seconds who serves alone"
	case o.Linked:
		return fmt.Sprintf("node %s serves LUN %s, and is there", o.Peer, l.Name), "drain its site, if this one is to serve; or stop that node first, if its replica is lost"
	}
	return "", "" // the other one, which served alone, is gone, and nobody can take over from it
}

// Heard is when another node that shares LUNs with this one last said something; zero: not
// since the start of this process.
func (k *Keeper) Heard(node catalog.NodeID) time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	if p := k.pairs[node]; p != nil {
		return p.heard
	}
	return time.Time{}
}

// forcing is how often Force looks whether the node serves.
const forcing = 10 * time.Millisecond

// Force has this node serve a LUN alone by the word of an operator, whatever the other node
// and the cluster say, and returns when it does. loss is what becomes of data that only the
// other replica has, until the cluster has agreed to this; empty: as the catalog says. It
// may be called again with another one.
func (k *Keeper) Force(ctx context.Context, id catalog.UUID, loss catalog.LossPolicy) error {
	if err := k.force(id, loss); err != nil {
		return err
	}
	for !k.servesAlone(id) {
		if err := k.cfg.Runtime.Sleep(ctx, forcing); err != nil {
			return fmt.Errorf("wait until LUN %v is served: %w", id, err)
		}
	}
	return nil
}

// servesAlone tells whether hosts of a LUN are answered by this node alone. Its replica may
// follow a role a little later: once it has noted it durably.
func (k *Keeper) servesAlone(id catalog.UUID) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.luns[id]
	return l != nil && l.role.Free && l.lease.Holds() && l.replica != nil && l.replica.Status().Serving
}

func (k *Keeper) force(id catalog.UUID, loss catalog.LossPolicy) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.luns[id]
	switch {
	case l == nil || l.pair == nil:
		return fmt.Errorf("LUN %v is not one of two replicas at this node", id)
	case !l.fit():
		return fmt.Errorf("the replica of LUN %s at this node is not open, or has failed", l.catalog.Name)
	case !l.replica.Standing().HasData:
		return fmt.Errorf("LUN %s: %w", l.catalog.Name, coherence.ErrNoData)
	}
	l.loss = loss
	if m := k.memos[id]; m.What == failover.Forced {
		k.remember(nil, l, m.plain())
		k.setRole(l, l.given)
		return nil
	}
	k.step(l.pair, failover.Force{LUN: id, Epoch: k.newEpoch(), Heard: l.replica.Standing().Term})
	return nil
}

// lossOf is the loss policy of a LUN in a role.
func (k *Keeper) lossOf(l *lun, r failover.Role) catalog.LossPolicy {
	if r.Forced && l.loss != "" {
		return l.loss
	}
	return l.catalog.Loss
}

// judged adds to a word what the catalog says of the term in which the replica is.
func (k *Keeper) judged(l *lun, w coherence.Role) coherence.Role {
	s := l.replica.Standing()
	if _, forked := l.catalog.Descends(catalog.Epoch{Term: s.Term, ID: s.ID}); forked && !w.Forced {
		w.Fork = s.ID
	}
	return w
}
