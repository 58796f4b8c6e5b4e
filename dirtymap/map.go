// Package dirtymap keeps, in memory, what a replica knows of each extent: its
// state (the planes stale and held, the turn), the commands that are using it,
// and the blocks that were written here and not yet copied to the peer.
//
// Host commands read and write it by way of Begin, Enter, Wrote, Exit and End,
// concurrently, without a lock and without memory of their own. Everything else
// belongs to one owner, the coherence engine, which calls it under its lock.
//
// One extent takes 16 bits, two of them share an atomic word:
//
//	bits 0–7   State, as its difference (XOR) from that of its group
//	bits 8–15  users: commands inside the extent right now
//
// With 64 KiB extents that is 32 MiB for each TiB, of which the operating system
// gives only what was ever touched; a chunk of dirty blocks exists only where
// extents are owned. A group is 4096 neighbours: to give all of them one state takes
// one store, and no memory, so what a join does to a whole LUN is soon done.
package dirtymap

import "sync/atomic"

// State is an extent's state. The lower six bits are also its durable form.
type State uint8

// The bits of a State.
const (
	Stale    State = 1 << 0 // the peer may hold newer data
	Held     State = 1 << 1 // the peer has the extent in its record
	turnBits State = 3 << 2 // who was granted ownership last, modulo 4
	Volatile State = 1 << 4 // the bytes it stands for are not known to be flushed
	Alone    State = 1 << 5 // written while this replica served alone
	Logged   State = 1 << 6 // memory only: this tenure is in the map file
	Closing  State = 1 << 7 // memory only: no new command may enter

	Durable = Stale | Held | turnBits | Volatile | Alone
)

// Turn is the turn, 0 to 3.
func (s State) Turn() uint8 { return uint8(s >> 2 & 3) }

// WithTurn is s with another turn.
func (s State) WithTurn(t uint8) State { return s&^turnBits | State(t&3)<<2 }

// Shared tells whether both replicas are known to hold the same bytes.
func (s State) Shared() bool { return s&(Stale|Held) == 0 }

// Allows tells whether a command may use an extent in this state without asking
// anybody: a read unless STALE, a write when OWNED and logged; neither while closing.
func (s State) Allows(write bool) bool {
	if write {
		return s&(Stale|Held|Logged|Closing) == Held|Logged
	}
	return s&(Stale|Closing) == 0
}

// String is for people: S, O or T with its turn, and flags.
func (s State) String() string {
	b := []byte{"SOT?"[map[State]int{0: 0, Held: 1, Stale: 2, Held | Stale: 3}[s&(Stale|Held)]], '0' + s.Turn()}
	for _, f := range []struct {
		bit  State
		name byte
	}{{Volatile, 'v'}, {Alone, 'a'}, {Logged, 'l'}, {Closing, 'c'}} {
		if s&f.bit != 0 {
			b = append(b, f.name)
		}
	}
	return string(b)
}

// maxUsers leaves room below 256 for the engine's own Pin.
const maxUsers = 240

// Map is the state of every extent of one replica.
type Map struct {
	geo    Geometry
	words  []atomic.Uint32
	groups []group
	chunks []atomic.Pointer[chunk]
	live   []uint64 // the engine's: bit i%64 of word i/64 says that chunk i exists

	// gate counts the commands between Begin and End; gateShut is set while the
	// replica does not serve.
	gate atomic.Int64

	dirty atomic.Int64 // blocks
	clock atomic.Uint32

	atomics atomic.Uint64 // atomic writes begun here
	mixings atomic.Uint64
}

// groupExtents is how many extents share a group: 8 KiB of words, two pages of memory
// that stay untouched as long as all have the same state.
const groupExtents = 4096

// group is what the words of groupExtents extents are based on.
type group struct {
	// base is a State, for both extents of a word. It changes only while no command is
	// between Begin and End.
	base atomic.Uint32
	// mixed: an extent may have another state than base. The engine's to change.
	mixed atomic.Bool
}

// twice is a state for both extents of a word.
func twice(s State) uint32 { return uint32(s)<<16 | uint32(s) }

// New makes a map with every extent SHARED, and the gate shut. The geometry must
// have passed Check.
func New(geo Geometry) *Map {
	n := geo.Extents()
	m := &Map{
		geo:    geo,
		words:  make([]atomic.Uint32, (n+1)/2),
		groups: make([]group, (n+groupExtents-1)/groupExtents),
		chunks: make([]atomic.Pointer[chunk], (n+chunkExtents-1)/chunkExtents),
		live:   make([]uint64, (n+64*chunkExtents-1)/(64*chunkExtents)),
	}
	m.gate.Store(gateShut)
	return m
}

// Geometry is how the LUN is divided.
func (m *Map) Geometry() Geometry { return m.geo }

// The gate: the topmost bit says shut, the rest counts.
const gateShut = 1 << 62

// Begin starts a command; false: the replica does not serve now. A refused one
// is never counted: an End that found it inside would not be the last one, and
// nobody would tell the engine.
func (m *Map) Begin() bool {
	for {
		g := m.gate.Load()
		if g&gateShut != 0 {
			return false
		}
		if m.gate.CompareAndSwap(g, g+1) {
			return true
		}
	}
}

// End ends a command. True: the gate is shut and this was the last command
// inside; the engine must be told (it may be told more than once).
func (m *Map) End() (quiet bool) { return m.gate.Add(-1) == gateShut }

// Shut keeps new commands out, and tells whether none is inside.
func (m *Map) Shut() (quiet bool) { return m.gate.Or(gateShut)&^gateShut == 0 }

// Serving tells whether the gate is open.
func (m *Map) Serving() bool { return m.gate.Load()&gateShut == 0 }

// Quiet tells whether the gate is shut and no command is inside.
func (m *Map) Quiet() bool { return m.gate.Load() == gateShut }

// Open lets commands in.
func (m *Map) Open() { m.gate.And(^gateShut) }

// State is the extent's state now: two atomic loads.
func (m *Map) State(ext uint64) State {
	return State((m.words[ext/2].Load() ^ m.base(ext)) >> (ext % 2 * 16))
}

// base is that of the extent's group.
func (m *Map) base(ext uint64) uint32 { return m.groups[ext/groupExtents].base.Load() }

// Users is how many commands are inside the extent.
func (m *Map) Users(ext uint64) int {
	return int(m.words[ext/2].Load() >> (ext%2*16 + 8) & 0xff)
}

// Enter takes a command into the extent if its state allows the access without
// asking anybody. Too many users count as not allowed.
func (m *Map) Enter(ext uint64, write bool) bool {
	w, shift, base := &m.words[ext/2], ext%2*16, m.base(ext)
	for {
		old := w.Load()
		if !State((old^base)>>shift).Allows(write) || old>>(shift+8)&0xff >= maxUsers {
			return false
		}
		if w.CompareAndSwap(old, old+1<<(shift+8)) {
			return true
		}
	}
}

// Exit takes a command out of the extent. True: the extent is closing and this
// was the last one inside; the engine must be told.
func (m *Map) Exit(ext uint64) (drained bool) {
	w, shift := &m.words[ext/2], ext%2*16
	now := w.Add(-(uint32(1) << (shift + 8))) >> shift
	return now>>8&0xff == 0 && (State(now)^State(m.base(ext)))&Closing != 0
}

// Pin enters an extent for a command that the engine lets in. False: too many
// users.
func (m *Map) Pin(ext uint64) bool {
	w, shift := &m.words[ext/2], ext%2*16
	for {
		old := w.Load()
		if old>>(shift+8)&0xff == 0xff {
			return false
		}
		if w.CompareAndSwap(old, old+1<<(shift+8)) {
			return true
		}
	}
}

// Atomic writes. One covers several blocks, and a command that reads these one after
// the other could see some of them before it and some after. So such a command
// compares Mixings before and after: what it has read is of one piece if the number
// is the same.

// BeginAtomic says that blocks will be written from now on that belong together.
func (m *Map) BeginAtomic() {
	m.atomics.Add(1)
	m.Mix()
}

// Mix says that from now on blocks may change of which others, that belong to them,
// have been read already.
func (m *Map) Mix() { m.mixings.Add(1) }

// Mixings counts the calls of Mix and BeginAtomic.
func (m *Map) Mixings() uint64 { return m.mixings.Load() }

// Atomics counts the calls of BeginAtomic.
func (m *Map) Atomics() uint64 { return m.atomics.Load() }

// Change takes bits off a state and puts others on. Engine only.
func (m *Map) Change(ext uint64, off, on State) {
	w, shift, g := &m.words[ext/2], ext%2*16, &m.groups[ext/groupExtents]
	base := State(g.base.Load())
	for {
		old := w.Load()
		differs := ((State(old>>shift)^base)&^off | on) ^ base
		if differs != 0 && !g.mixed.Load() {
			g.mixed.Store(true)
		}
		if w.CompareAndSwap(old, old&^(0xff<<shift)|uint32(differs)<<shift) {
			return
		}
	}
}

// Set replaces a state. Engine only.
func (m *Map) Set(ext uint64, s State) { m.Change(ext, 0xff, s) }
