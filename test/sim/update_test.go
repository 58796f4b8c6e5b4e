package sim

import (
	"strings"
	"testing"
)

// update tells of an update that saw something, and wrote.
func (s *story) update(o *op, saw ...uint64) error {
	p := make([]byte, o.span.bytes())
	for i := range o.span.n {
		fill(p[i*sectorSize:(i+1)*sectorSize], saw[i*len(saw)/o.span.n])
	}
	return s.endUpdate(o, p, true, false, func(int64) bool { return false })
}

func (s *story) wantErr(err error, want string) {
	s.t.Helper()
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		s.t.Fatalf("%v, want %q", err, want)
	}
}

func TestLostUpdate(t *testing.T) {
	s := newStory(t)
	s.write(0)
	a, b := s.beginUpdate(0, block), s.beginUpdate(1, block)
	s.wantErr(s.update(a, 1), "")
	s.wantErr(s.update(b, 1), "a lost update")
}

func TestUpdatesInARow(t *testing.T) {
	s := newStory(t)
	a, b := s.beginUpdate(0, block), s.beginUpdate(1, block)
	s.wantErr(s.update(b, 0), "")
	s.good(0, 2)
	s.wantErr(s.update(a, 2), "")
	s.bad(1, notLinear, 2)
}

func TestNothingBetweenAnUpdateAndWhatItSaw(t *testing.T) {
	s := newStory(t)
	s.write(0)
	u := s.beginUpdate(0, block)
	w := s.beginWrite(1, block, false)
	s.good(1, w.id) // so it came before the update, or after it
	s.good(1, u.id)
	s.end(w)
	s.wantErr(s.update(u, 1), "comes between")
}

func TestUpdateOfAnOldValue(t *testing.T) {
	s := newStory(t)
	s.write(0)
	s.write(0)
	s.wantErr(s.update(s.beginUpdate(1, block), 1), notLinear)
}

func TestUpdateThatDidNotWrite(t *testing.T) {
	s := newStory(t)
	u := s.beginUpdate(0, block)
	if err := s.endUpdate(u, make([]byte, block.bytes()), false, false, func(int64) bool { return false }); err != nil {
		t.Fatal(err)
	}
	s.bad(0, "never there", u.id)
}

func TestHalfAnUpdate(t *testing.T) {
	s := &story{t, newHistory(8192, false)}
	both, half := span{0, 16}, span{8, 8}
	u := s.beginUpdate(0, both)
	s.wantErr(s.update(u, 0), "")
	w := s.beginWrite(1, half, false)
	if err := s.endWrite(w, half, false); err != nil {
		t.Fatal(err)
	}
	s.wantErr(s.update(s.beginUpdate(0, both), u.id, w.id), "") // overwritten since

	s = &story{t, newHistory(8192, false)}
	u = s.beginUpdate(0, both)
	v := s.beginUpdate(1, both) // while u is under way
	s.wantErr(s.update(v, u.id, 0), "half of update 1")
}

// The other site's process dies in the middle of an update: half of it may be there.
func TestHalfAnUpdateOfTheDead(t *testing.T) {
	s := &story{t, newHistory(8192, false)}
	both := span{0, 16}
	u := s.beginUpdate(0, both)
	s.kill(0)
	s.wantErr(s.update(s.beginUpdate(1, both), u.id, 0), "")
}
