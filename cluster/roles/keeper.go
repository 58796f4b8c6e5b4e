package roles

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/failover"
	"github.com/twinlun/twinlun/replication"
	"github.com/twinlun/twinlun/replication/coherence"
	"github.com/twinlun/twinlun/target/keep"
	"github.com/twinlun/twinlun/task"
)

// Config says what a Keeper works with.
type Config struct {
	Self catalog.NodeID
	// Path is the file with the memos.
	Path string
	// Propose has the cluster agree on a command, or returns an error; it may take until
	// ctx ends. What comes of it arrives by Apply.
	Propose func(ctx context.Context, body catalog.Body) error
	// Changed is called, under the Keeper's lock, when a LUN is served in another way. It
	// must not block, nor call the Keeper. nil: nobody wants to know.
	Changed func(lun catalog.UUID, role failover.Role)

	// DrainGrace is how long hosts of a LUN that is drained have to find their other paths;
	// 0: 6 s.
	DrainGrace time.Duration

	Clock   func() failover.Time     // nil: BootTime
	Runtime task.Runtime             // nil: task.System
	Random  func() uint64            // nil: crypto/rand
	Read    func() ([]byte, error)   // the memo file, fs.ErrNotExist: there is none; nil: that of Path
	Write   func(memos []byte) error // replaces the memo file durably; nil: that of Path
	Log     *slog.Logger             // nil: slog.Default()
}

const (
	// ticksPerBeat is how often a Machine is told the time, in a heartbeat.
	ticksPerBeat = 4
	// bootGrace is what a node that was just started gives the other one to appear, before
	// it proposes to serve alone: two machines that get their power back at once are not
	// equally quick, and each take-over costs a join. Hosts wait as long if the other one is
	// really down, so it stays well below the 30 s after which initiators give up.
	bootGrace = 10 * time.Second
	// proposing bounds a proposal. The Machine comes with it again.
	proposing = 5 * time.Second
	// rewrite is the pause after memos could not be written.
	rewrite = time.Second
	// unfitTime is how long a replica may be missing, or broken, until the LUN is left to
	// the other node, which waits for this one: longer than it takes to open one.
	unfitTime = 5 * time.Second
)

// Keeper lets a node serve as the cluster decides.
type Keeper struct {
	// Fixed by New.
	cfg    Config
	ctx    context.Context
	cancel context.CancelCauseFunc
	wake   task.Signal // of run
	dirty  task.Signal // of write
	tasks  sync.WaitGroup

	mu sync.Mutex // never held across anything that blocks

	// Under mu.
	state *catalog.State // nil: nothing was applied yet
	pairs map[catalog.NodeID]*pair
	luns  map[catalog.UUID]*lun
	memos map[catalog.UUID]memo // as they are to be
	disk  map[catalog.UUID]memo // as they are
	queue []written             // to be written, in order
}

// written is a memo on its way to the disk, and who waits for that.
type written struct {
	lun  catalog.UUID
	memo memo
	pair *pair // nil: nobody
}

// lun is a LUN of which this node has, or is to have, a replica.
type lun struct {
	id      catalog.UUID
	catalog catalog.LUN
	current atomic.Pointer[catalog.LUN] // the same, for Judge
	pair    *pair                       // nil: this node has the only replica
	given   failover.Role               // by the Machine
	role    failover.Role               // in force
	replica *replication.Replica        // nil: it is not open
	apart   bool                        // a Tied role found the replicas parted, and the Machine has not heard of it
	joined  bool                        // as the Machine knows it
	join    uint64
	unfit   time.Time          // since when there is no replica that works; zero: there is one
	retires time.Time          // it is drained: when hosts are sent to the other node; zero: it is not
	retired bool               // they were: this node answers none, and does what it owes the other one
	wait    catalog.Duration   // the setting HoldWait, as the replica knows it
	loss    catalog.LossPolicy // that an operator has given who had this node serve alone; empty: that of the catalog
	lease   Lease
}

// New makes a Keeper that serves nothing until it is told of the catalog (Apply).
func New(cfg Config) (*Keeper, error) {
	if cfg.Clock == nil {
		cfg.Clock = BootTime
	}
	if cfg.Runtime == nil {
		cfg.Runtime = task.System
	}
	if cfg.Random == nil {
		cfg.Random = random
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.DrainGrace == 0 {
		cfg.DrainGrace = drainGrace
	}
	if cfg.Read == nil {
		cfg.Read = func() ([]byte, error) { return keep.Read(cfg.Path, maxMemos) }
	}
	if cfg.Write == nil {
		cfg.Write = func(p []byte) error { return keep.Replace(cfg.Path, p) }
	}
	disk, err := readMemos(cfg.Path, cfg.Read)
	if err != nil {
		return nil, err
	}
	k := &Keeper{cfg: cfg, wake: cfg.Runtime.NewSignal(), dirty: cfg.Runtime.NewSignal(),
		pairs: map[catalog.NodeID]*pair{}, luns: map[catalog.UUID]*lun{}, memos: maps.Clone(disk), disk: disk}
	k.ctx, k.cancel = context.WithCancelCause(context.Background())
	k.spawn("roles", k.run)
	k.spawn("memos", k.write)
	k.spawn("drain", k.drain)
	return k, nil
}

func random() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint64(b[:])
}

func (k *Keeper) spawn(name string, f func()) {
	k.tasks.Add(1)
	k.cfg.Runtime.Go(name, func() {
		defer k.tasks.Done()
		f()
	})
}

// ErrClosed: the Keeper was closed.
var ErrClosed = errors.New("this node has stopped to serve")

// Close ends everything. Leases stay as they are: close the volumes first.
func (k *Keeper) Close() {
	k.cancel(ErrClosed)
	k.tasks.Wait()
}

// Apply takes a new state of the catalog, before anything else of this node learns of it.
// The result is that of the command that led there; a zero one: what lies between this
// state and the last one is not known.
func (k *Keeper) Apply(s *catalog.State, r catalog.Result) {
	k.mu.Lock()
	defer k.mu.Unlock()
	changed := k.state == nil || len(r.Changes) == 0 && r.Command.Body == nil || slices.ContainsFunc(r.Changes, matters)
	k.state = s
	if changed {
		k.follow()
		return
	}
	for _, p := range k.sortedPairs() {
		k.step(p, p.applied(s, nil, nil))
	}
}

// matters tells the changes that roles depend on.
func matters(c catalog.Change) bool {
	switch c.(type) {
	case catalog.ServingChanged, catalog.LUNChanged, catalog.ClusterChanged, catalog.NodeChanged:
		return true
	}
	return false
}

// follow compares all LUNs of this node with what the catalog says.
func (k *Keeper) follow() {
	changed, gone := map[*pair][]catalog.LUN{}, map[*pair][]catalog.UUID{}
	there := map[catalog.UUID]bool{}
	for l := range k.state.LUNs() {
		if l.Has(k.cfg.Self) {
			there[l.ID] = true
			k.place(l, changed, gone)
		}
	}
	for _, id := range k.sortedLUNs() {
		if l := k.luns[id]; !there[id] {
			if l.pair != nil {
				gone[l.pair] = append(gone[l.pair], id)
			}
			k.setRole(l, failover.Role{Term: l.role.Term})
			k.forget(id)
		}
	}
	for _, p := range k.sortedPairs() {
		k.step(p, p.applied(k.state, changed[p], gone[p]))
	}
	for _, id := range k.sortedLUNs() {
		if l := k.luns[id]; l.pair == nil {
			k.single(l)
		}
	}
}

// place puts a LUN with the pair that it belongs to now.
func (k *Keeper) place(c catalog.LUN, changed map[*pair][]catalog.LUN, gone map[*pair][]catalog.UUID) {
	l := k.luns[c.ID]
	if l == nil {
		l = &lun{id: c.ID, loss: k.memos[c.ID].Loss}
		l.lease.clock = k.cfg.Clock
		k.luns[c.ID] = l
	}
	was := l.pair
	known := l.catalog.Term == c.Term && l.catalog.Preferred == c.Preferred && slices.Equal(l.catalog.Forks, c.Forks) && was != nil
	wait := k.state.Settings().HoldWait
	policy := l.catalog.Loss != c.Loss || l.wait != wait
	l.catalog, l.wait = c, wait
	l.current.Store(&c)
	k.check(l)
	l.pair = k.pairWith(c.Other(k.cfg.Self))
	if was != l.pair {
		if was != nil {
			gone[was] = append(gone[was], c.ID)
		}
		l.joined, known = false, false
		l.lease.set(failover.Hold)
		l.lease.end.Store(nil)
		if l.pair != nil {
			l.lease.end.Store(&l.pair.end)
			k.step(l.pair, failover.Known{LUN: c.ID, Memo: k.disk[c.ID].plain()})
		}
	}
	if l.pair != nil && !known {
		changed[l.pair] = append(changed[l.pair], c)
	}
	if policy && l.role.Term == c.Term {
		k.setRole(l, l.given)
	}
}

// single is how a LUN is served that has one replica: nobody else can.
func (k *Keeper) single(l *lun) {
	r := failover.Role{Term: l.catalog.Term}
	if l.catalog.Serves(k.cfg.Self) {
		r = failover.Role{Term: l.catalog.Term, Serve: failover.ByItself, When: failover.Always, Free: true}
		k.remember(nil, l, failover.Memo{Term: r.Term, What: failover.Alone})
	}
	if r != l.given {
		k.setRole(l, r)
	}
}

// forget drops a LUN of which this node has no replica any more.
func (k *Keeper) forget(id catalog.UUID) {
	delete(k.luns, id)
	delete(k.memos, id)
	k.dirty.Set()
}

// setRole puts a role in force. A lease that the role before relied upon ends first.
func (k *Keeper) setRole(l *lun, r failover.Role) {
	l.lease.set(failover.Hold)
	l.given = r
	if l.retired && r.Serve == failover.Together {
		r = failover.Role{Term: r.Term}
	}
	changed := r != l.role
	l.role = r
	if changed && k.cfg.Changed != nil {
		k.cfg.Changed(l.id, r)
	}
	if l.replica == nil {
		return
	}
	joined, err := l.replica.SetRole(k.judged(l, k.wordOf(l, r)))
	switch {
	case errors.Is(err, replication.ErrReplicaClosed):
		return
	case err != nil:
		// The other node has told it of a newer term, which this one will hear of.
		k.cfg.Log.Info("a replica does not follow the cluster's word yet", "lun", l.catalog.Name, "err", err)
		return
	}
	l.apart = r.Tied && !joined
	l.lease.set(r.When)
}

// wordOf is a role as the replica takes it. A node that is alone in the set, and not free
// yet, cannot go on without the other replica: that may still be served.
func (k *Keeper) wordOf(l *lun, r failover.Role) coherence.Role {
	w := coherence.Role{Term: r.Term, ID: k.epoch(l, r.Term), Serve: coherence.ServeBoth, Forced: r.Forced, Least: l.catalog.Join}
	w.Patience = uint32(time.Duration(l.wait) * coherence.TicksPerSecond / time.Second)
	if r.Forced {
		w.ID = k.memos[l.id].ID
	}
	switch {
	case r.Serve == failover.None:
		w.Serve = coherence.ServeNone
	case r.Free:
		w.Serve = coherence.ServeAlone
	case r.Tied:
		w.Serve, w.Tied = coherence.ServeAlone, true
	}
	if k.lossOf(l, r) == catalog.ServeStale {
		w.Loss = coherence.LossServeStale
	}
	w.New = l.catalog.Term == 1 && len(l.catalog.Replicas) == 1
	return w
}

// epoch is the name of a term: as the catalog has it, or as it was when this node last
// heard of it.
func (k *Keeper) epoch(l *lun, term uint64) [16]byte {
	for _, e := range slices.Backward(l.catalog.Chain) {
		if e.Term == term {
			return e.ID
		}
	}
	if m := k.memos[l.id]; m.Term == term {
		return m.ID
	}
	return [16]byte{}
}

// Attach gives a LUN's replica its role, before the replica is linked with its peer, and
// returns the lease for its volumes. What was attached before is let go. A replica that
// cannot be the LUN's present one is refused.
func (k *Keeper) Attach(id catalog.UUID, r *replication.Replica) (*Lease, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.luns[id]
	if l == nil {
		return nil, fmt.Errorf("LUN %v has no replica at this node, as the catalog says", id)
	}
	if err := k.astray(l, r); err != nil {
		return nil, err
	}
	l.replica = r
	k.setRole(l, l.given)
	k.look()
	return &l.lease, nil
}

// Detach lets go of a replica that is being closed.
func (k *Keeper) Detach(id catalog.UUID, r *replication.Replica) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l := k.luns[id]; l != nil && l.replica == r {
		l.lease.set(failover.Hold)
		l.replica = nil
		k.look()
	}
}

// Look has the Keeper look at the replicas: one was joined, or parted. It does not block.
func (k *Keeper) Look() { k.wake.Set() }

// Role is how a LUN is served by this node.
func (k *Keeper) Role(id catalog.UUID) (r failover.Role, holds bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.luns[id]
	if l == nil {
		return r, false
	}
	return l.role, l.lease.Holds()
}

// run is the task that tells the Machines the time, and what became of the replicas.
func (k *Keeper) run() {
	for {
		if _, err := k.wake.WaitFor(k.ctx, k.tick()); err != nil {
			return
		}
		k.beat()
	}
}

// tick is how long to wait for the next.
func (k *Keeper) tick() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.state == nil {
		return time.Duration(catalog.DefaultSettings.Heartbeat) / ticksPerBeat
	}
	return time.Duration(k.state.Settings().Heartbeat) / ticksPerBeat
}

func (k *Keeper) beat() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.look()
	for _, p := range k.sortedPairs() {
		k.step(p, failover.Tick{})
	}
}

// fit tells whether a LUN has a replica that works.
func (l *lun) fit() bool { return l.replica != nil && l.replica.Fault() == nil }

// judge has a LUN left to the other node if this one cannot serve it: the other one may
// not go on alone as long as this one answers its heartbeats.
func (k *Keeper) judge(l *lun) {
	now := k.cfg.Runtime.Now()
	switch {
	case l.fit():
		l.unfit = time.Time{}
	case l.unfit.IsZero():
		l.unfit = now
	case now.Sub(l.unfit) >= unfitTime && l.given.Serve == failover.Together:
		k.cfg.Log.Error("this node has no replica of the LUN that works, and leaves it to the other one", "lun", l.catalog.Name)
		k.step(l.pair, failover.Drained{LUN: l.id})
	}
}

// look tells the Machines which replicas are joined now.
func (k *Keeper) look() {
	for _, id := range k.sortedLUNs() {
		l := k.luns[id]
		if l.pair == nil {
			continue
		}
		k.judge(l)
		join, joined := uint64(0), false
		if l.replica != nil {
			join, joined = l.replica.Joined()
		}
		joined = joined && !k.drained(l) // or both would be made to serve again
		switch {
		case joined && !(l.joined && l.join == join && !l.apart):
			l.joined, l.join, l.apart = true, join, false
			k.step(l.pair, failover.Joined{LUN: id, Join: join})
		case !joined && (l.joined || l.apart):
			l.joined, l.apart = false, false
			k.step(l.pair, failover.Parted{LUN: id})
		}
	}
}

// drained tells whether one of a LUN's nodes is to serve nothing of it.
func (k *Keeper) drained(l *lun) bool {
	return slices.ContainsFunc(l.catalog.Replicas, func(r catalog.Replica) bool { return k.state.Drained(&l.catalog, r.Node) })
}

func (k *Keeper) sortedLUNs() []catalog.UUID {
	return slices.SortedFunc(maps.Keys(k.luns), func(a, b catalog.UUID) int { return slices.Compare(a[:], b[:]) })
}

func (k *Keeper) sortedPairs() (all []*pair) {
	for _, p := range k.pairs {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *pair) int { return strings.Compare(string(a.peer), string(b.peer)) })
	return all
}
