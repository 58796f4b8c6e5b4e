package scsi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twinlun/twinlun/target/reservation"
	"github.com/twinlun/twinlun/target/sam"
	"github.com/twinlun/twinlun/target/sanitize"
)

// sanitizers are two sites that show one logical unit, and can sanitize it. Nothing is
// copied before the test says so.
type sanitizers struct {
	*twins
	copied atomic.Bool
}

func newSanitizers(t *testing.T, change func(*LUN)) *sanitizers {
	p := &sanitizers{twins: &twins{ab: &wire{}, ba: &wire{}}}
	disk := newRAM(64 * 512)
	rigs := [2]*hosts{}
	for i, w := range []*wire{p.ab, p.ba} {
		s, err := sanitize.Open(sanitize.Config{
			Path: filepath.Join(t.TempDir(), "s"), Disk: disk, BlockSize: 512, Copied: p.copied.Load,
			Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		l := testLUN(disk)
		l.Twin, l.Sanitizer, l.Removable = w, s, true
		change(&l)
		rigs[i] = newHosts(t, l)
		rigs[i].disk = disk
		t.Cleanup(s.Close)
	}
	p.a, p.b = rigs[0], rigs[1]
	p.ab.to, p.ba.to = p.b.target, p.a.target
	return p
}

func asItIs(*LUN) {}

// await asks until TEST UNIT READY ends so.
func (r *rig) await(want string) {
	r.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		got := outcome(r.do(unitReady, nil, 0))
		if got == want {
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("TEST UNIT READY: %q, and never %q", got, want)
		}
	}
}

// end lets the sanitize operation end.
func (p *sanitizers) end() {
	p.copied.Store(true)
	p.a.await("good")
	p.b.await("good")
}

const (
	unitReady  = "00 00 00 00 00 00"
	blockErase = "48 82 00 00 00 00 00 00 00 00"
	exitMode   = "48 1f 00 00 00 00 00 00 00 00"
)

// TestSanitizeRefused: what is wrong with a SANITIZE, and where.
func TestSanitizeRefused(t *testing.T) {
	for _, tt := range []struct{ name, cdb, list, want string }{
		{"reserved service action", "48 00", "", "5 2400 cc0001"},
		{"CRYPTOGRAPHIC ERASE", "48 03", "", "5 2400 cc0001"},
		{"ZNR", "48 42", "", "5 2400 ce0001"},
		{"reserved byte", "48 82 00 00 01", "", "5 2400 c80004"},
		{"BLOCK ERASE with a list", "48 82 00 00 00 00 00 00 08", zeros(8), "5 2400 c00007"},
		{"EXIT FAILURE MODE with a list", "48 1f 00 00 00 00 00 00 08", zeros(8), "5 2400 c00007"},
		{"OVERWRITE without a pattern", "48 81 00 00 00 00 00 00 04", "01 00 0000", "5 2400 c00007"},
		{"OVERWRITE with more than a block", "48 81 00 00 00 00 00 02 05", "01 00 0201" + zeros(513), "5 2400 c00007"},
		{"count 0", "48 81 00 00 00 00 00 00 05", "80 00 0001 aa", "5 2600 8c0000"},
		{"TEST", "48 81 00 00 00 00 00 00 05", "21 00 0001 aa", "5 2600 8d0000"},
		{"reserved in the list", "48 81 00 00 00 00 00 00 05", "01 01 0001 aa", "5 2600 800001"},
		{"pattern of no length", "48 81 00 00 00 00 00 00 05", "01 00 0000 aa", "5 2600 800002"},
		{"pattern of more than a block", "48 81 00 00 00 00 00 00 05", "01 00 0201 aa", "5 2600 800002"},
		{"pattern longer than the list", "48 81 00 00 00 00 00 00 05", "01 00 0002 aa", "5 1a00"},
		{"pattern shorter than the list", "48 81 00 00 00 00 00 00 06", "01 00 0001 aabb", "5 1a00"},
		{"the list is cut off", "48 81 00 00 00 00 00 00 06", "01 00 0002 aa", "5 1a00"},
	} {
		p := newSanitizers(t, asItIs)
		if got := outcome(p.a.do(tt.cdb, unhex(t, tt.list), 0)); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
		p.a.want(p.a.do(unitReady, nil, 0), "good")
		p.a.want(p.a.do(exitMode, nil, 0), "good") // there is nothing to leave
		if calls := p.a.disk.took(); calls != "" {
			t.Errorf("%s: the disk was asked for %s", tt.name, calls)
		}
	}
}

// TestSanitizeKeptOut: what keeps a host from it, here or at the other site.
func TestSanitizeKeptOut(t *testing.T) {
	reserve := func(r *rig) { r.want(r.do("16", nil, 0), "good") }
	protect := func(r *rig) { r.target.luns[0].restrict(func(g *guard) { g.protected = true }) }
	eject := func(r *rig) { r.target.luns[0].restrict(func(g *guard) { g.ejected = true }) }
	persist := func(r *rig) {
		u := r.target.luns[0]
		for _, c := range []reservation.Command{
			{Action: reservation.RegisterAndIgnore, From: reservation.Nexus{Initiator: "x", Port: 9}, NewKey: 1},
			{Action: reservation.Reserve, From: reservation.Nexus{Initiator: "x", Port: 9}, Key: 1, Type: reservation.WriteExclusive},
		} {
			if res, err := u.reservations.Apply(context.Background(), c); err != nil || res != reservation.Done {
				t.Fatal(res, err)
			}
		}
	}
	for _, tt := range []struct {
		name        string
		change      func(*LUN)
		here, there func(*rig)
		want        string
	}{
		{"RESERVE there", asItIs, nil, reserve, "conflict"},
		{"a persistent reservation here", asItIs, persist, nil, "conflict"},
		{"a persistent reservation there", asItIs, nil, persist, "conflict"},
		{"SWP here", asItIs, protect, nil, "7 2702"},
		{"SWP there", asItIs, nil, protect, "7 2700"},
		{"read only", func(l *LUN) { l.ReadOnly = true }, nil, nil, "7 2700"},
		{"no medium here", asItIs, eject, nil, "2 3a00"},
		{"no medium there", asItIs, nil, eject, "2 3a00"},
		{"no SANITIZE", func(l *LUN) { l.Sanitizer = nil }, nil, nil, "5 2000"},
	} {
		p := newSanitizers(t, tt.change)
		if tt.here != nil {
			tt.here(p.a.rig)
		}
		if tt.there != nil {
			tt.there(p.b.rig)
		}
		if got := outcome(p.a.do(blockErase, nil, 0)); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
		if calls := p.a.disk.took(); calls != "" {
			t.Errorf("%s: the disk was asked for %s", tt.name, calls)
		}
	}
	p := newSanitizers(t, asItIs)
	p.ab.state.Store(cut)
	p.a.want(p.a.do(blockErase, nil, 0), "2 0401")
	p.a.want(p.a.do(unitReady, nil, 0), "good")
}

// TestDuringSanitize: of all commands those that the standard lists are answered, at
// both sites; every other one tells the progress.
func TestDuringSanitize(t *testing.T) {
	p := newSanitizers(t, asItIs)
	ended := false
	p.b.nexus.(*nexus).UseTasks(aborts(func(_ [8]byte, _ *sam.Command, tas bool) { ended = tas }))
	p.a.want(p.a.do(blockErase, nil, 0), "good")
	if !ended {
		t.Error("commands at the other site are not ended with an answer")
	}
	listed := map[byte]bool{0x03: true, 0x12: true, 0xa0: true, 0xa3: true}
	for _, r := range []*rig{p.a.rig, p.b.rig} {
		for _, ops := range r.target.ops {
			for _, op := range ops {
				cdb := append(bytes.Clone(op.usage[:2]), make([]byte, 14)...)
				cdb[1] = byte(max(op.action, 0))
				c := &sam.Command{CDB: cdb, Ctx: context.Background()}
				ran := r.nexus.Prepare(c)
				busy := !ran && len(c.Sense) == senseSize && c.Sense[2] == 2 && bytes.Equal(c.Sense[12:14], []byte{0x04, 0x1b}) && c.Sense[15] == 0x80
				if listed[cdb[0]] == busy || !listed[cdb[0]] && ran {
					t.Errorf("CDB %x: runs: %v, %s", cdb, ran, outcome(c))
				}
			}
		}
		c := r.do("03 00 00 00 12", nil, 18)
		if got := c.In[:c.InLen]; len(got) != 18 || got[2] != 2 || got[12] != 4 || got[13] != 0x1b || got[15] != 0x80 {
			t.Errorf("REQUEST SENSE: % x", got)
		}
		c = r.do("03 01 00 00 ff", nil, 255)
		if got := c.In[:c.InLen]; len(got) != 16 || !bytes.Equal(got[:4], unhex(t, "72 02 04 1b")) || !bytes.Equal(got[7:13], unhex(t, "08 02 06 00 00 80")) {
			t.Errorf("REQUEST SENSE, descriptors: % x", got)
		}
		if !r.nexus.Reset(context.Background(), sam.LogicalUnitReset, [8]byte{}) {
			t.Error("no reset")
		}
		for _, other := range []*rig{p.a.rig, p.b.rig} {
			other.ua("2903")
			other.await("2 041b " + "80" + fmtProgress(other))
		}
	}
	p.end()
	for _, r := range []*rig{p.a.rig, p.b.rig} {
		r.wantData(r.do("03 00 00 00 12", nil, 18), "70 00 00 00000000 0a"+zeros(10))
	}
	if !allZero(p.a.disk.p) {
		t.Error("it is not erased")
	}
}

// fmtProgress is the progress that a unit tells now.
func fmtProgress(r *rig) string {
	c := r.do("03 00 00 00 12", nil, 18)
	const digits = "0123456789abcdef"
	return string([]byte{digits[c.In[16]>>4], digits[c.In[16]&15], digits[c.In[17]>>4], digits[c.In[17]&15]})
}

// Without IMMED the command waits; aborting it does not end what it has begun.
func TestSanitizeIsNotAborted(t *testing.T) {
	p := newSanitizers(t, asItIs)
	ctx, cancel := context.WithCancel(context.Background())
	list := unhex(t, "01 00 0003 aabbcc")
	c := &sam.Command{CDB: append(unhex(t, "48 01 00 00 00 00 00 00 07 00"), make([]byte, 6)...), Ctx: ctx, ExpectOut: 7}
	if !p.a.nexus.Prepare(c) {
		t.Fatal(outcome(c))
	}
	c.Out = list
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.a.nexus.Execute(c)
	}()
	for p.a.unit().sanitizer.State().Phase != sanitize.Running { // before, it is given up
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-done
	p.a.want(p.a.do("28 00 00000000 00 0001 00", nil, 512), "2 041b 80"+fmtProgress(p.a.rig))
	p.end()
	if want := bytes.Repeat(unhex(t, "aabbcc"), 171)[:512]; !bytes.Equal(p.a.disk.p[512:1024], want) {
		t.Errorf("a block is % x", p.a.disk.p[512:520])
	}
}

// TestSanitizeFails: the failure mode, and the ways out of it.
func TestSanitizeFails(t *testing.T) {
	for _, free := range []bool{true, false} {
		p := newSanitizers(t, asItIs)
		p.copied.Store(true)
		break1 := func(err error) {
			p.a.disk.Lock()
			defer p.a.disk.Unlock()
			p.a.disk.fail = err
		}
		break1(errors.New("the medium"))
		cdb, exit := "48 02", "5 2400 cc0001"
		if free {
			cdb, exit = "48 22", "good"
		}
		p.a.want(p.a.do(cdb, nil, 0), "3 3103")
		p.b.await("3 3103")
		for _, r := range []*rig{p.a.rig, p.b.rig} {
			r.want(r.do("28 00 00000000 00 0001 00", nil, 512), "3 3103")
			r.want(r.do("12 00 00 00 24", nil, 36), "good")
			r.wantData(r.do("03 00 00 00 12", nil, 18), "70 00 03 00000000 0a 00000000 3103"+zeros(4))
		}
		if !free {
			p.b.want(p.b.do("48 22", nil, 0), "5 2400 cd0001") // AUSE, after one without
		}
		p.b.want(p.b.do(exitMode, nil, 0), exit)
		if free {
			p.end()
			continue
		}
		break1(nil)
		p.b.want(p.b.do("48 02", nil, 0), "good")
		p.end()
	}
}

// TestCopyDuringSanitize: a copy of another unit's neither reads nor writes one that is
// being sanitized, and what it is at when that begins is waited for.
func TestCopyDuringSanitize(t *testing.T) {
	p := newSanitizers(t, asItIs)
	u := p.a.target.luns[0]
	u.visits.enter()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := u.endOthers(&sam.Command{Ctx: ctx}); err == nil {
		t.Error("it does not wait for a copy")
	}
	gone := make(chan error)
	go func() { gone <- u.endOthers(&sam.Command{Ctx: context.Background()}) }()
	u.visits.leave()
	if err := <-gone; err != nil {
		t.Error(err)
	}
	other := testLUN(newRAM(64 * 512))
	other.NAA[15] = 0x10
	if err := p.a.target.AddLUN(1, other); err != nil {
		t.Fatal(err)
	}
	p.a.ua("3f0e")
	p.a.want(p.a.do(blockErase, nil, 0), "good")
	for _, tt := range []struct{ from, to int }{{0, 1}, {1, 0}} {
		list := list1(t, 1, 0, cscd(naa0, 512)+cscd(naa1, 512), segment(tt.from, tt.to, 1, 0, 0))
		cdb := make([]byte, 16)
		cdb[0], cdb[12], cdb[13] = 0x83, byte(len(list)>>8), byte(len(list))
		c := run(p.a.nexus, [8]byte{1: 1}, cdb, list, 0)
		for outcome(c)[0] == '6' {
			c = run(p.a.nexus, [8]byte{1: 1}, cdb, list, 0)
		}
		if got := outcome(c); got[:6] != "2 041b" {
			t.Errorf("a copy from %d to %d: %s", tt.from, tt.to, got)
		}
	}
	p.end()
}
