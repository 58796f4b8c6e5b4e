package sim

import (
	"errors"

	"github.com/twinlun/twinlun/dirtymap/mapfile"
)

// makeRoom lets the LUN grow at this site. What is new of the replica is zeros.
func (s *site) makeRoom() {
	s.want = s.w.shape.geo.Size
	if s.wanted && s.rep != nil {
		s.group.Go("make room", func() { s.reopen(s.size) })
	}
}

// reopen is what the daemon does when there is room for a larger LUN, and when both
// sites have it: it closes the replica, makes its map larger, and opens it again. A
// process that is killed meanwhile leaves the old map file, or the new one.
func (s *site) reopen(size int64) {
	if s.stopped || s.growing {
		return
	}
	s.growing = true
	last := s.rep
	s.node.Remove(last)
	if err := last.Close(); err != nil {
		s.w.fail("site %s: %v", s.name, err)
		return
	}
	if err := s.growMap(size); err != nil {
		if !errors.Is(err, errDead) {
			s.w.fail("site %s: %v", s.name, err)
		}
		return
	}
	if s.rep = s.open(last); s.rep == nil {
		return
	}
	s.w.totals.Joins += last.Status().Joins
	s.vol.Replace(s.volume(s.rep))
	s.growing = false
	if err := s.node.Add(s.rep); err != nil {
		s.w.fail("site %s: %v", s.name, err)
	}
}

// growMap puts a larger map file in the place of the site's one.
func (s *site) growMap(size int64) error {
	if size == s.size {
		return nil
	}
	l, _, err := mapfile.Open(&mapDisk{s.mapFile, s.group}, nil)
	if err != nil {
		return err
	}
	larger := newMedium(s.w.rand, 0)
	if err := l.Grow(&mapDisk{larger, s.group}, size); err != nil {
		return err
	}
	s.w.tracef("site %s: the LUN grows from %d to %d bytes", s.name, s.size, size)
	s.mapFile, s.size = larger, size
	s.w.totals.Grown++
	return nil
}
