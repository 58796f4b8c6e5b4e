package replication

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/dirtymap/mapfile"
	"github.com/twinlun/twinlun/replication/coherence"
	"github.com/twinlun/twinlun/replication/salvage"
	"github.com/twinlun/twinlun/target/backing"
	"github.com/twinlun/twinlun/target/backing/journal"
	"github.com/twinlun/twinlun/task"
)

// ErrReplicaClosed ends host commands when their replica is closed.
var ErrReplicaClosed = errors.New("the LUN is being stopped on this node")

// ReplicaConfig is what a Replica is made of.
type ReplicaConfig struct {
	Number    uint32   // of the LUN, on the link: the same at both nodes
	UUID      [16]byte // of the LUN
	Preferred bool     // this is the LUN's preferred node
	Geometry  dirtymap.Geometry
	BlockSize int64         // of the logical blocks that hosts see, bytes: 4096 or 512; 0: 512
	Store     backing.Store // the replica's bytes, at least Geometry.Size; Close closes it
	MapFile   mapfile.File  // Close closes it
	Journal   journal.File  // of atomic writes; Close closes it. nil: there are none
	Blank     bool          // every byte of Store is zero; used only if MapFile is empty

	Boot      [16]byte            // id of the running kernel (/proc/sys/kernel/random/boot_id)
	Proposal  [16]byte            // random: names the history of data if this replica begins one
	Predictor coherence.Predictor // nil: a dirtymap.Predictor
	ColdAfter time.Duration       // ownership of an extent not written for so long is given back; 0: 30 s

	// ServeStale is the operator's word for the case that the peer comes back with a
	// new replica, and had newer data: what is here may be served in its place.
	ServeStale bool

	// Judge is the engine's (coherence.Config). It is called under the replica's lock.
	Judge func(term uint64, id [16]byte, fork bool) (reason string)

	// Serve is who serves hosts until SetRole says: ServeNone in a cluster.
	Serve coherence.Serve
	// Salvage begins a file for what a join is about to give up of this replica (package
	// salvage); join is its number. nil: nothing may be given up, such a join is refused.
	Salvage func(join uint64) (salvage.File, error)
	// Place is the name of this node, as salvage files have it.
	Place string

	// Want is how large the LUN may grow at this node, in bytes, at most the size of
	// Store, which is zeros from Geometry.Size on; 0: it is not to grow. When both nodes
	// have room, Grow is called, once, in a goroutine of its own: the owner closes this
	// Replica, makes the map larger, and opens another one, with this as Before.
	Want int64
	Grow func(size int64)
	// Before is the Replica that had these files last in this process, closed without
	// an error; nil: none. It knows which blocks are dirty.
	Before *Replica

	Twin Twin // what hears the peer's Tells; nil: nothing does
	// Joined is called when the two replicas have been joined, or are not any more: see
	// Replica.Joined. It must not block, nor call the replica. nil: nobody wants to know.
	Joined func()

	// Verified is told how comparing the replicas goes (StartVerify): when the first
	// difference is found, and at the end. It must not block. nil: nobody wants to know.
	Verified func(VerifyStatus)

	CopyRate   int64 // limit of copying to the peer, bytes per second; 0: none
	CopyWindow int64 // bytes in flight on each bulk stream; 0: defaultCopyWindow

	Runtime task.Runtime
	Log     *slog.Logger // nil: slog.Default()
}

// Replica is one node's replica of a LUN: the shell around a coherence.Engine.
// The engine decides, under the lock; the tasks that DESIGN.md lists do what it
// says, and tell it how that went.
type Replica struct {
	// Fixed by OpenReplica.
	cfg    ReplicaConfig
	run    task.Runtime
	m      *dirtymap.Map
	locks  blockLocks
	log    *slog.Logger
	ctx    context.Context // ends when the replica closes: for pacing tasks
	cancel context.CancelCauseFunc
	crash  bool // the operating system went down since the map file was written
	begun  time.Time
	solid  atomic.Bool // see Solid

	file    logger
	flush   flusher
	atomic  atomicWriter
	torn    atomic.Pointer[error] // there is a half of an atomic write: nobody may read
	io      pool                  // Collect and Store: somebody waits for them
	bulk    pool                  // ReadCopy and StoreCopy
	pacing  crew                  // ticker, copier, planes
	telling telling

	era atomic.Uint64 // see Era

	mu sync.Mutex // never held across anything that blocks

	// Under mu.
	engine   *coherence.Engine
	events   []coherence.Event // for the Step loop that is running
	stepping bool
	joined   bool // as it was told to ReplicaConfig.Joined
	now      collectsNow
	ops      uint64
	requests map[uint64]*wait
	conn     LinkConn // nil: the link is down
	planes   *planesIn
	copying  copying
	storing  storing
	verify   verifying
	closing  bool
	growing  bool // Grow was called
	quiet    task.Signal
	health   health
}

// health is what the status says.
type health struct {
	since  time.Time // of serving, or not serving
	fault  error
	down   error  // why the link went down last
	alarm  string // the last one
	alarms uint64
}

// OpenReplica opens a replica: it makes a map in an empty map file, or replays the
// one that is there, and finishes atomic writes that were interrupted. With an error
// Store, MapFile and Journal stay the caller's.
func OpenReplica(cfg ReplicaConfig) (*Replica, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	file, err := openMap(cfg)
	if err != nil {
		return nil, fmt.Errorf("open LUN %d: %w", cfg.Number, err)
	}
	r := &Replica{cfg: cfg, run: cfg.Runtime, m: dirtymap.New(cfg.Geometry), begun: cfg.Runtime.Now()}
	if err := file.Fill(r.m); err != nil {
		return nil, fmt.Errorf("open LUN %d: read its map: %w", cfg.Number, err)
	}
	atomics, err := cfg.openJournal(file, r.m)
	if err != nil {
		return nil, fmt.Errorf("open LUN %d: %w", cfg.Number, err)
	}
	r.log = cfg.Log.With("lun", cfg.Number)
	meta := file.Meta()
	r.crash = !meta.Clean && meta.BootID != cfg.Boot
	if cfg.Predictor == nil {
		cfg.Predictor = dirtymap.NewPredictor(r.m)
	}
	r.ctx, r.cancel = context.WithCancelCause(context.Background())
	r.engine = coherence.New(coherence.Config{
		LUN: cfg.UUID, Preferred: cfg.Preferred, Map: r.m, Predictor: cfg.Predictor,
		RoleState: roleState(meta), Serve: cfg.Serve, Committed: meta.Join, Prepared: prepared(file), Blank: meta.Blank, Crashed: r.crash,
		Proposal: cfg.Proposal, ColdAfter: uint32(cfg.ColdAfter / tick), ServeStale: cfg.ServeStale, Judge: cfg.Judge,
		Want: cfg.Want, BlockSize: uint32(cfg.BlockSize), Kept: cfg.Before.kept(),
	})
	if cfg.Before != nil {
		r.era.Store(cfg.Before.Era())
	}
	r.start(file, atomics)
	return r, nil
}

func (c *ReplicaConfig) complete() error {
	if err := c.Geometry.Check(); err != nil {
		return fmt.Errorf("LUN %d: %w", c.Number, err)
	}
	switch size := c.Store.Size(); {
	case size < c.Geometry.Size:
		return fmt.Errorf("LUN %d is %d bytes, but its replica only %d: bring the whole replica back", c.Number, c.Geometry.Size, size)
	case c.Want != 0 && c.Want < c.Geometry.Size:
		return fmt.Errorf("LUN %d is %d bytes, and cannot be made %d: a LUN does not shrink", c.Number, c.Geometry.Size, c.Want)
	case c.Want > size:
		return fmt.Errorf("LUN %d is to grow to %d bytes, but its replica is %d", c.Number, c.Want, size)
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.ColdAfter == 0 {
		c.ColdAfter = 30 * time.Second
	}
	if c.CopyWindow == 0 {
		c.CopyWindow = defaultCopyWindow
	}
	if c.BlockSize == 0 {
		c.BlockSize = 512
	}
	return nil
}

// identity is what the map file and the planes are about.
func (c *ReplicaConfig) identity() mapfile.Identity {
	return mapfile.Identity{LUN: c.UUID, Geometry: c.Geometry, BlockSize: c.BlockSize}
}

// growLocked asks the owner for a larger Replica, once.
func (r *Replica) growLocked(size int64) {
	if r.cfg.Grow != nil && !r.growing && !r.closing {
		r.growing = true
		r.log.Info("the LUN grows", "from", r.cfg.Geometry.Size, "to", size)
		r.run.Go("grow", func() { r.cfg.Grow(size) })
	}
}

// kept is the map of a Replica that is closed, if it knew which blocks are dirty.
func (r *Replica) kept() *dirtymap.Map {
	if r == nil || r.engine.Restarted() {
		return nil
	}
	return r.m
}

// openMap opens the map file, or makes it.
func openMap(cfg ReplicaConfig) (*mapfile.Log, error) {
	id := cfg.identity()
	file, report, err := mapfile.Open(cfg.MapFile, &id)
	if errors.Is(err, mapfile.ErrEmpty) {
		cfg.Log.Info("a new map file begins", "lun", cfg.Number, "blank", cfg.Blank)
		if err = mapfile.Create(cfg.MapFile, id, 0, mapfile.Meta{BootID: cfg.Boot, Blank: cfg.Blank}); err == nil {
			file, report, err = mapfile.Open(cfg.MapFile, &id)
		}
	}
	if report.Torn > 0 {
		cfg.Log.Warn("the map file ended in an incomplete record, as after a crash; it was cut off", "lun", cfg.Number, "bytes", report.Torn)
	}
	return file, err
}

// start begins the tasks.
func (r *Replica) start(file *mapfile.Log, atomics *journal.Journal) {
	r.requests = map[uint64]*wait{}
	r.quiet = r.run.NewSignal()
	r.health.since = r.begun
	r.locks.run = r.run
	r.copying.start(r.run)
	r.storing.start(r.run)
	r.verify.wake, r.verify.last = r.run.NewSignal(), r.cfg.Before.lastVerify()
	r.pacing.start(r.run)
	r.telling.start(r.run)
	r.file.start(r, file)
	r.flush.start(r)
	r.atomic.start(r, atomics)
	r.io.start(r.run, "store", ioWorkers)
	r.bulk.start(r.run, "copy store", bulkWorkers)
	r.pacing.run("ticker", r.ticker)
	r.pacing.run("copier", r.copier)
}

// Map is the map that host commands consult.
func (r *Replica) Map() *dirtymap.Map { return r.m }

// Runtime is what the replica's tasks run on.
func (r *Replica) Runtime() task.Runtime { return r.run }

// Number is the LUN's number on the link.
func (r *Replica) Number() uint32 { return r.cfg.Number }

// tick is the time between two Ticks of the engine.
const tick = time.Second / coherence.TicksPerSecond

// ticker tells the engine the time. It ends with r.ctx.
func (r *Replica) ticker() {
	for r.run.Sleep(r.ctx, tick) == nil {
		r.step(coherence.Tick{Now: uint32(r.run.Now().Sub(r.begun)/tick) + 1})
	}
}

// step applies an event.
func (r *Replica) step(ev coherence.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stepLocked(ev)
}

// stepLocked applies an event and puts the actions that it brings on their queues,
// in order. What an action brings about at once is applied after it.
func (r *Replica) stepLocked(ev coherence.Event) {
	r.events = append(r.events, ev)
	if r.stepping {
		return
	}
	r.stepping = true
	for i := 0; i < len(r.events); i++ {
		for _, a := range r.engine.Step(r.events[i]) {
			r.actLocked(a)
		}
	}
	clear(r.events)
	r.events = r.events[:0]
	r.stepping = false
	if now := r.engine.Joined(); now != r.joined {
		r.joined = now
		if r.cfg.Joined != nil {
			r.cfg.Joined()
		}
	}
}

func (r *Replica) actLocked(a coherence.Action) {
	switch a := a.(type) {
	case coherence.Admit:
		r.admitLocked(a)
	case coherence.Send:
		if r.conn != nil {
			r.conn.SendControl(r.cfg.Number, a.Msg)
		}
	case coherence.SendBulk:
		if r.conn != nil {
			r.conn.SendBulk(a.Stream, r.cfg.Number, a.Msg)
		}
	case coherence.Log:
		r.file.put(a)
	case coherence.Flush:
		r.flush.put(flushWait{token: a.Token})
	case coherence.Collect:
		if !r.now.take(a) {
			r.io.put(func() { r.collect(a) })
		}
	case coherence.Store:
		r.storeLocked(a)
	case coherence.ReadCopy:
		r.copying.took(a)
		r.bulk.put(func() { r.readCopy(a) })
	case coherence.StoreCopy:
		n := r.storing.began(a.Items)
		r.bulk.put(func() { r.storeCopy(a, n) })
	case coherence.Digest:
		r.bulk.put(func() { r.digest(a) })
	case coherence.Verified:
		r.verifiedLocked(a)
	case coherence.CopyEnded:
		r.copying.ended(a.Token)
	case coherence.Salvage:
		r.io.put(func() { r.salvage(a) })
	case coherence.SendPlanes:
		r.sendPlanesLocked()
	case coherence.Grow:
		r.growLocked(a.Size)
	default:
		r.tellLocked(a)
	}
}

// tellLocked does the actions that are for people.
func (r *Replica) tellLocked(a coherence.Action) {
	switch a := a.(type) {
	case coherence.Disconnect:
		r.log.Error("the link is closed because of this LUN", "reason", a.Reason)
		if r.conn != nil {
			r.conn.Close(fmt.Errorf("LUN %d: %s", r.cfg.Number, a.Reason))
		}
	case coherence.Serving:
		r.health.since = r.run.Now()
		r.joinedLocked(a.Yes)
		r.log.Info("serving", "yes", a.Yes)
		if !a.Yes {
			r.letGoLocked()
		}
	case coherence.Dismiss:
		r.era.Add(1)
		r.log.Info("host commands end", "err", a.Err)
	case coherence.Fault:
		r.health.fault = a.Err
		r.log.Error("the replica cannot go on", "err", a.Err)
	case coherence.Alarm:
		r.health.alarm = a.Text
		r.health.alarms++
		r.log.Warn(a.Text)
	default:
		panic(fmt.Sprintf("replication: unknown action %T", a))
	}
}
