package sim

import (
	"strings"
	"testing"
)

// story is a history of one block, told command by command.
type story struct {
	t *testing.T
	*history
}

var block = span{0, 8}

func newStory(t *testing.T) *story { return &story{t, newHistory(4096, false)} }

func (s *story) write(site int) *op {
	o := s.beginWrite(site, block, false)
	s.end(o)
	return o
}

func (s *story) end(o *op) {
	s.t.Helper()
	if err := s.endWrite(o, block, false); err != nil {
		s.t.Fatal(err)
	}
}

func (s *story) sync(site int) { s.endSync(site, s.tick()) }

// reads returns what the history says of a read at a site that is not its owner.
func (s *story) reads(site int, since int64, ids ...uint64) error {
	p := make([]byte, block.bytes())
	for i := range block.n {
		fill(p[i*sectorSize:(i+1)*sectorSize], ids[i*len(ids)/block.n])
	}
	return s.endRead(site, block, p, since, func(int64) bool { return false })
}

func (s *story) good(site int, id uint64) {
	s.t.Helper()
	if err := s.reads(site, s.tick(), id); err != nil {
		s.t.Fatal(err)
	}
}

func (s *story) bad(site int, want string, ids ...uint64) {
	s.t.Helper()
	if err := s.reads(site, s.tick(), ids...); err == nil || !strings.Contains(err.Error(), want) {
		s.t.Fatalf("a read of %v: %v, want %q", ids, err, want)
	}
}

const notLinear = "not linearizable"

func TestReadsReturnTheLatestWrite(t *testing.T) {
	s := newStory(t)
	s.good(0, 0)
	s.write(0)
	s.good(1, 1)
	s.write(1)
	s.good(0, 2)
	s.bad(1, notLinear, 1)
}

func TestWhatWasNeverWritten(t *testing.T) {
	newStory(t).bad(0, "never there", 99)
}

func TestWritesUnderWayMayBeSeenOrNot(t *testing.T) {
	s := newStory(t)
	o := s.beginWrite(0, block, false)
	s.good(1, 0)
	s.good(1, 1)
	s.bad(1, notLinear, 0) // nobody goes back
	s.end(o)
}

func TestConcurrentWritesHaveOneOrder(t *testing.T) {
	s := newStory(t)
	a, b := s.beginWrite(0, block, false), s.beginWrite(1, block, false)
	s.end(a)
	s.end(b)
	s.good(0, a.id)
	s.good(1, a.id)
	s.bad(0, notLinear, b.id)
}

func TestTornBlocks(t *testing.T) {
	s := newStory(t)
	begin := s.tick()
	s.beginWrite(0, block, false)
	s.beginWrite(1, block, false)
	if err := s.reads(0, begin, 1, 2); err == nil || !strings.Contains(err.Error(), "block 0 is torn") {
		t.Fatal(err)
	}
}

func TestLosses(t *testing.T) {
	none, os, gone := lossNone, lossOS, lossReplica
	for _, c := range []struct {
		name  string
		tell  func(s *story)
		lost  [2]loss
		allow []uint64
		deny  []uint64
	}{
		{"written and not flushed", func(s *story) { s.write(0); s.write(0) }, [2]loss{os, none}, []uint64{2, 1, 0}, nil},
		{"at the other site", func(s *story) { s.write(1) }, [2]loss{os, none}, []uint64{1}, []uint64{0}},
		{"flushed", func(s *story) { s.write(0); s.sync(0); s.write(0) }, [2]loss{os, none}, []uint64{2, 1}, []uint64{0}},
		{"flushed, both sites crash", func(s *story) { s.write(0); s.sync(0); s.write(0) }, [2]loss{os, os}, []uint64{2, 1}, []uint64{0}},
		{"a flush at the other site is no help", func(s *story) { s.write(0); s.sync(1) }, [2]loss{os, none}, []uint64{1, 0}, nil},
		{"taken over", func(s *story) { s.write(0); s.has(1, 0); s.write(0) }, [2]loss{os, none}, []uint64{2, 1}, []uint64{0}},
		{"taken over by one that crashed too", func(s *story) { s.write(0); s.has(1, 0) }, [2]loss{os, os}, []uint64{1, 0}, nil},
		{"flushed, and the site destroyed", func(s *story) { s.write(0); s.sync(0) }, [2]loss{gone, none}, []uint64{1, 0}, nil},
		{"copied, and the site destroyed", func(s *story) { s.write(0); s.has(1, 0) }, [2]loss{gone, none}, []uint64{1}, []uint64{0}},
		{"destroyed, and then the other site", func(s *story) { s.write(0); s.sync(0); s.has(1, 0); s.destroyed(0) }, [2]loss{none, gone}, []uint64{1, 0}, nil},
		{"destroyed, copied again, and then the other site", func(s *story) { s.write(0); s.has(1, 0); s.destroyed(0); s.has(0, 0) }, [2]loss{none, gone}, []uint64{1}, []uint64{0}},
		{"flushed only after a crash took it, and the other site destroyed", func(s *story) {
			s.write(0)
			s.sync(0)
			s.write(0)
			hasAll(s, 1)
			s.lose([2]loss{os, none}, 0)
			s.sync(0)
			s.destroyed(1)
		}, [2]loss{none, gone}, []uint64{2, 1}, []uint64{0}},
		{"taken over, lost in a crash there, and the site destroyed", func(s *story) {
			s.write(0)
			hasAll(s, 1)
			s.lose([2]loss{none, os}, 0)
			s.destroyed(0)
		}, [2]loss{gone, none}, []uint64{1, 0}, nil},
		{"under way", func(s *story) { s.write(0); s.sync(0); s.beginWrite(0, block, false); s.kill(0) }, [2]loss{os, none}, []uint64{2, 1}, []uint64{0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			try := func(id uint64) (*story, error) {
				s := newStory(t)
				c.tell(s)
				copySites(s)
				s.lose(c.lost, 0)
				return s, s.reads(1, s.tick(), id)
			}
			for _, id := range c.allow {
				s, err := try(id)
				if err != nil {
					t.Errorf("%d is refused: %v", id, err)
					continue
				}
				for _, other := range c.allow {
					if other != id && s.reads(1, s.tick(), other) == nil {
						t.Errorf("%d after %d was read", other, id)
					}
				}
			}
			for _, id := range c.deny {
				if _, err := try(id); err == nil {
					t.Errorf("%d is allowed", id)
				}
			}
		})
	}
}

// hasAll: a site has all of a story's block.
func hasAll(s *story, site int) {
	for i := range s.registers {
		s.has(site, i)
	}
}

// copySites makes what a story says of the first sector true for its whole block.
func copySites(s *story) {
	for _, r := range s.registers[1:] {
		for i, v := range r.values {
			v.sites |= s.registers[0].values[i].sites
		}
	}
}

// What an operating system crash has left need not be flushed at the site that goes on; a
// second crash may take it.
func TestLossAfterALoss(t *testing.T) {
	for weak, want := range map[uint8]string{0: "never there", 1: ""} {
		s := newStory(t)
		s.write(0)
		s.write(1)
		s.beginWrite(1, block, false)
		s.kill(1)
		hasAll(s, 0)
		s.lose([2]loss{lossNone, lossOS}, weak) // 2, which site 0 has, or 3
		s.lose([2]loss{lossOS, lossNone}, 0)
		s.want(s.reads(0, s.tick(), 1), want)
	}
}

// A block that a crash has torn stays as it is until it is written anew.
func TestTornByACrash(t *testing.T) {
	s := newStory(t)
	s.write(0)
	s.write(0)
	s.lose([2]loss{lossOS, lossNone}, 0)
	if err := s.reads(1, s.tick(), 1, 2); err != nil {
		t.Fatal(err)
	}
	s.bad(1, "never there", 2, 1)
	s.write(1)
	s.good(0, 3)
	s.bad(0, notLinear, 1, 2)
}
