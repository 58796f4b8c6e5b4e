package scsi

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/twinlun/twinlun/target/sam"
)

// on runs a CDB on a LUN.
func (r *rig) on(lun byte, cdb string, expectIn int) *sam.Command {
	r.t.Helper()
	p := unhex(r.t, cdb)
	return run(r.nexus, [8]byte{1: lun}, append(p, make([]byte, 16-len(p))...), nil, expectIn)
}

// settle takes all unit attentions of a LUN.
func (r *rig) settle(lun byte) {
	r.t.Helper()
	for range 10 {
		if outcome(r.on(lun, "00", 0)) == "good" {
			return
		}
	}
	r.t.Fatalf("LUN %d does not become ready", lun)
}

// newMany is a target with LUNs 0, 1 and 2 whose every byte is their number, and two
// initiators.
func newMany(t *testing.T, masked bool) (target *Target, one, two *rig) {
	target = NewTarget(Config{Name: testName, Masked: masked})
	for i := range byte(3) {
		disk := newRAM(64 * 512)
		for j := range disk.p {
			disk.p[j] = i
		}
		if err := target.AddLUN(uint16(i), testLUN(disk)); err != nil {
			t.Fatal(err)
		}
	}
	rigs := [2]*rig{}
	for i, name := range []string{"one", "two"} {
		rigs[i] = &rig{t: t, target: target, nexus: target.NewNexus(sam.InitiatorPort{Name: name}, 1)}
	}
	return target, rigs[0], rigs[1]
}

// sees checks what is behind an initiator's LUNs: "0=2 1=1" is LUN 0, unit 2 …
func (r *rig) sees(want string) {
	r.t.Helper()
	c := r.do("a0 00 00 000000 000000ff 00 00", nil, 255)
	r.want(c, "good")
	var got []string
	for p := c.In[8:c.InLen]; len(p) > 0; p = p[8:] {
		r.settle(p[1])
		d := r.on(p[1], "28 00 00000005 00 0001 00", 512)
		r.want(d, "good")
		if !bytes.Equal(d.In, bytes.Repeat(d.In[:1], 512)) {
			r.t.Errorf("LUN %d has bytes of several units", p[1])
		}
		got = append(got, fmt.Sprintf("%d=%d", p[1], d.In[0]))
	}
	if text := strings.Join(got, " "); text != want {
		r.t.Errorf("sees %q, want %q", text, want)
	}
	for lun := range byte(8) {
		there := strings.Contains(" "+want, fmt.Sprintf(" %d=", lun))
		if r.nexus.HasLUN([8]byte{1: lun}) != there {
			r.t.Errorf("LUN %d: HasLUN %v", lun, !there)
		}
		if !there {
			r.want(r.on(lun, "28 00 00000005 00 0001 00", 512), "5 2500")
		}
	}
}

func TestMap(t *testing.T) {
	target, one, two := newMany(t, false)
	one.sees("0=0 1=1 2=2")
	set := func(initiator string, m Map) {
		t.Helper()
		if err := target.SetMap(initiator, m); err != nil {
			t.Fatal(err)
		}
	}
	set("one", Map{0: 2, 5: 1})
	one.sees("0=2 5=1")
	two.sees("0=0 1=1 2=2")
	set("one", Map{0: 2, 5: 1, 6: 9}) // unit 9 is not there yet
	one.want(one.on(0, "00", 0), "good")
	if err := target.AddLUN(9, testLUN(newRAM(64*512))); err != nil {
		t.Fatal(err)
	}
	one.want(one.on(6, "00", 0), "6 2900")
	one.sees("0=2 5=1 6=0")
	set("one", Map{})
	one.sees("")
	target.ClearMap("one")
	if err := target.RemoveLUN(9); err != nil {
		t.Fatal(err)
	}
	one.sees("0=0 1=1 2=2")
}

// TestMasked shows nothing to initiators without a map.
func TestMasked(t *testing.T) {
	target, one, two := newMany(t, true)
	one.sees("")
	if err := target.SetMap("one", Map{3: 1}); err != nil {
		t.Fatal(err)
	}
	one.sees("3=1")
	two.sees("")
	if err := target.SetMap("three", Map{1: 0}); err != nil { // before it comes
		t.Fatal(err)
	}
	three := &rig{t: t, nexus: target.NewNexus(sam.InitiatorPort{Name: "three"}, 1)}
	three.sees("1=0")
	target.ClearMap("one")
	one.sees("")
}

// TestPatterns gives the closest of what was set for an initiator.
func TestPatterns(t *testing.T) {
	target, one, two := newMany(t, false)
	for initiators, m := range map[string]Map{"*": {0: 2}, "o*": {0: 1}, "one": {0: 0}, "onerous": {5: 0}} {
		if err := target.SetMap(initiators, m); err != nil {
			t.Fatal(err)
		}
	}
	one.sees("0=0")
	two.sees("0=2")
	for _, step := range []struct{ gone, one, two string }{
		{"one", "0=1", "0=2"}, {"o*", "0=2", "0=2"}, {"*", "0=0 1=1 2=2", "0=0 1=1 2=2"}} {
		target.ClearMap(step.gone)
		one.sees(step.one)
		two.sees(step.two)
	}
	target.SetPreference("o*", 1)
	one.want(one.on(0, "00", 0), "6 2a06")
	two.want(two.on(0, "00", 0), "good")
	for lun := range byte(3) {
		one.settle(lun)
	}
	target.SetPreference("one", 1) // no news
	target.SetPreference("o*", 2)
	one.want(one.on(0, "00", 0), "good")
}

// TestMapDisturbsNobody tells only those whose logical units change, and forgets
// nothing of what stays.
func TestMapDisturbsNobody(t *testing.T) {
	target, one, two := newMany(t, false)
	for lun := range byte(3) {
		one.settle(lun)
		two.settle(lun)
	}
	c := &sam.Command{CDB: unhex(t, "28 00 00000005 00 0001 00 000000000000"), In: make([]byte, 512)}
	if !one.nexus.Prepare(c) {
		t.Fatal("not prepared")
	}
	if err := target.SetMap("one", Map{0: 0, 1: 2}); err != nil {
		t.Fatal(err)
	}
	one.nexus.Execute(c) // LUN 0 is what it was
	one.want(c, "good")
	one.want(one.on(0, "00", 0), "6 3f0e")
	one.want(one.on(0, "00", 0), "good")
	one.want(one.on(1, "00", 0), "6 2900")
	two.want(two.on(0, "00", 0), "good")
	if err := target.SetMap("one", Map{0: 0, 1: 2}); err != nil {
		t.Fatal(err)
	}
	one.want(one.on(0, "00", 0), "good") // the same again
	if err := target.RemoveLUN(1); err != nil {
		t.Fatal(err)
	}
	one.want(one.on(0, "00", 0), "good") // did not see it
	two.want(two.on(0, "00", 0), "6 3f0e")
}

// TestMapReset resets what an initiator means by a LUN, and tells those who see that
// unit, under whatever LUN.
func TestMapReset(t *testing.T) {
	target, one, two := newMany(t, false)
	if err := target.SetMap("one", Map{7: 2}); err != nil {
		t.Fatal(err)
	}
	one.settle(7)
	for lun := range byte(3) {
		two.settle(lun)
	}
	if one.nexus.(sam.Mapped).Unit([8]byte{1: 7}) != two.nexus.(sam.Mapped).Unit([8]byte{1: 2}) {
		t.Error("one unit has two names")
	}
	if one.nexus.Reset(context.Background(), sam.LogicalUnitReset, [8]byte{1: 2}) || !one.nexus.Reset(context.Background(), sam.LogicalUnitReset, [8]byte{1: 7}) {
		t.Error("resets go by other LUNs than commands")
	}
	one.want(one.on(7, "00", 0), "6 2903")
	two.want(two.on(2, "00", 0), "6 2903")
	two.want(two.on(0, "00", 0), "good")
}

// TestUnmapReleases ends the RESERVE of an initiator that does not see the unit any
// more.
func TestUnmapReleases(t *testing.T) {
	target, one, two := newMany(t, false)
	one.settle(1)
	two.settle(1)
	one.want(one.on(1, "16", 0), "good")
	two.want(two.on(1, "00", 0), "conflict")
	if err := target.SetMap("one", Map{0: 0}); err != nil {
		t.Fatal(err)
	}
	two.want(two.on(1, "00", 0), "good")
}

func TestMapRefuses(t *testing.T) {
	target, _, _ := newMany(t, false)
	for _, m := range []Map{{0: 1, 3: 1}, {1 << 14: 0}} {
		if err := target.SetMap("one", m); err == nil {
			t.Errorf("%v was taken", m)
		}
	}
}

// TestTell raises the unit attentions that come from outside, for those who see the
// unit.
func TestTell(t *testing.T) {
	target, one, two := newMany(t, false)
	if err := target.SetMap("one", Map{4: 1}); err != nil {
		t.Fatal(err)
	}
	one.settle(4)
	for lun := range byte(3) {
		two.settle(lun)
	}
	for _, tt := range []struct {
		tell func(uint16) error
		code string
	}{{target.Resized, "2a09"}, {target.InquiryChanged, "3f03"}, {target.ThresholdReached, "3807"}} {
		if err := tt.tell(1); err != nil {
			t.Fatal(err)
		}
		one.want(one.on(4, "00", 0), "6 "+tt.code)
		two.want(two.on(1, "00", 0), "6 "+tt.code)
		one.want(one.on(4, "00", 0), "good")
		two.want(two.on(0, "00", 0), "good")
		if tt.tell(17) == nil {
			t.Error("told of a LUN that is not there")
		}
	}
}

// TestGrow reads from beyond the old end once the hosts were told.
func TestGrow(t *testing.T) {
	r := newRig(t)
	r.want(r.do("28 00 00000040 00 0001 00", nil, 512), "5 2100")
	r.disk.Lock()
	r.disk.p = append(r.disk.p, make([]byte, 512)...)
	r.disk.Unlock()
	if err := r.target.Resized(0); err != nil {
		t.Fatal(err)
	}
	r.ua("2a09")
	r.wantData(r.do("25", nil, 8), "00000040 00000200")
	r.want(r.do("28 00 00000040 00 0001 00", nil, 512), "good")
}

// TestInventoryUnderLoad has two initiators read and write one unit all the time,
// while others come and go, are mapped, masked, resized and reset: their commands see
// nothing but unit attentions. The race detector looks, too.
func TestInventoryUnderLoad(t *testing.T) {
	target, _, _ := newMany(t, false)
	stop := make(chan struct{})
	var all sync.WaitGroup
	for _, name := range []string{"one", "two"} {
		all.Go(func() {
			n := target.NewNexus(sam.InitiatorPort{Name: name}, 1)
			defer n.Close()
			for {
				select {
				case <-stop:
					return
				default:
				}
				for _, cdb := range []string{"28000000000000000100000000000000", "2a000000000000000100000000000000"} {
					c := run(n, [8]byte{}, unhex(t, cdb), make([]byte, 512), 512)
					if got := outcome(c); got != "good" && !strings.HasPrefix(got, "6 ") {
						t.Errorf("%s: CDB %s: %s", name, cdb, got)
						return
					}
				}
			}
		})
	}
	for i := range 200 {
		for _, err := range []error{
			target.AddLUN(7, memoryLUN()),
			target.SetMap("two", Map{0: 0, uint16(1 + i%5): 7}),
			target.Resized(0), target.SetAccessState(7, 1, Standby), target.RemoveLUN(7),
			target.SetMap("two", Map{0: 0}),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		target.SetPreference("one", uint16(i%3))
		target.ClearMap("two")
	}
	close(stop)
	all.Wait()
}
