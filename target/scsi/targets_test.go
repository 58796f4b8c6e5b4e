package scsi

import (
	"strings"
	"testing"

	"github.com/twinlun/twinlun/target/sam"
)

// twoTargets are two targets of one device with LUNs 0 and 1; the second shows LUN 1
// alone, as its LUN 5. The same initiator port is logged in at both.
type twoTargets struct {
	t             *testing.T
	device        *Device
	first, second *Target
	one, two      *rig
}

const secondName = testName + "-second"

func newTwoTargets(t *testing.T, groups ...PortGroup) *twoTargets {
	t.Helper()
	p := &twoTargets{t: t, device: NewDevice(Config{Groups: groups})}
	p.first, p.second = p.add(testName, 0), p.add(secondName, 3)
	for i := range uint16(2) {
		l := memoryLUN()
		l.NAA[15] += byte(i)
		if err := p.device.AddLUN(i, l); err != nil {
			t.Fatal(err)
		}
	}
	p.show(p.second, Map{5: 1})
	p.one = &rig{t: t, target: p.first, nexus: p.first.NewNexus(testPort, 1)}
	p.two = &rig{t: t, target: p.second, nexus: p.second.NewNexus(testPort, 1)}
	p.one.settle(0)
	p.one.settle(1)
	p.two.settle(5)
	return p
}

func (p *twoTargets) add(name string, number uint8) *Target {
	p.t.Helper()
	target, err := p.device.NewTarget(name, number)
	if err != nil {
		p.t.Fatal(err)
	}
	return target
}

func (p *twoTargets) show(target *Target, m Map) {
	p.t.Helper()
	if err := target.Show(m); err != nil {
		p.t.Fatal(err)
	}
}

// TestTargetsShareUnits: what is done to a unit by way of one target holds for the other,
// and units that it does not show are none of its business.
func TestTargetsShareUnits(t *testing.T) {
	p := newTwoTargets(t)
	p.one.want(p.one.on(1, "16", 0), "good") // RESERVE
	p.two.want(p.two.on(5, "00", 0), "conflict")
	p.two.want(p.two.on(5, "17", 0), "good") // RELEASE by another port does nothing
	p.two.want(p.two.on(5, "00", 0), "conflict")
	if !p.two.nexus.Reset(t.Context(), sam.LogicalUnitReset, [8]byte{1: 5}) {
		t.Fatal("refused")
	}
	p.two.want(p.two.on(5, "00", 0), "6 2903")
	p.one.want(p.one.on(1, "00", 0), "6 2903")
	p.one.want(p.one.on(0, "00", 0), "good")

	p.two.nexus.Reset(t.Context(), sam.TargetWarmReset, [8]byte{})
	p.one.want(p.one.on(0, "00", 0), "good")
	p.one.want(p.one.on(1, "00", 0), "6 2902")
	p.two.want(p.two.on(5, "00", 0), "6 2902")
	p.one.nexus.Reset(t.Context(), sam.TargetColdReset, [8]byte{})
	p.one.want(p.one.on(0, "00", 0), "6 2900")
	p.two.want(p.two.on(5, "00", 0), "6 2900")

	if err := p.device.Resized(1); err != nil {
		t.Fatal(err)
	}
	p.two.want(p.two.on(5, "00", 0), "6 2a09")
	if a, b := p.one.nexus.(sam.Mapped), p.two.nexus.(sam.Mapped); a.Unit([8]byte{1: 1}) != b.Unit([8]byte{1: 5}) ||
		len(a.Units()) != 2 || len(b.Units()) != 1 || b.Units()[0] != b.Unit([8]byte{1: 5}) {
		t.Error("one unit has two names")
	}
}

// TestTargetsReserve: an initiator port that has logged in to two targets has two I_T
// nexuses, which register by themselves.
func TestTargetsReserve(t *testing.T) {
	p := newTwoTargets(t)
	out := func(r *rig, lun, action, kind byte, list []byte) *sam.Command {
		cdb := append([]byte{0x5f, action, kind, 0, 0, 0, 0, 0, byte(len(list)), 0}, make([]byte, 6)...)
		return run(r.nexus, [8]byte{1: lun}, cdb, list, 0)
	}
	p.one.want(out(p.one, 1, 0, 0, reserveOutList(0, 7, 0)), "good") // REGISTER
	p.one.want(out(p.one, 1, 1, 3, reserveOutList(7, 0, 0)), "good") // RESERVE, exclusive access
	read := "28 00 00000005 00 0001 00"
	p.one.want(p.one.on(1, read, 512), "good")
	p.two.want(p.two.on(5, read, 512), "conflict")
	p.two.want(out(p.two, 5, 0, 0, reserveOutList(0, 8, 0)), "good")
	c := p.two.on(5, "5e 03 00 00 00 00 00 00ff", 255) // READ FULL STATUS
	if c.InLen < 8+24+5 || c.In[8+18] != 0 || c.In[8+19] != 1 || !strings.Contains(string(c.In), "\x03\x01") {
		t.Errorf("READ FULL STATUS: % x", c.In[:c.InLen])
	}
	p.two.want(out(p.two, 5, 5, 3, reserveOutList(8, 7, 0)), "good") // PREEMPT AND ABORT
	p.one.want(p.one.on(1, read, 512), "6 2a05")
	p.one.want(p.one.on(1, read, 512), "conflict")
	p.two.want(p.two.on(5, read, 512), "good")

	// ALL_TG_PT: one registration for each port, of both targets.
	p.two.want(out(p.two, 5, 3, 0, reserveOutList(8, 0, 0)), "good") // CLEAR
	p.two.want(out(p.two, 5, 0, 0, reserveOutList(0, 9, bitAllPorts)), "good")
	p.one.settle(1)
	p.one.want(out(p.one, 1, 1, 1, reserveOutList(9, 0, 0)), "good")
}

// TestTargetPorts pins how the ports of two targets are told apart.
func TestTargetPorts(t *testing.T) {
	p := newTwoTargets(t, PortGroup{ID: 1, Ports: []uint16{1}}, PortGroup{ID: 2, Ports: []uint16{2}, Remote: true})
	p.one.wantData(p.one.on(0, askGroups, 255), "00000018 00 8f 0001 00 00 00 01 0000 0001 00 8f 0002 00 00 00 01 0000 0002")
	both := "00000020 00 8f 0001 00 00 00 02 0000 0001 0000 0301 00 8f 0002 00 00 00 02 0000 0002 0000 0302"
	p.one.wantData(p.one.on(1, askGroups, 255), both)
	p.two.wantData(p.two.on(5, askGroups, 255), both)
	for _, page := range []string{"12 01 83 01ff 00", "12 01 88 01ff 00"} {
		c := p.two.on(5, page, 511)
		data := string(c.In[:c.InLen])
		if !strings.Contains(data, secondName+",t,0x0001") || strings.Contains(data, testName+",t") || !strings.Contains(data, "\x03\x01") {
			t.Errorf("page %s: %q", page, data)
		}
	}
	for _, wrong := range []struct {
		name   string
		number uint8
	}{{testName, 4}, {testName + "x", 3}, {testName + "x", MaxNumber + 1}} {
		if _, err := p.device.NewTarget(wrong.name, wrong.number); err == nil {
			t.Errorf("%v was taken", wrong)
		}
	}
	if _, err := NewDevice(Config{Groups: []PortGroup{{ID: 256, Ports: []uint16{256}}}}).NewTarget(testName, 1); err == nil {
		t.Error("a tag that does not go with a number was taken")
	}
}

// TestShow: a target shows other units than before, to those who have logged in to it.
func TestShow(t *testing.T) {
	p := newTwoTargets(t)
	p.show(p.second, Map{5: 1, 6: 0})
	p.two.want(p.two.on(5, "00", 0), "6 3f0e")
	p.two.want(p.two.on(6, "00", 0), "6 2900")
	p.one.want(p.one.on(0, "00", 0), "good")
	p.one.want(p.one.on(1, "00", 0), "good")
	if err := p.second.SetMap(testPort.Name, Map{0: 1, 1: 0}); err != nil {
		t.Fatal(err)
	}
	p.two.settle(0)
	p.show(p.second, Map{5: 1}) // bounds what a map can show, too
	if !p.two.nexus.HasLUN([8]byte{1: 0}) || p.two.nexus.HasLUN([8]byte{1: 1}) {
		t.Error("a map shows what the target does not, or hides what it does")
	}
	p.second.SetPreference(testPort.Name, 1)
	p.one.want(p.one.on(1, "00", 0), "good") // that of the other target is its own
	p.show(p.second, nil)
	p.second.ClearMap(testPort.Name)
	for lun := range byte(2) {
		p.two.settle(lun)
	}
	if err := p.second.Show(Map{0: 1, 5: 1}); err == nil {
		t.Error("one unit as two LUNs")
	}
}

// TestCloseTarget takes a target away from who is logged in still; the other one, and
// what was registered, stays.
func TestCloseTarget(t *testing.T) {
	p := newTwoTargets(t)
	p.two.want(p.two.on(5, "16", 0), "good")
	p.one.want(p.one.on(1, "00", 0), "conflict")
	c := &sam.Command{LUN: [8]byte{1: 5}, CDB: unhex(t, "28000000000000000100000000000000"), ExpectIn: 512, In: make([]byte, 512)}
	if !p.two.nexus.Prepare(c) {
		t.Fatal(outcome(c))
	}
	p.second.Close()
	p.two.nexus.Execute(c)
	p.two.want(c, "5 2500")
	p.two.want(p.two.on(5, "00", 0), "5 2500")
	p.one.want(p.one.on(1, "00", 0), "good")
	p.two.nexus.Close()
	late := &rig{t: t, nexus: p.second.NewNexus(testPort, 1)}
	late.want(late.on(5, "00", 0), "5 2500")
	again := p.add(secondName, 3)
	p.show(again, Map{5: 1})
	back := &rig{t: t, nexus: again.NewNexus(testPort, 1)}
	back.want(back.on(5, "00", 0), "6 2900")
	back.want(back.on(5, "00", 0), "good")
}
