package dirtymap

import "math/bits"

const (
	// maxWindow bounds a window, in bytes: what a stop or a crash of its writer
	// makes the peer ask about in vain.
	maxWindow = 64 << 20
	// neighbourhood is the window, in bytes, of a write about which nothing is
	// known; also how far from a stream's edge a write still continues it, as
	// several writes are under way at once and overtake each other.
	neighbourhood = 1 << 20
	// denseShare: a neighbourhood grows while 1/denseShare of the next larger one
	// is OWNED.
	denseShare = 4
	// samples is how many extents are looked at for that, per size tried.
	samples = 64
	// calmWindows without a complaint double a region's limit.
	calmWindows = 16
	// streamSlots bounds the streams remembered, of each kind.
	streamSlots = 8
)

// Predictor chooses how much a host's write marks ahead of itself. It belongs
// to the Map's owner, and decides by what it was asked before alone: no clock,
// no chance.
type Predictor struct {
	m   *Map
	top uint // a window has at most 1<<top extents; so has a region

	// windows that may become streams, and streams: apart, so that random writes
	// do not push a stream out of memory that is between two of its windows.
	fresh, streams [streamSlots]stream
	uses           uint64 // dates streams
	regions        []region
}

// stream is a window that a write may continue.
type stream struct {
	at   Range
	exp  uint // the window had 1<<exp extents
	up   bool // it may go on behind its end
	down bool // it may go on before its beginning
	used uint64
}

// region is 1<<top extents. Its zero value has the widest limit.
type region struct {
	cut  uint8 // windows here have at most 1<<(top-cut) extents
	last uint8 // exponent of the last window not yet complained about, plus one
	calm uint8 // windows since the last complaint, or since the limit was doubled
}

// NewPredictor makes a Predictor for a map. It takes 3 bytes per 64 MiB.
func NewPredictor(m *Map) *Predictor {
	top := exponent(maxWindow / uint64(m.geo.ExtentSize))
	return &Predictor{m: m, top: top, regions: make([]region, (m.geo.Extents()-1)>>top+1)}
}

// exponent is the binary logarithm, rounded down; n > 0.
func exponent(n uint64) uint { return uint(bits.Len64(n) - 1) }

// Window is what to mark when a host's write needs the extents r, count ≥ 1:
// a range that contains r, inside the LUN, and no longer than 64 MiB unless r is.
func (p *Predictor) Window(r Range) Range {
	w, exp, s := p.next(r)
	w = p.fit(w, r, exp, s.down && !s.up)
	s.at, s.exp, s.used = w, exp, p.tick()
	p.remember(s)
	for i := w.First >> p.top; i <= (w.End()-1)>>p.top; i++ {
		p.regions[i].noteWindow(exp)
	}
	return w
}

func (p *Predictor) tick() uint64 {
	p.uses++
	return p.uses
}

// next chooses a window of 1<<exp extents, and what to remember it as.
func (p *Predictor) next(r Range) (w Range, exp uint, s stream) {
	limit := p.limit(r.First)
	if s, ok := p.continued(r); ok {
		exp = min(s.exp+1, limit, p.top)
		size := uint64(1) << exp
		if s.up {
			return Range{First: min(s.at.End(), r.First), Count: size}, exp, s
		}
		end := max(s.at.First, r.End())
		size = min(size, end)
		return Range{First: end - size, Count: size}, exp, s
	}
	exp = p.neighbourhood(r.First, limit)
	return aligned(r.First, exp), exp, stream{up: true, down: true}
}

// aligned are the 1<<exp extents around ext.
func aligned(ext uint64, exp uint) Range { return Range{First: ext >> exp << exp, Count: 1 << exp} }

// limit is the exponent of the widest window allowed around an extent.
func (p *Predictor) limit(ext uint64) uint {
	return p.top - uint(p.regions[ext>>p.top].cut)
}

// base is the exponent of the neighbourhood that nothing is known about.
func (p *Predictor) base() uint {
	return exponent(max(1, neighbourhood/uint64(p.m.geo.ExtentSize)))
}

// neighbourhood is the exponent of the window around an extent that continues no
// stream.
func (p *Predictor) neighbourhood(ext uint64, limit uint) uint {
	exp := min(p.base(), limit)
	for exp < limit && p.dense(aligned(ext, exp+1)) {
		exp++
	}
	return exp
}

// dense tells whether enough of a range is OWNED, by samples spread over it
// unevenly, lest they fall in step with what the host does.
func (p *Predictor) dense(r Range) bool {
	r.Count = min(r.Count, p.m.geo.Extents()-r.First)
	n := min(samples, r.Count)
	stride := r.Count / n
	owned := uint64(0)
	for i := range n {
		if p.m.State(r.First+i*stride+scatter(i)%stride)&(Stale|Held) == Held {
			owned++
		}
	}
	return owned*denseShare >= n
}

// scatter is a number that looks random, always the same for the same i
// (Knuth's multiplicative hashing).
func scatter(i uint64) uint64 { return i * 0x9e3779b97f4a7c15 >> 32 }

// continued takes the stream that a write continues out of memory; its up or
// down tells the direction.
func (p *Predictor) continued(r Range) (stream, bool) {
	gap := uint64(1) << p.base()
	for _, kind := range []*[streamSlots]stream{&p.streams, &p.fresh} {
		for i, s := range kind {
			up := s.up && r.First >= s.at.End() && r.First-s.at.End() < gap
			down := s.down && r.End() <= s.at.First && s.at.First-r.End() < gap
			if up || down {
				kind[i] = stream{}
				s.up, s.down = up, down
				return s, true
			}
		}
	}
	return stream{}, false
}

// remember puts a stream in the place of the one that was used longest ago.
func (p *Predictor) remember(s stream) {
	kind := &p.streams
	if s.up && s.down {
		kind = &p.fresh
	}
	oldest := &kind[0]
	for i := range kind {
		if kind[i].used < oldest.used {
			oldest = &kind[i]
		}
	}
	*oldest = s
}

// fit makes a window of 1<<exp extents contain r, and cuts it to that size, to
// the LUN, and out of a neighbouring region with a lower limit.
func (p *Predictor) fit(w, r Range, exp uint, down bool) Range {
	first, end := min(w.First, r.First), max(w.End(), r.End())
	if most := max(1<<exp, r.Count); end-first > most && down {
		first, end = r.End()-min(most, r.End()), r.End()
	} else if end-first > most {
		first, end = r.First, r.First+most
	}
	end = min(end, p.m.geo.Extents())
	home, last := r.First>>p.top<<p.top, (end-1)>>p.top<<p.top
	if first < home && p.limit(first) < exp {
		first = home
	}
	if r.End() <= last && p.limit(last) < exp {
		end = last
	}
	return Range{First: first, Count: end - first}
}

// noteWindow counts a window in a region.
func (g *region) noteWindow(exp uint) {
	g.last = uint8(exp) + 1
	if g.calm++; g.calm >= calmWindows {
		g.calm = 0
		g.cut -= min(g.cut, 1)
	}
}

// TooWide says that the peer asked for an extent that was only predicted: the
// next windows in its region are at most half as wide as the last one. One
// window is halved once, however many of its extents the peer asks for.
func (p *Predictor) TooWide(ext uint64) {
	g := &p.regions[ext>>p.top]
	if g.last == 0 {
		return
	}
	exp := min(p.limit(ext), uint(g.last-1))
	exp -= min(exp, 1)
	*g = region{cut: uint8(p.top - exp)}
}
