package sim

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/twinlun/twinlun/dirtymap"
)

// history checks reads against writes, online. Each sector is a register; every
// write fills its sectors with its own number, except that zeros are all alike.
//
// A register whose values are all different is linearizable exactly if no two
// values contradict each other (Gibbons and Korach, Testing Shared Memories): u
// comes before v if some command that wrote or read u ended before some command
// that writes or reads v began. So for each value two times suffice: the first end
// and the last begin of its commands.
//
// An update also reads what it overwrites: nothing comes between the two values, so
// they are one to all others, and each value is overwritten by one update at most.
//
// Losses: an operating system crash may take writes away that were acknowledged,
// but not those that the site had flushed for a SYNC or FUA, nor those that the
// other site had too. The destruction of a site may take everything that the other
// one did not have. The set of values that may be there then is computed when the
// sites have joined again; the first read decides which it was.
//
// When an operator forces a site, hosts may come to see two versions of the LUN; version.go
// says what becomes of these.
type history struct {
	*record
	registers []register
	blocks    []blockHistory
	at        int64 // when this version was branched off
}

// record is what all versions of a history have in common.
type record struct {
	clock  int64
	ops    map[uint64]*op
	last   uint64
	sub    bool // commands may be smaller than blocks
	ended  int
	resets int
	parted int
}

// op is a write, as far as the history is concerned.
type op struct {
	id     uint64
	site   int
	span   span
	zero   bool
	update bool // it is atomic as a whole
	atomic bool // so is it for readers, and when something crashes
	loose  bool // but that may be over: the only site that had it was destroyed
	begin  int64
	end    int64 // 0: not acknowledged (yet)
	dead   bool  // it never will be: its host's node was killed
	synced bool
	torn   bool // from its site: that has crashed before it was
}

// register is what is known of a sector.
type register struct {
	values []*value
	epoch  int64 // when it began
}

// value is one value of a register, with all commands that wrote or read it.
type value struct {
	op    *op      // nil: what was there when the epoch began
	open  []uint64 // op == nil: the values it may be; nil: any
	known bool     // op == nil: it is open[0]
	first int64    // end of the first command to end; forever: none has
	last  int64    // begin of the last one to begin
	sites uint8    // whose replica has had it, or a later one: bit by site
	weak  uint8    // op == nil: who may have it unflushed: bit by site
	next  *value   // an update has put it in the place of this one
}

const forever = math.MaxInt64

// blockHistory says when a block may be of several pieces: from a crash until it
// was written anew.
type blockHistory struct{ tornSince, tornUntil int64 }

func newHistory(size int64, sub bool) *history {
	h := &history{record: &record{ops: map[uint64]*op{}, sub: sub, clock: 1}}
	h.registers = make([]register, size/sectorSize)
	h.blocks = make([]blockHistory, size/dirtymap.BlockSize)
	for i := range h.registers {
		h.registers[i].values = []*value{{open: []uint64{0}, known: true, sites: 3}}
	}
	return h
}

func (r *record) tick() int64 {
	r.clock++
	return r.clock
}

// span is a run of sectors.
type span struct{ first, n int }

func (s span) off() int64   { return int64(s.first) * sectorSize }
func (s span) bytes() int64 { return int64(s.n) * sectorSize }

// beginWrite notes that a write begins, and returns it.
func (h *history) beginWrite(site int, s span, zero bool) *op {
	h.last++
	o := &op{id: h.last, site: site, span: s, zero: zero, begin: h.tick()}
	h.ops[o.id] = o
	for i := range s.n {
		r := &h.registers[s.first+i]
		r.values = append(r.values, &value{op: o, first: forever, last: o.begin})
	}
	return o
}

// endWrite notes that a write was acknowledged.
func (h *history) endWrite(o *op, s span, fua bool) error {
	o.end = h.tick()
	o.synced = fua
	h.ended++
	for i := range s.n {
		r := &h.registers[s.first+i]
		for _, v := range r.values {
			if v.op == o {
				v.first = min(v.first, o.end)
				v.sites |= 1 << o.site
				if err := r.contradiction(v); err != nil {
					return fmt.Errorf("sector %d: %w", s.first+i, err)
				}
			}
		}
	}
	if !h.sub {
		first := s.first / 8
		for b := first; b < (s.first+s.n)/8; b++ {
			if t := &h.blocks[b]; t.tornUntil == forever && o.begin > t.tornSince {
				t.tornUntil = o.end
			}
		}
	}
	return nil
}

// endSync notes that a SYNC at a site, which began at begin, is done.
func (h *history) endSync(site int, begin int64) {
	h.ended++
	for _, o := range h.ops {
		if o.site == site && o.end != 0 && o.end < begin && !o.torn {
			o.synced = true
		}
	}
}

// endRead checks what a read returned that began at begin. has says of an extent
// whether the site's replica has its newest data.
func (h *history) endRead(site int, s span, p []byte, begin int64, has func(off int64) bool) error {
	end := h.tick()
	h.ended++
	for i := range s.n {
		sector := s.first + i
		got, err := sectorValue(p[i*sectorSize : (i+1)*sectorSize])
		if err != nil {
			return fmt.Errorf("sector %d: %w", sector, err)
		}
		if err := h.read(sector, got, begin, end, site, has(int64(sector)*sectorSize)); err != nil {
			return fmt.Errorf("sector %d: %w", sector, err)
		}
	}
	if err := h.wholeAtomics(s, p); err != nil {
		return err
	}
	return h.whole(s, p, begin)
}

// whole checks that blocks were not torn.
func (h *history) whole(s span, p []byte, begin int64) error {
	for i := 0; i < s.n && !h.sub; i += 8 {
		block := p[i*sectorSize : (i+8)*sectorSize]
		no := (s.first + i) / 8
		for j := sectorSize; j < len(block); j += sectorSize {
			if value8(block[j:]) != value8(block) && begin > h.blocks[no].tornUntil {
				return fmt.Errorf("block %d is torn: write %d, and %d from sector %d on", no, value8(block), value8(block[j:]), j/sectorSize)
			}
		}
	}
	return nil
}

func value8(p []byte) uint64 { return binary.LittleEndian.Uint64(p) }

// sectorValue is the value that fills a sector.
func sectorValue(p []byte) (uint64, error) {
	v := value8(p)
	for at := 8; at < len(p); at += 8 {
		if value8(p[at:]) != v {
			return 0, fmt.Errorf("torn inside: write %d, and %d from byte %d on", v, value8(p[at:]), at)
		}
	}
	return v, nil
}

// fill fills sectors with a value.
func fill(p []byte, v uint64) {
	for at := 0; at < len(p); at += 8 {
		binary.LittleEndian.PutUint64(p[at:], v)
	}
}

// read adds a read of one sector.
func (h *history) read(sector int, got uint64, begin, end int64, site int, has bool) error {
	r := &h.registers[sector]
	if begin < r.epoch && h.ever(got) {
		return nil // it may have seen what was there before the crash
	}
	may := r.candidates(got, h)
	if len(may) == 0 {
		return fmt.Errorf("site %d read write %d, which was never there or was overwritten before a crash: %s", site, got, r)
	}
	var err error
	for _, v := range may {
		trial := *v
		trial.first, trial.last = min(v.first, end), max(v.last, begin)
		if err = r.contradictionOf(v, &trial); err != nil {
			continue
		}
		if len(may) == 1 { // else nobody can say which one it was
			v.first, v.last = trial.first, trial.last
			if v.op == nil && !v.known {
				v.open, v.known = []uint64{got}, true
			}
			if has {
				v.sites |= 1 << site
			}
		}
		return nil
	}
	return fmt.Errorf("site %d read write %d between %d and %d: %w: %s", site, got, begin, end, err, r)
}

// candidates are the values that a read of got may have seen.
func (r *register) candidates(got uint64, h *history) (list []*value) {
	for _, v := range r.values {
		switch {
		case v.op != nil && (v.op.id == got && !v.op.zero || got == 0 && v.op.zero):
			list = append(list, v)
		case v.op == nil && (v.open == nil && h.ever(got) || slices.Contains(v.open, got)):
			list = append(list, v)
		}
	}
	return list
}

// ever tells whether a value can have come from anywhere.
func (r *record) ever(id uint64) bool { return id == 0 || r.ops[id] != nil }

func (r *register) contradiction(v *value) error { return r.contradictionOf(v, v) }

// nonlinear is a contradiction. Most are found while trying, and nobody reads them.
type nonlinear func() string

func (n nonlinear) Error() string { return "not linearizable: " + n() }

// betweenError: b has replaced a, and v comes between them.
func betweenError(v, a, b *value) error {
	return nonlinear(func() string { return fmt.Sprintf("%s comes between %s and %s, which replaced it", v, a, b) })
}

// contradictionOf looks for a value that must come both before and after v, which
// has the times of trial, and for one that must come between two that an update
// has joined.
func (r *register) contradictionOf(v, trial *value) error {
	for _, o := range r.values {
		if o != v && trial.before(o) && o.before(trial) {
			return nonlinear(func() string { return fmt.Sprintf("%s and %s each come before the other", trial, o) })
		}
		if o.next == nil {
			continue
		}
		a, b := o, o.next
		if a == v {
			a = trial
		}
		if b == v {
			b = trial
		}
		if b.before(a) {
			return nonlinear(func() string { return fmt.Sprintf("%s replaced %s, and comes before it", b, a) })
		}
		if o != v && o.next != v {
			if a.before(trial) && trial.before(b) {
				return betweenError(trial, a, b)
			}
			continue
		}
		for _, u := range r.values {
			if u != o && u != o.next && a.before(u) && u.before(b) {
				return betweenError(u, a, b)
			}
		}
	}
	return nil
}

// before tells whether a command on v ended before one on o began.
func (v *value) before(o *value) bool { return v.first < o.last }

// kill notes that the commands under way at a site will never be answered.
func (r *record) kill(site int) {
	for _, o := range r.ops {
		o.dead = o.dead || o.site == site && o.end == 0
	}
}

// loss says what a crash did to each site.
type loss uint8

const (
	lossNone    loss = iota
	lossOS           // writes that were not flushed
	lossReplica      // everything
)

// has notes that at this moment a site's replica has the newest data of a sector.
func (h *history) has(site, sector int) {
	for _, v := range h.registers[sector].values {
		if v.first != forever {
			v.sites |= 1 << site
		}
	}
}

// destroyed notes that a site's replica is gone. What it had and flushed is no more there,
// also when the site has joined anew and the other one is lost then.
func (h *history) destroyed(site int) {
	for _, o := range h.ops {
		o.synced = o.synced && o.site != site
	}
	for _, r := range h.registers {
		for _, v := range r.values {
			v.sites &^= 1 << site
		}
	}
}

// lose works out what may be left of every sector after crashes; weak says at which sites
// that need not be flushed.
func (h *history) lose(lost [2]loss, weak uint8) {
	for _, o := range h.ops {
		o.loose = o.loose || lost[0] == lossReplica || lost[1] == lossReplica
		o.torn = o.torn || lost[o.site] != lossNone && o.end != 0 && !o.synced
	}
	for i := range h.registers {
		if now := h.tick(); h.registers[i].lose(lost, weak, now) {
			h.resets++
			h.blocks[i/8] = blockHistory{tornSince: now, tornUntil: forever}
		}
	}
}

// lose begins a new epoch of a register if something may be lost.
func (r *register) lose(lost [2]loss, weak uint8, now int64) bool {
	var left, live []*value
	sure, doubt := false, false
	for _, v := range r.values {
		if v.pending() && v.first == forever && !(v.op.dead && lost[v.op.site] != lossNone) {
			live = append(live, v)
			continue
		}
		if r.superseded(v, lost) {
			continue
		}
		left = append(left, v)
		sure = sure || v.safe(lost)
		doubt = doubt || !v.safe(lost)
	}
	if !doubt {
		for _, v := range r.values {
			v.crash(lost)
		}
		return false
	}
	epoch := &value{first: now, last: now, weak: weak}
	for _, v := range left {
		epoch.open = v.appendTo(epoch.open)
		if v.op == nil && v.open == nil {
			sure = false
		}
	}
	if !sure {
		epoch.open = nil
	}
	r.values, r.epoch = append([]*value{epoch}, live...), now
	return true
}

func (v *value) pending() bool { return v.op != nil && v.op.end == 0 }

func (v *value) appendTo(list []uint64) []uint64 {
	switch {
	case v.op == nil:
		return append(list, v.open...)
	case v.op.zero:
		return append(list, 0)
	}
	return append(list, v.op.id)
}

// safe tells whether a value, or a later one, cannot be lost.
func (v *value) safe(lost [2]loss) bool {
	if v.first == forever {
		return false
	}
	for site, l := range lost {
		if l == lossNone && v.sites>>site&1 == 1 {
			return true
		}
	}
	if v.op == nil {
		at := func(site int) bool { return lost[site] == lossReplica || lost[site] == lossOS && v.weak>>site&1 == 1 }
		return !at(0) && !at(1)
	}
	return v.op.synced && lost[v.op.site] != lossReplica
}

// crash notes which sites need not have a value any more: what was not flushed there.
func (v *value) crash(lost [2]loss) {
	for site, l := range lost {
		if l != lossNone && !(v.op != nil && v.op.synced && v.op.site == site) {
			v.sites &^= 1 << site
		}
	}
}

// superseded tells whether a value that cannot be lost surely comes behind v.
func (r *register) superseded(v *value, lost [2]loss) bool {
	return slices.ContainsFunc(r.values, func(o *value) bool {
		return o != v && o.safe(lost) && v.first < o.last
	})
}

func (v *value) String() string {
	name := "what a crash left"
	if v.op != nil {
		name = fmt.Sprintf("write %d (site %d, %d-%d)", v.op.id, v.op.site, v.op.begin, v.op.end)
	} else if v.known {
		name = fmt.Sprintf("initial %d", v.open[0])
	} else {
		name += fmt.Sprint(" ", v.open)
	}
	if v.first == forever {
		return fmt.Sprintf("%s seen never–%d", name, v.last)
	}
	return fmt.Sprintf("%s seen %d–%d", name, v.first, v.last)
}

func (r *register) String() string {
	list := r.values
	if n := len(list); n > 8 {
		list = list[n-8:]
	}
	return fmt.Sprintf("%v", list)
}
