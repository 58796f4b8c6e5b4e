package sim

import (
	"bytes"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication/salvage"
)

// forking is what tells how far the sites may be apart. It begins anew when they join.
type forking struct {
	apart  [2]*history // as it was when a site began to serve alone
	solo   [2]bool     // it does
	joint  [2]snapshot // its map before
	forced [2]bool     // by an operator
	begun  [2]bool     // and it has served so
	late   [2]bool     // and others had been agreed upon
	fork   *fork       // nil: hosts see one version
	forks  int         // that there were
}

// next is what is left of it when the sites have joined: who was forced, and could not begin
// yet, will.
func (f *forking) next() forking {
	n := forking{forks: f.forks, solo: f.solo, joint: f.joint}
	for i := range f.forced {
		n.forced[i] = f.forced[i] && !f.begun[i]
	}
	return n
}

// fork: hosts of the two sites see different versions.
type fork struct {
	since  int64 // the last moment that both versions have
	before [2]standing
	kept   [2]kept
}

// standing is what is known of a site's replica from before the join.
type standing struct {
	known bool
	join  uint64 // number of its last join
	joins int    // how often that has changed since: a join that broke off
	gone  bool   // it was destroyed, and is a new one
	snapshot
}

func (s *site) hist() *history { return s.w.hists[s.no] }

// watch notes, after each step, what is forgotten when the sites join; solo: the replica serves
// without the other one. From then on it may give up what only that has.
func (w *world) watch(s *site, join uint64, solo bool) {
	begins := solo && !w.solo[s.no]
	w.solo[s.no] = solo
	if begins && s.agent != nil && s.agent.role.Free && s.agent.loss() == catalog.ServeStale {
		s.givesUp(&w.joint[s.no])
	}
	if !solo && s.agent != nil {
		w.joint[s.no].take(s.rep.Map())
	}
	switch {
	case w.shape.force == 0:
	case w.fork != nil:
		w.fork.before[s.no].note(join, s.rep.Map())
	case solo && w.apart[s.no] == nil:
		w.apart[s.no] = s.hist().branch()
	}
}

func (b *standing) note(join uint64, m *dirtymap.Map) {
	if b.known && join != b.join {
		b.joins++
	}
	if b.known, b.join = true, join; b.joins > 0 {
		return
	}
	b.take(m)
}

// diverge: a site is about to serve by force. What the other one has done alone since they
// were joined it does not know, and the other way round.
func (w *world) diverge(s *site) {
	if w.fork != nil {
		return
	}
	own := s // whose version is a new one
	if w.apart[s.no] != nil {
		own = w.sites[1-s.no]
	}
	version := w.apart[1-own.no]
	if version == nil {
		version = own.hist().branch()
	}
	version.unanswered(own.no)
	w.hists[own.no] = version
	w.fork = &fork{since: version.at, kept: [2]kept{{}, {}}}
	for i, s := range w.sites {
		w.fork.before[i].gone = s.bare && (s.rep == nil || !s.rep.Standing().HasData)
	}
	w.forks++
}

// destroyed: what a site's replica had is gone.
func (w *world) destroyed(s *site) {
	for _, h := range []*history{w.hists[0], w.hists[1], w.apart[0], w.apart[1]} {
		if h != nil {
			h.destroyed(s.no)
		}
	}
	if w.fork != nil {
		w.fork.before[s.no] = standing{gone: true}
	}
}

// doubtful tells whether an operating system crash has made what a site has in an extent
// doubtful.
func (w *world) doubtful(site int, state dirtymap.State) bool {
	return w.unsure[site] && state&dirtymap.Volatile != 0
}

// winner is the site whose version stays; -1: that cannot be told from here.
func (w *world) winner() int {
	gone := func(i int) bool { return w.fork.before[i].gone }
	late := func(i int) bool { return w.late[i] && !w.late[1-i] }
	left := func(i int) bool { return !w.cluster.serves(w.sites[i]) && w.cluster.serves(w.sites[1-i]) }
	for _, loses := range []func(int) bool{gone, late, left} {
		for i := range w.sites {
			if loses(i) {
				return 1 - i
			}
		}
	}
	return -1
}

// stays is the site whose version of an extent has to stay, by rule 1 of joining; -1: any.
func (w *world) stays(winner int, ext uint64) int {
	b := &w.fork.before
	if winner >= 0 && b[1-winner].gone {
		return winner
	}
	var had, alone [2]bool
	for i := range b {
		if !b[i].known || b[i].joins != 1 || ext >= uint64(len(b[i].states)) {
			return -1
		}
		s := b[i].states[ext]
		sure := !w.doubtful(i, s)
		had[i], alone[i] = sure && s&dirtymap.Stale == 0, sure && s&dirtymap.Alone != 0
	}
	switch {
	case winner < 0 || alone == [2]bool{}:
		return -1
	case had[winner]:
		return winner
	}
	return 1 - winner
}

// merge makes one version of two. s is a site that knows the outcome.
func (w *world) merge(s *site) {
	winner, m := w.winner(), s.rep.Map()
	w.tracef("the sites have two versions: that of %d stays; late: %v", winner, w.late)
	var choices []choice
	for ext := range m.Geometry().Extents() {
		is, must := s.chosen(m.State(ext)), w.stays(winner, ext)
		if is >= 0 && must >= 0 && is != must {
			w.fail("extent %d: the version of site %s stays, and has to be that of site %s (before: %v and %v)", ext,
				w.sites[is].name, w.sites[must].name, w.fork.before[0].states[ext], w.fork.before[1].states[ext])
		}
		for _, site := range []int{is, must, winner, 0} {
			if site >= 0 {
				choices = append(choices, choice{sectorsOf(m.Geometry(), ext), site})
				break
			}
		}
	}
	w.checkKept(choices)
	h := merge(w.hists, choices)
	w.hists = [2]*history{h, h}
}

// chosen is the site that an extent's state says has won; -1: the two are in sync.
func (s *site) chosen(state dirtymap.State) int {
	switch {
	case state&dirtymap.Stale != 0:
		return 1 - s.no
	case state&dirtymap.Held != 0:
		return s.no
	}
	return -1
}

func sectorsOf(g dirtymap.Geometry, ext uint64) span {
	end := min(g.Offset(ext)+g.ExtentSize, g.Size)
	return span{int(g.Offset(ext) / sectorSize), int((end - g.Offset(ext)) / sectorSize)}
}

// checkKept: what was acknowledged, and is given up, is in a salvage file; of a fork, all
// that was.
func (w *world) checkKept(choices []choice) {
	for _, c := range choices {
		for i := range w.sites {
			b := &w.fork.before[i]
			if b.gone || c.site == i && !w.late[i] {
				continue
			}
			if ext := uint64(c.off() / w.shape.geo.ExtentSize); b.known && ext < uint64(len(b.states)) && w.doubtful(i, b.states[ext]) {
				continue
			}
			if err := w.hists[i].lacks(i, c.span, w.fork.since, w.fork.kept[i]); err != nil {
				w.fail("%v", err)
				return
			}
		}
	}
}

// salvaged is a salvage file in memory.
type salvaged struct {
	bytes.Buffer
	s     *site
	begin int64
}

func (s *site) salvage(uint64) (salvage.File, error) {
	s.w.tracef("site %s salvages", s.name)
	s.w.totals.Salvages++
	return &salvaged{s: s, begin: s.hist().tick()}, nil
}

// Discard implements salvage.File.
func (f *salvaged) Discard() error { return nil }

// Commit implements salvage.File. Of two versions, what a site keeps of its own has to be
// what a host would read there.
func (f *salvaged) Commit() error {
	w := f.s.w
	if w.fork == nil {
		return nil
	}
	if l := w.lost[f.s.no]; l != lossNone { // that is decided here
		f.s.hist().lose(lossAt(f.s.no, l), 1<<(1-f.s.no))
	}
	image := salvageImage{}
	r, err := salvage.NewReader(f)
	if err == nil {
		_, err = salvage.Export(&image, r)
	}
	if err != nil {
		return err
	}
	if w.o.mutation == lacksBlock && len(image) > 0 {
		image = image[1:]
	}
	for _, b := range image {
		f.keep(b)
	}
	return nil
}

// keep checks a block of the file.
func (f *salvaged) keep(b salvagedBlock) {
	s, sp := f.s, span{int(b.off / sectorSize), dirtymap.BlockSize / sectorSize}
	state := s.rep.Map().State(uint64(b.off / s.w.shape.geo.ExtentSize))
	if state&dirtymap.Stale != 0 || s.w.doubtful(s.no, state) {
		return
	}
	s.w.tracef("site %s has salvaged sectors %d+%d = %s", s.name, sp.first, sp.n, contents(b.data))
	if err := s.hist().endRead(s.no, sp, b.data, f.begin, func(int64) bool { return false }); err != nil {
		s.w.fail("site %s has salvaged what was not there: %v", s.name, err)
	}
	for i := range sp.n {
		s.w.fork.kept[s.no][sp.first+i] = s.hist().clock
	}
}

// salvageImage is an io.WriterAt.
type salvageImage []salvagedBlock

type salvagedBlock struct {
	off  int64
	data []byte
}

func (i *salvageImage) WriteAt(p []byte, off int64) (int, error) {
	*i = append(*i, salvagedBlock{off, bytes.Clone(p)})
	return len(p), nil
}
