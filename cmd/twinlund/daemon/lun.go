package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twinlun/twinlun/cluster/roles"
	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/dirtymap/mapfile"
	"github.com/twinlun/twinlun/replication"
	"github.com/twinlun/twinlun/target/sanitize"
	"github.com/twinlun/twinlun/target/scsi"
	"github.com/twinlun/twinlun/target/volume"
	"github.com/twinlun/twinlun/task"
)

// tryAgain is how long a LUN waits after it could not be opened anew, or not made
// larger: for an operator who makes room, say.
const tryAgain = 10 * time.Second

// lun is a LUN of this node. It is opened, begins to serve with start, and may be
// opened anew any number of times, to grow.
type lun struct {
	// Fixed by newLUN.
	cluster   *cluster // nil: one of a pair
	place     string   // name of this node
	boot      [16]byte
	rate      int64
	window    int64
	log       *slog.Logger
	vol       *volume.LUN
	space     space
	resized   func() // what to do when it has grown; set before start
	device    *scsi.Device
	sanitizer *sanitize.Sanitizer // set before hosts see the LUN
	solid     atomic.Bool         // what every replica is told (replication.Replica.Solid)
	ctx       context.Context
	cancel    context.CancelCauseFunc
	tasks     sync.WaitGroup // grow

	changing  sync.Mutex        // held while the replica is closed and opened anew, or moved
	closed    bool              // under changing
	node      *replication.Node // under changing
	preferred bool              // see firstOf; under changing, from start on

	lease *roles.Lease // in a cluster; set by the first open

	mu struct {
		sync.Mutex
		cfg     config.LUN
		replica *replication.Replica
		files   *files // replica's
	}
}

// newLUN opens a LUN, or makes it if it is not there yet.
func (d *Daemon) newLUN(cfg *config.Config, c config.LUN) (*lun, error) {
	l := &lun{
		cluster: d.cluster, place: cfg.Node, node: d.nodeOf(&c), device: d.device, preferred: firstOf(cfg, &c), boot: d.boot,
		rate: cfg.Peer.CopyRate, window: copyWindow(len(cfg.LUNs)), log: d.log.With("lun", c.Number, "name", c.Name),
	}
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	l.mu.cfg = c
	r, err := l.open(0, nil)
	if err != nil {
		return nil, fmt.Errorf("LUN %d (%s): %w", c.Number, c.Name, err)
	}
	l.vol = volume.NewLUN(l.volume(r))
	return l, nil
}

// firstOf tells which of a LUN's two nodes has its way where they are equal (coherence):
// in a pair the preferred one; in a cluster, where that may change, the one whose name
// sorts first.
func firstOf(cfg *config.Config, c *config.LUN) bool {
	if cfg.Cluster == nil {
		return c.Preferred == cfg.Node
	}
	return c.Peer == "" || cfg.Node < c.Peer
}

// volume is what hosts use of a replica.
func (l *lun) volume(r *replication.Replica) *volume.Volume {
	if l.lease == nil {
		return volume.New(r)
	}
	return volume.NewLeased(r, l.lease)
}

// start puts the LUN's replica on the link. If the LUN is to be larger than it is, it
// grows from then on.
func (l *lun) start() error {
	l.changing.Lock()
	defer l.changing.Unlock()
	if err := l.node.Add(l.replica()); err != nil {
		return err
	}
	l.spawn(l.grow)
	return nil
}

// spawn runs a task of the LUN, unless that is being closed.
func (l *lun) spawn(task func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() == nil {
		l.tasks.Go(task)
	}
}

func (l *lun) config() config.LUN {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.cfg
}

func (l *lun) replica() *replication.Replica {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.replica
}

// close stops the LUN in order.
func (l *lun) close() error {
	l.mu.Lock()
	l.cancel(replication.ErrReplicaClosed)
	l.mu.Unlock()
	l.tasks.Wait()
	if l.sanitizer != nil {
		l.sanitizer.Close()
	}
	l.changing.Lock()
	defer l.changing.Unlock()
	l.closed = true
	l.vol.End()
	r := l.replica()
	l.node.Remove(r)
	err := r.Close()
	l.detach(r)
	return err
}

// open opens the replica; want is how large the LUN may grow, before the replica that
// was open last.
func (l *lun) open(want int64, before *replication.Replica) (*replication.Replica, error) {
	c := l.config()
	f, err := openFiles(&c, l.boot)
	if err != nil {
		return nil, err
	}
	rc := replication.ReplicaConfig{
		Number: uint32(c.Number), UUID: c.UUID, Preferred: l.preferred,
		Geometry: dirtymap.Geometry{Size: f.size, ExtentSize: c.ExtentSize}, BlockSize: c.BlockSize,
		Store: f.store, MapFile: f.file, Journal: f.journal,
		Boot: l.boot, Proposal: random(), ColdAfter: c.ColdAfter, ServeStale: c.ServeStale,
		Want: max(want, f.size), Grow: l.growTo, Before: before,
		Twin:     hearer{l.device, c.Number},
		Verified: l.verified,
		CopyRate: l.rate, CopyWindow: l.window,
		Runtime: task.System, Log: l.log,
	}
	l.inCluster(&rc, &c)
	r, err := replication.OpenReplica(rc)
	if err != nil {
		return nil, errors.Join(err, f.close())
	}
	if err := l.attach(r); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	l.mu.Lock()
	l.mu.replica, l.mu.files = r, f
	l.mu.Unlock()
	r.Solid(l.solid.Load()) // after it can be found: who changes that meanwhile tells it, too
	return r, nil
}

// copyWindow is what a LUN may have in flight on a bulk stream, in bytes: 16 MiB, and
// less if there are so many LUNs that together they would fill the link's queue.
func copyWindow(luns int) int64 { return min(16<<20, 128<<20/int64(luns)) }

// become takes what the LUN is to be. What differs in its replica counts when that is
// opened the next time.
func (l *lun) become(c config.LUN) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.cfg = c
}

// move has another node lead the LUN's replica to its peer, with which it has its way or not.
func (l *lun) move(node *replication.Node, first bool) {
	l.changing.Lock()
	defer l.changing.Unlock()
	if l.closed {
		return
	}
	r := l.replica()
	l.node.Remove(r)
	l.node, l.preferred = node, first
	r.Prefer(first)
	if err := node.Add(r); err != nil {
		l.log.Error("the LUN is not linked with its peer", "err", err)
	}
}

// grow makes room for the LUN's size at this node, and tells the peer, until it is
// done or the LUN is closed. It is a task; when the peer has room too, growTo follows.
func (l *lun) grow() {
	for l.ctx.Err() == nil {
		size, err := l.makeRoom()
		if err == nil {
			if size > 0 {
				l.reopen(0, size)
			}
			return
		}
		l.log.Error("cannot make room for the LUN to grow", "err", err, "next try", tryAgain)
		l.pause()
	}
}

func (l *lun) pause() {
	t := time.NewTimer(tryAgain)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.ctx.Done():
	}
}

// zeroStep is how much of the room is zeroed at once, in bytes: some disks are no
// faster than 100 MB/s, and whoever opens the replica anew has to wait for it.
const zeroStep = 32 << 20

// makeRoom makes the replica's file larger, or uses more of its device, and zeroes what
// is new; the LUN goes on meanwhile. It returns the size that there is room for; 0: the
// LUN has it already.
func (l *lun) makeRoom() (int64, error) {
	l.mu.Lock()
	size, f := l.mu.cfg.Size, l.mu.files
	l.mu.Unlock()
	if size <= f.size {
		return 0, nil
	}
	err := l.prepare(f, func() error {
		if f.store.Size() >= size {
			return nil
		}
		return f.store.Grow(size)
	})
	for at := f.size; at < size && err == nil; at += zeroStep {
		err = l.prepare(f, func() error { return f.store.Zero(at, min(zeroStep, size-at)) })
	}
	if err == nil {
		err = l.prepare(f, f.store.Sync)
	}
	return size, err
}

// prepare takes a step in the room behind the end of the LUN, whose files are f. When
// they have been opened anew, some of that may be the LUN's.
func (l *lun) prepare(f *files, step func() error) error {
	l.changing.Lock()
	defer l.changing.Unlock()
	l.mu.Lock()
	current := l.mu.files == f
	l.mu.Unlock()
	if err := context.Cause(l.ctx); err != nil {
		return err
	}
	if l.closed || !current {
		return errors.New("the replica was opened anew meanwhile")
	}
	return step()
}

// growTo makes the map larger, to size bytes: the peer has room too. It is what a
// replica calls that wants to grow. If there is to be more, the peer hears of it anew.
func (l *lun) growTo(size int64) {
	l.reopen(size, size)
	if l.config().Size > size {
		l.spawn(l.grow)
	}
}

// reopen closes the replica, makes its map as large as mapped, if that is larger, and
// opens it again with room for want bytes. Host commands wait meanwhile. What fails is
// tried again: a LUN that is in use must not end because a disk was full for a while.
func (l *lun) reopen(mapped, want int64) {
	l.changing.Lock()
	defer l.changing.Unlock()
	if l.closed {
		return
	}
	before := l.replica()
	l.node.Remove(before)
	if err := before.Close(); err != nil {
		l.log.Error("the replica did not stop in order", "err", err)
		before = nil
	}
	was := l.vol.Size()
	for l.ctx.Err() == nil {
		r, err := l.openLarger(mapped, want, before)
		if err == nil {
			l.vol.Replace(l.volume(r))
			err = l.node.Add(r)
		}
		if err == nil {
			break
		}
		l.log.Error("cannot open the replica anew; host commands wait", "err", err, "next try", tryAgain)
		l.pause()
	}
	if now := l.vol.Size(); now > was {
		l.log.Info("the LUN has grown", "from", was, "to", now)
		l.resized()
	}
}

// openLarger is open with a larger map. If it cannot be made larger, the LUN goes on
// as it is, and tries later.
func (l *lun) openLarger(mapped, want int64, before *replication.Replica) (*replication.Replica, error) {
	c := l.config()
	if mapped > 0 {
		if err := mapfile.GrowOS(c.Map, c.UUID, mapped); err != nil {
			l.log.Error("cannot make the map file larger", "err", err, "next try", tryAgain)
			want = 0
			l.spawn(func() {
				l.pause()
				l.grow()
			})
		}
	}
	return l.open(want, before)
}
