package scsi

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/twinlun/twinlun/target/sam"
)

// wire is a Twin that reaches a Target directly, while it is not cut.
type wire struct {
	mu  sync.Mutex
	to  *Target
	cut bool
}

func (w *wire) Tell(ctx context.Context, topic uint16, body []byte) ([]byte, error) {
	w.mu.Lock()
	cut := w.cut
	w.mu.Unlock()
	if cut {
		return nil, errors.New("the link is down")
	}
	answer, ok := w.to.Heard(ctx, 0, topic, body)
	if !ok {
		return nil, errors.New("not understood")
	}
	return answer, nil
}

func (w *wire) set(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
}

// twins are two sites that show one logical unit.
type twins struct {
	a, b   *rig
	ab, ba *wire
}

func newTwins(t *testing.T) *twins {
	p := &twins{ab: &wire{}, ba: &wire{}}
	disk := newRAM(64 * 512)
	la, lb := testLUN(disk), testLUN(disk)
	la.Twin, lb.Twin, la.Removable, lb.Removable = p.ab, p.ba, true, true
	p.a, p.b = newHosts(t, la).rig, newHosts(t, lb).rig
	p.ab.to, p.ba.to = p.b.target, p.a.target
	return p
}

func (p *twins) joined() {
	p.a.target.Joined(context.Background(), 0)
	p.b.target.Joined(context.Background(), 0)
}

// A reset at one site is one at the other: commands end, RESERVE and modes go, all
// nexuses are told.
func TestResetReachesTheOtherSite(t *testing.T) {
	for _, tt := range []struct {
		f  sam.TaskFunction
		ua string
	}{{sam.LogicalUnitReset, "2903"}, {sam.TargetWarmReset, "2902"}, {sam.TargetColdReset, "2900"}} {
		p := newTwins(t)
		ended := 0
		p.b.nexus.(*nexus).UseTasks(aborts(func(lun [8]byte, by *sam.Command, tas bool) { ended++ }))
		p.b.want(p.b.do("16 00 00 00 00 00", nil, 0), "good")
		if !p.a.nexus.Reset(tt.f, [8]byte{}) {
			t.Fatal("refused")
		}
		if ended != 1 {
			t.Errorf("function %d: commands were ended %d times", tt.f, ended)
		}
		p.a.ua(tt.ua)
		p.b.ua(tt.ua)
		if p.b.target.luns[0].holderOfOld() != nil {
			t.Errorf("function %d: RESERVE is still there", tt.f)
		}
	}
}

func TestClearTaskSetReachesTheOtherSite(t *testing.T) {
	p := newTwins(t)
	p.b.nexus.(*nexus).UseTasks(aborts(func([8]byte, *sam.Command, bool) {}))
	p.a.nexus.Reset(sam.ClearTaskSet, [8]byte{})
	p.b.ua("2f00")
	p.a.want(p.a.do("00 00 00 00 00 00", nil, 0), "good")
}

// Resets from both sites at once, with settings in between, all end.
func TestResetStorm(t *testing.T) {
	p := newTwins(t)
	var all sync.WaitGroup
	for _, h := range []*rig{p.a, p.b} {
		for range 8 {
			all.Go(func() {
				for range 50 {
					h.nexus.Reset(sam.LogicalUnitReset, [8]byte{})
					h.target.Joined(context.Background(), 0)
				}
			})
		}
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("they wait for each other")
	}
}

const (
	selectCaching = "15 10 00 00 18 00" // MODE SELECT (6): a header, the caching page
	unitReady     = "00 00 00 00 00 00"
	unitEject     = "1b 00 00 00 02 00"
	unitLoad      = "1b 00 00 00 03 00"
)

// What a host sets at one site holds at both, also when the other one hears of it only
// after the next join, and when both have set something meanwhile.
func TestSettingsReachTheOtherSite(t *testing.T) {
	p := newTwins(t)
	off := func(h *rig) bool { return h.target.luns[0].writeThrough.Load() }
	p.a.want(p.a.do(selectCaching, unhex(t, "00000000"+cachingOff), 0), "good")
	if !off(p.b) {
		t.Error("the write cache is on at the other site")
	}
	p.b.ua("2a01")
	p.a.want(p.a.do(unitReady, nil, 0), "good")

	p.ab.set(true)
	p.ba.set(true)
	p.a.want(p.a.do(selectCaching, unhex(t, "00000000"+cachingOn), 0), "good")
	if !off(p.b) {
		t.Error("the cut link carries")
	}
	p.b.want(p.b.do(unitEject, nil, 0), "good")
	p.ab.set(false)
	p.ba.set(false)
	p.joined()
	ua, ub := p.a.target.luns[0], p.b.target.luns[0]
	if sa, sb := ua.settingsLocked(), ub.settingsLocked(); sa != sb {
		t.Errorf("the sites have %v and %v", sa, sb)
	}
}

func TestMediumOfBothSites(t *testing.T) {
	p := newTwins(t)
	p.a.want(p.a.do(unitEject, nil, 0), "good")
	p.b.want(p.b.do(unitReady, nil, 0), "2 3a00")
	p.b.want(p.b.do(unitLoad, nil, 0), "good")
	p.a.ua("2800")
	p.a.want(p.a.do(unitReady, nil, 0), "good")
}

// Whatever is told, what is not understood changes nothing.
func TestHeardNonsense(t *testing.T) {
	p := newTwins(t)
	for _, tt := range []struct {
		number, topic uint16
		body          string
		understood    bool
	}{
		{0, 9, "", false}, {0, topicTask, "", false}, {0, topicTask, "0505", false}, {0, topicTask, "09", true},
		{0, topicSettings, "00000001", false}, {7, topicTask, "05", true},
	} {
		if _, ok := p.b.target.Heard(t.Context(), tt.number, tt.topic, unhex(t, tt.body)); ok != tt.understood {
			t.Errorf("topic %d, % x: understood %v", tt.topic, tt.body, ok)
		}
	}
	p.b.want(p.b.do(unitReady, nil, 0), "good")
}
