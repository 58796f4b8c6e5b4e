package sim

import (
	"time"

	"github.com/twinlun/twinlun/replication"
)

// compareSites has a site compare both replicas, while hosts and trouble go on.
func (s *site) compareSites() {
	if s.rep == nil || s.stopped || s.growing {
		return
	}
	o := replication.VerifyOptions{Rate: []int64{0, 1 << 16, 1 << 20}[s.w.rand.IntN(3)]}
	if err := s.rep.StartVerify(o); err != nil {
		s.w.tracef("site %s does not compare: %v", s.name, err)
	}
}

// compared takes what came of it: no trouble makes the replicas differ where they must not.
func (s *site) compared(v replication.VerifyStatus) {
	s.w.tracef("site %s has compared: %+v", s.name, v)
	if v.Differing != 0 || v.Unread != 0 {
		s.w.fail("site %s: the replicas are said to differ: %+v", s.name, v)
	}
	s.w.totals.Compared += v.Compared
}

// compareAtRest compares what is at rest: everything can be compared then. It returns when
// that is done.
func (w *world) compareAtRest() {
	s := w.sites[w.rand.IntN(2)]
	s.rep.StopVerify()
	done := func() bool { v, any := s.rep.VerifyStatus(); return !any || !v.Running() }
	for !done() {
		w.sleep(100 * time.Millisecond)
	}
	if err := s.rep.StartVerify(replication.VerifyOptions{}); err != nil {
		w.fail("site %s does not compare: %v", s.name, err)
		return
	}
	for !done() {
		w.sleep(100 * time.Millisecond)
	}
	if v, _ := s.rep.VerifyStatus(); v.Compared != v.Size || v.Err != "" {
		w.fail("site %s: not everything is compared at rest: %+v", s.name, v)
	}
}
