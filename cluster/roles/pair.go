package roles

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/failover"
	"github.com/twinlun/twinlun/replication"
	"github.com/twinlun/twinlun/replication/wire"
)

// pair is this node and another one with which it shares LUNs. The Keeper's lock guards
// it, but for end.
type pair struct {
	k       *Keeper
	peer    catalog.NodeID
	machine *failover.Machine
	conn    replication.LinkConn // nil: the link is down
	end     atomic.Int64         // of the lease, a failover.Time
	heard   time.Time            // when it last said something
	under   [4]bool              // a proposal of this failover.Kind is under way
}

// pairWith finds or makes the pair with a node; "": there is none.
func (k *Keeper) pairWith(peer catalog.NodeID) *pair {
	if peer == "" {
		return nil
	}
	p := k.pairs[peer]
	if p == nil {
		p = &pair{k: k, peer: peer, machine: failover.New(failover.Config{
			Self: k.cfg.Self, Peer: peer, Life: k.cfg.Random(), Start: k.cfg.Clock(), Grace: failover.Time(bootGrace),
		})}
		k.pairs[peer] = p
	}
	return p
}

// Beats takes the heartbeats of the link with a node.
func (k *Keeper) Beats(peer catalog.NodeID) replication.Beats {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.pairWith(peer)
}

// applied is the event that the catalog has come so far.
func (p *pair) applied(s *catalog.State, changed []catalog.LUN, gone []catalog.UUID) failover.Applied {
	return failover.Applied{
		Index: s.Index(), Decided: s.Decided(), Settings: s.Settings(), Longest: s.LongestLease(), LUNs: changed, Gone: gone,
	}
}

// Up implements replication.Beats.
func (p *pair) Up(c replication.LinkConn) {
	p.k.mu.Lock()
	defer p.k.mu.Unlock()
	p.conn = c
	p.k.step(p, failover.Linked{})
}

// Down implements replication.Beats.
func (p *pair) Down(c replication.LinkConn) {
	p.k.mu.Lock()
	defer p.k.mu.Unlock()
	if p.conn == c {
		p.conn = nil
	}
}

// Beat implements replication.Beats.
func (p *pair) Beat(c replication.LinkConn, m wire.Message) {
	p.k.mu.Lock()
	defer p.k.mu.Unlock()
	if p.conn != c {
		return
	}
	p.heard = p.k.cfg.Runtime.Now()
	switch m := m.(type) {
	case *wire.LeaseRequest:
		p.k.step(p, failover.Asked{Request: failover.Request{Life: m.Life, Seq: m.Seq}})
	case *wire.LeaseGrant:
		p.k.step(p, failover.Granted{Grant: failover.Grant{
			Life: m.Life, Seq: m.Seq, Applied: m.Applied, Decided: m.Decided, Lease: catalog.Duration(min(m.Lease, uint64(maxLease))),
		}})
	}
}

// maxLease bounds what a node takes for a lease, whatever it is told.
const maxLease = catalog.Duration(1 << 40)

// step has something happen to a pair's Machine, and does what it says.
func (k *Keeper) step(p *pair, e failover.Event) {
	for _, a := range p.machine.Step(k.cfg.Clock(), e) {
		k.act(p, a)
	}
}

func (k *Keeper) act(p *pair, a failover.Action) {
	switch a := a.(type) {
	case failover.Ask:
		p.send(&wire.LeaseRequest{Life: a.Request.Life, Seq: a.Request.Seq})
	case failover.Answer:
		g := a.Grant
		p.send(&wire.LeaseGrant{Life: g.Life, Seq: g.Seq, Applied: g.Applied, Decided: g.Decided, Lease: uint64(g.Lease)})
	case failover.SetLease:
		p.end.Store(int64(a.Until))
	case failover.SetRole:
		if l := k.luns[a.LUN]; l != nil && l.pair == p {
			k.tell(l, a.Role)
			k.setRole(l, a.Role)
		}
	case failover.Remember:
		if l := k.luns[a.LUN]; l != nil {
			k.remember(p, l, a.Memo)
		}
	case failover.Propose:
		k.propose(p, a)
	}
}

func (p *pair) send(m wire.Message) {
	if p.conn != nil && p.conn.Features()&wire.FeatureLease != 0 {
		p.conn.SendControl(0, m)
	}
}

// tell tells the operator what becomes of a LUN.
func (k *Keeper) tell(l *lun, r failover.Role) {
	if r.Serve == l.role.Serve && r.Term == l.role.Term && r.Free == l.role.Free && r.Forced == l.role.Forced {
		return
	}
	what := "the other site serves the LUN alone"
	switch {
	case r.Forced && r.Serve == failover.None:
		what = "this site was forced to serve the LUN alone, but others did meanwhile: it stops, and what it wrote will be salvaged"
	case r.Forced:
		what = "this site serves the LUN alone by the word of an operator; nobody has agreed to that yet"
	case r.Serve == failover.Together:
		what = "both sites serve the LUN"
	case r.Free:
		what = "this site serves the LUN alone"
	case r.Serve == failover.ByItself:
		what = "this site is to serve the LUN alone, as soon as the other one surely does not any more"
	}
	k.cfg.Log.Info(what, "lun", l.catalog.Name, "term", r.Term, "peer", l.pair.peer)
}

// propose proposes what a Machine wants, unless the same is under way. What is tied to a
// link that has broken meanwhile is not proposed any more; and no node proposes to serve
// alone what it cannot serve.
func (k *Keeper) propose(p *pair, a failover.Propose) {
	steps := catalog.Steps{Node: k.cfg.Self, Epoch: k.newEpoch()}
	for _, s := range a.LUNs {
		l := k.luns[s.LUN]
		if l == nil || a.Kind == failover.JoinBoth && l.apart || a.Kind == failover.TakeAlone && !l.fit() {
			continue
		}
		steps.LUNs = append(steps.LUNs, s)
	}
	if len(steps.LUNs) == 0 || p.under[a.Kind] {
		return
	}
	p.under[a.Kind] = true
	bodies := k.bodiesOf(a.Kind, steps)
	k.spawn("propose", func() { k.proposed(p, a.Kind, bodies) })
}

// bodiesOf are the commands of a proposal: one, but that each LUN which this node was forced
// to serve has a term with a name of its own.
func (k *Keeper) bodiesOf(kind failover.Kind, steps catalog.Steps) (all []catalog.Body) {
	if kind != failover.ForceAlone {
		return []catalog.Body{bodyOf(kind, steps)}
	}
	for _, s := range steps.LUNs {
		all = append(all, &catalog.ForceAlone{Steps: catalog.Steps{Node: steps.Node, Epoch: k.memos[s.LUN].ID, LUNs: []catalog.Step{s}}})
	}
	return all
}

func (k *Keeper) newEpoch() (id catalog.UUID) {
	for i := range id {
		if i%8 == 0 {
			v := k.cfg.Random() | 1
			for j := range 8 {
				id[i+j] = byte(v >> (8 * j))
			}
		}
	}
	return id
}

func bodyOf(kind failover.Kind, steps catalog.Steps) catalog.Body {
	switch kind {
	case failover.TakeAlone:
		return &catalog.TakeAlone{Steps: steps}
	case failover.JoinBoth:
		return &catalog.JoinBoth{Steps: steps}
	case failover.Leave:
		return &catalog.Leave{Steps: steps}
	}
	panic(fmt.Sprintf("roles: a proposal of kind %d", kind))
}

// proposed is the task of a proposal.
func (k *Keeper) proposed(p *pair, kind failover.Kind, bodies []catalog.Body) {
	for _, body := range bodies {
		inTime, err := k.proposeOne(body)
		if err != nil && k.ctx.Err() == nil {
			k.cfg.Log.Info("who serves is not agreed upon yet", "proposal", body.Kind(), "peer", p.peer, "err", err)
		}
		if !inTime {
			break // the others would wait as long
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	p.under[kind] = false
}

func (k *Keeper) proposeOne(body catalog.Body) (inTime bool, err error) {
	ctx, cancel := k.within(proposing)
	defer cancel(nil)
	err = k.cfg.Propose(ctx, body)
	return ctx.Err() == nil, err
}

// within is a context that ends with the Keeper, or after a time by the Keeper's runtime.
func (k *Keeper) within(d time.Duration) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(k.ctx)
	k.spawn("limit", func() {
		if k.cfg.Runtime.Sleep(ctx, d) == nil {
			cancel(context.DeadlineExceeded)
		}
	})
	return ctx, cancel
}
