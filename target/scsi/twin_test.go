package scsi

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinlun/twinlun/target/sam"
)

// wire is a Twin that reaches a Target directly.
type wire struct {
	to     *Target
	state  atomic.Int32
	tells  atomic.Int32
	before func() // something is heard; nil: nothing
	after  func() // between what is heard and the answer; nil: nothing
}

// States of a wire.
const (
	whole  = iota
	cut    // nothing arrives
	lossy  // everything arrives, and no answer does
	older  // the other site does not understand
	silent // nobody answers
)

func (w *wire) Tell(ctx context.Context, topic uint16, body []byte) (answer []byte, err error) {
	w.tells.Add(1)
	switch state := w.state.Load(); state {
	case whole, lossy:
		if w.before != nil {
			w.before()
		}
		answer, ok := w.to.Heard(ctx, 0, topic, body)
		if w.after != nil {
			w.after()
		}
		if ok && state == whole {
			return answer, nil
		}
		return nil, errors.New("no answer")
	case silent:
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return nil, errors.New("the link is down, or the other site is older")
}

// twins are two sites that show one logical unit, each to hosts a, b and c.
type twins struct {
	a, b   *hosts
	da, db *ram
	ab, ba *wire
}

func newTwins(t *testing.T) *twins {
	p := &twins{ab: &wire{}, ba: &wire{}, da: newRAM(64 * 512), db: newRAM(64 * 512)}
	la, lb := testLUN(p.da), testLUN(p.db)
	la.Twin, lb.Twin, la.Removable, lb.Removable = p.ab, p.ba, true, true
	p.a, p.b = newHosts(t, la), newHosts(t, lb)
	p.ab.to, p.ba.to = p.b.target, p.a.target
	return p
}

func (h *hosts) unit() *unit { return h.target.luns[0] }

func (p *twins) set(state int32) {
	p.ab.state.Store(state)
	p.ba.state.Store(state)
}

// join mends the link, and returns when both sites have told what there is.
func (p *twins) join() {
	p.set(whole)
	for _, h := range []*hosts{p.a, p.b} {
		h.target.Joined(context.Background(), 0)
		h.unit().tellTwin(0).wait(context.Background())
	}
}

// settings are a unit's, for a test: WCE, TAS, SWP, ejected.
func (h *hosts) settings() (all [settingCount]bool) {
	for i := range all {
		all[i] = h.unit().setting(i)
	}
	return all
}

// all takes the next unit attention of every host, or none.
func (h *hosts) all(want string) {
	h.t.Helper()
	for _, r := range h.by {
		r.want(r.do("00", nil, 0), want)
	}
}

const (
	unitEject = "1b 00 00 00 02"
	unitLoad  = "1b 00 00 00 03"
	prevent   = "1e 00 00 00 01"
	allow     = "1e 00 00 00 00"
)

// A reset at one site is one at the other: the commands of all nexuses end, RESERVE,
// modes and PREVENT go, and all are told.
func TestResetReachesTheOtherSite(t *testing.T) {
	for _, tt := range []struct {
		f  sam.TaskFunction
		ua string
	}{{sam.LogicalUnitReset, "6 2903"}, {sam.TargetWarmReset, "6 2902"}, {sam.TargetColdReset, "6 2900"}} {
		p := newTwins(t)
		var ended atomic.Int32
		for _, r := range p.b.by {
			r.nexus.(*nexus).UseTasks(aborts(func(_ [8]byte, _ *sam.Command, tas bool) {
				if ended.Add(1); tas {
					t.Errorf("function %d: commands are answered", tt.f)
				}
			}))
		}
		p.b.want(p.b.do("16", nil, 0), "good")
		p.b.want(p.b.do(prevent, nil, 0), "good")
		p.b.mode(cachingOff + controlSWP)
		p.a.all("6 2a01")
		p.b.by["b"].ua("2a01")
		p.b.by["c"].ua("2a01")
		if !p.a.nexus.Reset(t.Context(), tt.f, [8]byte{}) {
			t.Fatal("refused")
		}
		if n := int(ended.Load()); n != len(p.b.by) {
			t.Errorf("function %d: the commands of %d nexuses were ended", tt.f, n)
		}
		for _, h := range []*hosts{p.a, p.b} {
			h.all(tt.ua)
			h.all("good")
			if got := h.settings(); got != [settingCount]bool{settingCache: true} {
				t.Errorf("function %d: settings %v", tt.f, got)
			}
		}
		if p.b.unit().holderOfOld() != nil || p.b.unit().prevented() {
			t.Errorf("function %d: RESERVE or PREVENT is still there", tt.f)
		}
	}
}

// The other site's commands are answered if the control mode page says so.
func TestResetWithTAS(t *testing.T) {
	p := newTwins(t)
	p.a.mode("0a 0a 00 10 00 40 00000000 0000")
	answered := make(chan bool, 1)
	p.b.nexus.(*nexus).UseTasks(aborts(func(_ [8]byte, _ *sam.Command, tas bool) { answered <- tas }))
	p.a.nexus.Reset(t.Context(), sam.LogicalUnitReset, [8]byte{})
	if !<-answered {
		t.Error("they end without a word")
	}
}

// CLEAR TASK SET is about one task set: those at the other site are told whose commands
// it ended, and nobody else.
func TestClearTaskSetReachesTheOtherSite(t *testing.T) {
	p := newTwins(t)
	p.b.nexus.(*nexus).UseTasks(aborts(func([8]byte, *sam.Command, bool) {}))
	p.b.mode(cachingOff)
	p.a.all("6 2a01")
	p.b.by["b"].ua("2a01")
	p.a.nexus.Reset(t.Context(), sam.ClearTaskSet, [8]byte{})
	p.b.ua("2f00")
	p.b.by["b"].want(p.b.by["b"].do("00", nil, 0), "good")
	p.a.all("good")
	if p.b.settings()[settingCache] {
		t.Error("it has reset the modes")
	}
}

// A reset that the other site does not hear of is answered all the same. Its hosts are
// told when the sites have joined, once; what they do then goes on.
func TestResetWhileTheLinkIsDown(t *testing.T) {
	for _, state := range []int32{cut, lossy, older} {
		p := newTwins(t)
		p.b.want(p.b.do("16", nil, 0), "good")
		p.set(state)
		p.a.nexus.Reset(t.Context(), sam.LogicalUnitReset, [8]byte{})
		p.a.all("6 2903")
		if state == lossy {
			p.b.all("6 2903")
		}
		p.a.mode(cachingOff) // another message that is lost
		p.a.settle()
		p.b.settle()
		if held := p.b.unit().holderOfOld() != nil; held != (state != lossy) {
			t.Errorf("state %d: reserved %v", state, held)
		}
		ended := 0
		p.b.nexus.(*nexus).UseTasks(aborts(func([8]byte, *sam.Command, bool) { ended++ }))
		p.join()
		p.b.all("6 2903")
		if state != lossy {
			p.b.all("6 2a01")
		}
		if p.b.unit().holderOfOld() != nil || ended > 0 || p.b.settings()[settingCache] {
			t.Errorf("state %d, joined: RESERVE is still there, or commands were ended %d times", state, ended)
		}
		p.join()
		p.b.all("good")
		p.a.all("good")
	}
}

// Nobody waits for ever: neither for who does not answer, nor longer than who asked.
func TestResetIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTwins(t)
		p.ab.state.Store(silent)
		began := time.Now()
		for range 3 {
			p.a.nexus.Reset(t.Context(), sam.LogicalUnitReset, [8]byte{})
		}
		if took := time.Since(began); took != 3*twinLimit {
			t.Errorf("three resets took %v", took)
		}
		var all sync.WaitGroup
		began = time.Now()
		for range 100 {
			all.Go(func() { p.a.nexus.Reset(t.Context(), sam.LogicalUnitReset, [8]byte{}) })
		}
		all.Wait()
		if took := time.Since(began); took > 2*twinLimit {
			t.Errorf("a hundred at once took %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began = time.Now()
		p.a.nexus.Reset(ctx, sam.LogicalUnitReset, [8]byte{})
		if took := time.Since(began); took != time.Second {
			t.Errorf("who gives up after a second waited for %v", took)
		}
		time.Sleep(twinLimit) // the message goes on
	})
}

// Commands at the other site that do not end hold an answer up, but not for ever.
func TestResetWhileACommandHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTwins(t)
		p.b.nexus.(*nexus).UseTasks(aborts(func(_ [8]byte, by *sam.Command, _ bool) { <-by.Ctx.Done() }))
		ended := false
		p.b.by["c"].nexus.(*nexus).UseTasks(aborts(func([8]byte, *sam.Command, bool) { ended = true }))
		began := time.Now()
		p.a.nexus.Reset(t.Context(), sam.LogicalUnitReset, [8]byte{})
		if took := time.Since(began); took != hearLimit || !ended {
			t.Errorf("it took %v, another host's commands ended %v", took, ended)
		}
		p.b.all("6 2903")
	})
}

// Resets from both sites at once all end, each after one at the other site that began
// after it; and what comes while a message is on its way shares the next one.
func TestResetStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTwins(t)
		for _, w := range []*wire{p.ab, p.ba} {
			w.after = func() { time.Sleep(time.Second) }
		}
		var all sync.WaitGroup
		began := time.Now()
		for _, h := range []*hosts{p.a, p.b} {
			for range 200 {
				all.Go(func() {
					for range 5 {
						h.nexus.Reset(t.Context(), sam.LogicalUnitReset, [8]byte{})
					}
				})
			}
		}
		all.Wait()
		if took := time.Since(began); took > 20*time.Second || p.ab.tells.Load() > 20 {
			t.Errorf("1000 resets at each site took %v and %d messages", took, p.ab.tells.Load())
		}
		p.a.all("6 2903")
		p.b.all("6 2903")
	})
}

// A host that resets while the message of another one is on its way waits for one of
// its own: commands that came between are ended, too.
func TestResetWaitsForItsOwnMessage(t *testing.T) {
	p := newTwins(t)
	onItsWay, goOn := make(chan struct{}, 2), make(chan struct{})
	p.ab.after = func() { onItsWay <- struct{}{}; <-goOn }
	var all sync.WaitGroup
	all.Go(func() { p.a.nexus.Reset(t.Context(), sam.LogicalUnitReset, [8]byte{}) })
	<-onItsWay
	second := make(chan struct{})
	all.Go(func() { p.a.nexus.Reset(t.Context(), sam.LogicalUnitReset, [8]byte{}); close(second) })
	goOn <- struct{}{}
	<-onItsWay
	select {
	case <-second:
		t.Error("the first one's answer has ended the second")
	default:
	}
	goOn <- struct{}{}
	all.Wait()
	if n := p.ab.tells.Load(); n != 2 {
		t.Errorf("%d messages", n)
	}
}

// What a host sets at one site holds at both, and hosts of both are told, but for the
// one that did it; what the other site has cached is made durable.
func TestSettingsReachTheOtherSite(t *testing.T) {
	p := newTwins(t)
	p.da.took()
	p.db.took()
	p.a.mode(cachingOff + controlSWP)
	for _, h := range []*hosts{p.a, p.b} {
		if got := h.settings(); got != [settingCount]bool{settingProtected: true} {
			t.Errorf("settings %v", got)
		}
	}
	if a, b := p.da.took(), p.db.took(); a != "sync" || b != "sync" {
		t.Errorf("the disks saw %q and %q", a, b)
	}
	p.b.all("6 2a01")
	p.a.want(p.a.do("00", nil, 0), "good")
	p.a.by["b"].ua("2a01")
	p.b.want(p.b.do("2a 00 00000000 00 0001", make([]byte, 512), 0), protected)
	p.a.mode(cachingOff + controlSWP) // no change, nothing to tell
	p.b.all("good")
}

// A change whose message is still on its way when the other site resets the unit is
// reset, too, whoever hears what first.
func TestResetMeetsAChange(t *testing.T) {
	p := newTwins(t)
	onItsWay, goOn := make(chan struct{}), make(chan struct{})
	p.ba.before = func() { onItsWay <- struct{}{}; <-goOn }
	var changing sync.WaitGroup
	changing.Go(func() { p.b.mode(cachingOff) })
	<-onItsWay
	p.a.nexus.Reset(t.Context(), sam.LogicalUnitReset, [8]byte{})
	close(goOn)
	changing.Wait()
	if a, b := p.a.settings(), p.b.settings(); a != b || !a[settingCache] || p.a.unit().versions() != p.b.unit().versions() {
		t.Errorf("the sites have %v and %v", a, b)
	}
}

// A cache at the other site that cannot be made durable is told to who turned it off.
func TestCacheOffFailsAtTheOtherSite(t *testing.T) {
	p := newTwins(t)
	p.db.fail = errors.New("bad sector")
	list := unhex(t, "00000000"+cachingOff)
	p.a.want(p.a.do("15 10 00 00 18 00", list, 0), "3 0c00")
	p.b.all("6 2a01")
}

// One that takes long is not waited for, and no fault.
func TestCacheOffTakesLongAtTheOtherSite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTwins(t)
		p.b.unit().disk = stuckDisk{p.db}
		began := time.Now()
		p.a.mode(cachingOff)
		if took := time.Since(began); took != hearLimit || p.b.settings()[settingCache] {
			t.Errorf("it took %v, and the cache there is on: %v", took, p.b.settings()[settingCache])
		}
	})
}

// TestMediumOfBothSites runs scripts: who ejects, loads, prevents and allows, and what
// comes of it. "a" is host a of site a, "B" is host b of site b; "cut" and "join" are
// about the link.
func TestMediumOfBothSites(t *testing.T) {
	const gone, held = "2 3a00", "5 5302"
	type step struct{ who, cdb, want string }
	for name, script := range map[string][]step{
		"ejected at one, loaded at the other": {
			{"a", unitEject, "good"}, {"B", "00", gone}, {"b", "00", gone}, {"B", unitLoad, "good"},
			{"B", "00", "good"}, {"A", "00", "6 2800"}, {"a", "00", "6 2800"}, {"b", "00", "6 2800"}, {"a", "00", "good"}},
		"prevented": {
			{"B", prevent, "good"}, {"a", unitEject, held}, {"a", "00", "good"}, {"b", unitEject, held},
			{"B", allow, "good"}, {"a", unitEject, "good"}, {"B", "00", gone}},
		"prevented, and reset": {{"B", prevent, "good"}, {"a", "reset", ""}, {"a", "00", "6 2903"}, {"a", unitEject, "good"}},
		"nobody can be asked": {
			{"B", prevent, "good"}, {"", "cut", ""}, {"a", unitEject, "good"}, {"B", "00", "good"},
			{"", "join", ""}, {"B", "00", gone}},
		"both move it": {
			{"", "cut", ""}, {"a", unitEject, "good"}, {"a", unitLoad, "good"}, {"b", unitEject, "good"},
			{"", "join", ""}, {"a", "00", "good"}, {"b", "00", "6 2800"}, {"b", "00", "good"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newTwins(t)
			by := map[string]*rig{"a": p.a.by["a"], "A": p.a.by["b"], "b": p.b.by["a"], "B": p.b.by["b"]}
			for _, s := range script {
				switch s.cdb {
				case "cut":
					p.set(cut)
				case "join":
					p.join()
				case "reset":
					by[s.who].nexus.Reset(t.Context(), sam.LogicalUnitReset, [8]byte{})
				default:
					t.Logf("%s: %s", s.who, s.cdb)
					by[s.who].want(by[s.who].do(s.cdb, nil, 0), s.want)
				}
			}
		})
	}
}

// A medium whose cache cannot be made durable at one site stays in at both.
func TestEjectFailsAtEitherSite(t *testing.T) {
	for _, fails := range []func(*twins) *ram{func(p *twins) *ram { return p.da }, func(p *twins) *ram { return p.db }} {
		p := newTwins(t)
		disk := fails(p)
		disk.fail = errors.New("bad sector")
		p.a.want(p.a.do(unitEject, nil, 0), "3 0c00")
		disk.fail = nil
		p.a.all("good")
		if !p.b.unit().present() {
			t.Error("the other site has lost it")
		}
	}
}

// Hosts of both sites change and reset as they like while the link is cut, loses
// answers, and joins: in the end both sites have the same settings, and what is changed
// then holds at both.
func TestSettingsConverge(t *testing.T) {
	pages := []string{cachingOn, cachingOff, controlOff, controlSWP, "0a 0a 00 10 00 40 00000000 0000"}
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		p := newTwins(t)
		var script []string
		for range 1 + r.IntN(12) {
			h, site := p.a, "a"
			if r.IntN(2) == 0 {
				h, site = p.b, "b"
			}
			switch n := r.IntN(10); n {
			case 0:
				h.nexus.Reset(t.Context(), sam.LogicalUnitReset, [8]byte{})
			case 1, 2:
				run(h.nexus, [8]byte{}, append(unhex(t, []string{unitEject, unitLoad}[n-1]), 0), nil, 0)
			case 3:
				p.join()
			case 4, 5:
				[]*wire{p.ab, p.ba}[r.IntN(2)].state.Store(r.Int32N(older))
			default:
				list := unhex(t, "00000000"+pages[r.IntN(len(pages))])
				run(h.nexus, [8]byte{}, []byte{0x15, 0x10, 0, 0, byte(len(list)), 0}, list, 0)
			}
			script = append(script, fmt.Sprint(site, h.settings(), h.unit().versions()))
		}
		p.join()
		if a, b := p.a.settings(), p.b.settings(); a != b || p.a.unit().versions() != p.b.unit().versions() {
			t.Fatalf("seed %d: the sites have %v and %v\n%v", seed, a, b, script)
		}
		p.a.settle()
		p.b.settle()
		p.a.mode(cachingOff)
		p.b.settle()
		p.b.mode(cachingOn)
		if a, b := p.a.settings(), p.b.settings(); a != b || !a[settingCache] {
			t.Fatalf("seed %d: after a change at each site they have %v and %v\n%v", seed, a, b, script)
		}
	}
}

// settle takes all unit attentions.
func (h *hosts) settle() {
	for _, r := range h.by {
		for range 32 {
			if c := r.do("00", nil, 0); c.Status != sam.CheckCondition || c.Sense[2] != 6 {
				break
			}
		}
	}
}

// stuckDisk is a disk that makes nothing durable: as one whose replica waits for its
// peer, or is closed to be opened anew.
type stuckDisk struct{ *ram }

func (stuckDisk) Sync(ctx context.Context) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// What is heard waits for nothing that waits for the replica, which waits for it when it
// is closed: not for a host's command, and no longer than its context.
func TestHeardWhileTheDiskWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := testLUN(stuckDisk{newRAM(64 * 512)})
		way := &wire{}
		way.state.Store(cut)
		l.Twin, l.Removable = way, true
		h := newHosts(t, l)
		host, abort := context.WithCancel(t.Context())
		list := unhex(t, "00000000"+cachingOff)
		c := &sam.Command{CDB: []byte{0x15, 0x10, 0, 0, byte(len(list)), 0}, Ctx: host, ExpectOut: uint32(len(list))}
		h.nexus.Prepare(c)
		c.Out = list
		var running sync.WaitGroup
		running.Go(func() { h.nexus.Execute(c) })
		synctest.Wait()
		ctx, closing := context.WithCancel(t.Context())
		newer := h.unit().encode(nil)
		for i := range settingCount {
			newer[i*settingSize], newer[i*settingSize+8] = 1, 1 // ejected, among others
		}
		h.target.Joined(ctx, 0)
		if _, ok := h.target.Heard(ctx, 0, topicUnit, append([]byte{toldReset, 0}, newer[:settingSize]...)); !ok {
			t.Error("a reset is not understood")
		}
		heard := false
		running.Go(func() {
			h.target.Heard(ctx, 0, topicUnit, append([]byte{0, 0}, newer...))
			heard = true
		})
		synctest.Wait()
		if heard {
			t.Error("it is heard, and the disk has flushed nothing")
		}
		closing()
		synctest.Wait()
		if !heard {
			t.Error("the connection is gone, and it still waits")
		}
		abort()
		running.Wait()
	})
}

// Whatever is told, what is not understood changes nothing.
func TestHeardNonsense(t *testing.T) {
	p := newTwins(t)
	for _, tt := range []struct {
		number, topic uint16
		body          string
		understood    bool
	}{
		{0, 99, "", false}, {0, topicUnit, "", false}, {0, topicUnit, "00", false}, {7, topicUnit, "0000", false},
		{0, topicUnit, "0000", true}, {0, topicUnit, "0000 00000000", true}, {0, topicUnit, "f0f0", true},
		{0, topicMedium, "00", true},
	} {
		if _, ok := p.b.target.Heard(t.Context(), tt.number, tt.topic, unhex(t, tt.body)); ok != tt.understood {
			t.Errorf("LUN %d, topic %d, % x: understood %v", tt.number, tt.topic, tt.body, ok)
		}
	}
	p.b.all("good")
	if got := p.b.settings(); got != [settingCount]bool{settingCache: true} {
		t.Errorf("settings %v", got)
	}
}
