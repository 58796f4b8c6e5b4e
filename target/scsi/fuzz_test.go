package scsi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"testing"

	"github.com/twinlun/twinlun/target/sam"
)

// thinAndTold is a thin disk that knows how much space it takes.
type thinAndTold struct{ thin }

func (thinAndTold) Provisioning() (int64, int64, bool) { return 1 << 20, 1 << 30, true }

// FuzzCommand sends any CDB and any data to a small disk, with whatever the
// initiator expects: nothing panics, nothing is reached outside the disk, the
// lengths hold, and the sense data is whole.
func FuzzCommand(f *testing.F) {
	for code := range newOperations() {
		cdb := append([]byte{byte(code)}, make([]byte, 15)...)
		f.Add(cdb, []byte{}, uint32(512), uint64(0))
		cdb[13], cdb[8], cdb[4], cdb[9] = 1, 1, 1, 1
		f.Add(cdb, make([]byte, 512), uint32(0), uint64(0))
	}
	f.Add([]byte{0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0}, unmapList(1, 2), uint32(0), uint64(0))
	f.Add([]byte{0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0}, []byte{}, uint32(32), uint64(1)<<48)
	f.Add([]byte{0x93, 0x08, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0}, make([]byte, 4096), uint32(0), uint64(1)<<48)
	f.Add([]byte{0x9c, 0x08, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 16, 0, 0}, make([]byte, 8192), uint32(0), uint64(0))
	f.Add([]byte{0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0}, make([]byte, 2048), uint32(0), uint64(0))
	copied := segment(0, 1, 16, 8, 2) + segment(1, 0, 1, 0, 0)
	list := list1(f, 1, 0, cscd(naa0, 512)+cscd(naa1, 4096), copied)
	f.Add([]byte{0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, byte(len(list)), 0, 0}, list, uint32(0), uint64(0))
	list = list4(f, 1, 0, cscd(naa0, 512)+cscd(naa1, 4096), copied)
	f.Add([]byte{0x83, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, byte(len(list)), 0, 0}, list, uint32(0), uint64(0))
	pages := unhex(f, "00000000"+pageRecovery+cachingOff+pageThreshold+"00 01 0000 00000000")
	f.Add([]byte{0x15, 0x10, 0, 0, byte(len(pages)), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, pages, uint32(0), uint64(0))
	f.Add([]byte{0xa3, 0x0c, 0x82, 0x9e, 0, 0x10, 0, 0, 1, 0, 0, 0}, []byte{}, uint32(99), uint64(0))

	f.Fuzz(func(t *testing.T, cdb, out []byte, expectIn uint32, lun uint64) {
		disk, other := newRAM(64*512), newRAM(16*4096)
		target := quietTarget()
		l := testLUN(thin{other, 4096, 1 << 20})
		l.NAA[15], l.BlockSize = 0x10, 4096
		if err := errors.Join(target.AddLUN(0, testLUN(thinAndTold{thin{disk, 512, 4096}})), target.AddLUN(1, l)); err != nil {
			t.Fatal(err)
		}
		n := target.NewNexus(testPort, 1)
		for number := range byte(2) {
			run(n, [8]byte{0, number}, []byte{0, 0, 0, 0, 0, 0}, nil, 0) // the unit attention
		}
		c := &sam.Command{CDB: cdb, Ctx: context.Background(), ExpectIn: expectIn, ExpectOut: uint32(len(out))}
		for i := range c.LUN {
			c.LUN[i] = byte(lun >> (56 - 8*i))
		}
		prepared := n.Prepare(c)
		if c.WantIn > MaxTransfer || c.WantOut > MaxTransfer || !prepared && c.WantIn+c.WantOut > 0 {
			t.Fatalf("prepared %v, WantIn %d, WantOut %d", prepared, c.WantIn, c.WantOut)
		}
		if prepared {
			c.In = make([]byte, min(c.WantIn, c.ExpectIn))
			c.Out = out[:min(len(out), int(c.WantOut))]
			n.Execute(c)
		}
		if err := wellFormed(c, prepared); err != nil {
			t.Fatalf("CDB %x: %v", cdb, err)
		}
		if len(disk.outside)+len(other.outside) > 0 {
			t.Fatalf("CDB %x: outside the disks: %v %v", cdb, disk.outside, other.outside)
		}
	})
}

// wellFormed checks an outcome.
func wellFormed(c *sam.Command, prepared bool) error {
	switch {
	case int(c.InLen) > len(c.In):
		return fmt.Errorf("InLen %d of %d", c.InLen, len(c.In))
	case c.InLen > c.Needed:
		return fmt.Errorf("InLen %d, Needed %d", c.InLen, c.Needed)
	case c.Status == sam.Good && (!prepared || len(c.Sense) > 0 || c.Needed > max(c.WantIn, c.WantOut)):
		return fmt.Errorf("good, but prepared %v, sense %x, Needed %d, WantIn %d, WantOut %d",
			prepared, c.Sense, c.Needed, c.WantIn, c.WantOut)
	case c.Status == sam.Good, c.Status == sam.ConditionMet:
		return nil
	case c.Status == sam.ReservationConflict && len(c.Sense) == 0 && c.InLen == 0 && c.Needed == 0:
		return nil
	case c.Status != sam.CheckCondition || len(c.Sense) != senseSize || c.Sense[0]&^0x80 != 0x70 || c.Sense[7] != 10:
		return fmt.Errorf("status %#x, sense %x", c.Status, c.Sense)
	case c.Sense[2] != 5 && c.Sense[2] != 0x0a && c.Sense[2] != 0x0e:
		return fmt.Errorf("sense %x from a disk that works", c.Sense)
	case c.InLen != 0 || c.Needed != 0:
		return fmt.Errorf("failed, with %d bytes, Needed %d", c.InLen, c.Needed)
	}
	return nil
}

// FuzzHeard feeds what comes from the other site. Whatever it is: no panic, an answer
// that is within bounds and is understood, and settings that never go back.
func FuzzHeard(f *testing.F) {
	for _, now := range []byte{0, toldClear, toldReset, toldWarm | toldCold} {
		f.Add(topicUnit, append([]byte{now, toldReset}, make([]byte, settingCount*settingSize)...))
	}
	f.Add(topicUnit, append([]byte{0, 0}, bytes.Repeat([]byte{1}, settingCount*settingSize+7)...))
	f.Add(topicMedium, []byte{})
	f.Fuzz(func(t *testing.T, topic uint16, body []byte) {
		l := memoryLUN()
		l.Removable = true
		a, b := newHosts(t, l), newHosts(t, l)
		before := a.unit().versions()
		answer, ok := a.target.Heard(t.Context(), 0, topic, body)
		if len(answer) > 1+settingCount*settingSize || ok != (topic == topicUnit && len(body) >= 2 || topic == topicMedium) {
			t.Fatalf("understood %v, answer %x", ok, answer)
		}
		if topic != topicUnit || !ok {
			return
		}
		for i, version := range a.unit().versions() {
			if version < before[i] {
				t.Fatalf("setting %d was at version %d, and is at %d", i, before[i], version)
			}
		}
		if b.unit().follow(t.Context(), answer[1:]); a.settings() != b.settings() {
			t.Fatalf("settings %v, and %v after the answer", a.settings(), b.settings())
		}
	})
}

// stores finds in a ram's calls those that store.
var stores = regexp.MustCompile("write|zero|update|atomic")

// FuzzHosts has three initiators send any commands, one after the other: nothing
// panics, outcomes are well formed, and nothing is stored for an initiator that a
// reservation keeps out, or on a unit that is write protected, or has no medium.
func FuzzHosts(f *testing.F) {
	step := func(who byte, cdb string, out []byte) []byte {
		p := append([]byte{who, byte(len(out))}, unhex(f, cdb)...)
		return append(append(p, make([]byte, 18-len(p))...), out...)
	}
	write := func(who byte) []byte { return step(who, "93 01 0000000000000000 00000001 00 00", nil) } // WRITE SAME, no data needed
	reserve := func(who, action, kind byte, key, newKey uint64) []byte {
		return step(who, fmt.Sprintf("5f %02x %02x 00 00 00000018 00", action, kind), reserveOutList(key, newKey, 0))
	}
	f.Add(bytes.Join([][]byte{reserve(0, 6, 0, 0, 1), reserve(0, 1, 1, 1, 0), write(1), write(0), write(2)}, nil))
	atomic := step(1, "9c 00 0000000000000000 0000 0000 00 00", nil)
	f.Add(bytes.Join([][]byte{reserve(0, 6, 0, 0, 1), reserve(0, 1, 1, 1, 0), atomic, write(1)}, nil))
	f.Add(bytes.Join([][]byte{step(0, "16", nil), write(1), step(0, "17", nil), step(1, "1b 00 00 00 02", nil), write(0)}, nil))
	f.Add(bytes.Join([][]byte{step(0, "15 10 00 00 10", unhex(f, "00000000"+controlSWP)), write(0), write(1), write(1)}, nil))
	f.Add(bytes.Join([][]byte{reserve(0, 6, 0, 0, 1), reserve(1, 6, 0, 0, 2), reserve(1, 1, 7, 2, 0), reserve(0, 5, 3, 1, 0), write(1)}, nil))

	f.Fuzz(func(t *testing.T, script []byte) {
		disk := newRAM(64 * 512)
		l := testLUN(disk)
		l.Removable = true
		h := newHosts(t, l)
		u := h.target.luns[0]
		for len(script) >= 18 {
			n := min(int(script[1]), len(script)-18)
			r := h.by[string('a'+rune(script[0]%3))]
			cdb, out := script[2:18], script[18:18+n]
			p := r.nexus.(*nexus).port
			g := u.guard.Load()
			kept := g != nil && (g.protected || g.ejected || g.reserved != nil && g.reserved != p ||
				g.persistent != nil && !g.persistent.Allows(p.name, false))
			disk.took()
			c := run(r.nexus, [8]byte{}, cdb, out, 4096)
			if got := disk.took(); kept && stores.MatchString(got) {
				t.Fatalf("%s, kept out: CDB %x: disk saw %q", r.nexus.(*nexus).port.name.Initiator, cdb, got)
			}
			if err := settled(c); err != nil {
				t.Fatalf("CDB %x: %v", cdb, err)
			}
			if len(disk.outside) > 0 {
				t.Fatalf("CDB %x: outside the disk: %v", cdb, disk.outside)
			}
			script = script[18+n:]
		}
	})
}

// settled checks an outcome that may be of any kind.
func settled(c *sam.Command) error {
	switch {
	case int(c.InLen) > len(c.In), c.InLen > c.Needed, c.WantIn > MaxTransfer, c.WantOut > MaxTransfer:
		return fmt.Errorf("InLen %d, Needed %d, In %d, WantIn %d, WantOut %d", c.InLen, c.Needed, len(c.In), c.WantIn, c.WantOut)
	case c.Status == sam.CheckCondition && (len(c.Sense) != senseSize || c.Sense[2] == 0):
		return fmt.Errorf("sense %x", c.Sense)
	case c.Status != sam.CheckCondition && len(c.Sense) > 0:
		return fmt.Errorf("status %#x, sense %x", c.Status, c.Sense)
	case c.Status != sam.Good && c.Status != sam.ConditionMet && (c.InLen != 0 || c.Needed != 0):
		return fmt.Errorf("status %#x, with %d bytes, Needed %d", c.Status, c.InLen, c.Needed)
	}
	return nil
}
