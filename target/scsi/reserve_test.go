package scsi

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twinlun/twinlun/target/reservation"
	"github.com/twinlun/twinlun/target/reservation/local"
	"github.com/twinlun/twinlun/target/sam"
)

// hosts are initiators a, b and c of one target with a LUN 0, each through port 1,
// their first unit attentions over.
type hosts struct {
	*rig
	by map[string]*rig
}

func newHosts(t *testing.T, l LUN) *hosts {
	h := &hosts{by: map[string]*rig{}}
	target := quietTarget()
	if err := target.AddLUN(0, l); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"a", "b", "c"} {
		from := sam.InitiatorPort{Name: "iqn.test:" + name, ISID: [6]byte{0x80, 0, 0, 0, 0xAB, byte(i)}}
		r := &rig{t: t, target: target, nexus: target.NewNexus(from, 1)}
		r.ua("2900")
		h.by[name] = r
	}
	h.rig = h.by["a"]
	return h
}

// reserveOutList is a parameter list: key, service action key, flags (byte 20).
func reserveOutList(key, newKey uint64, flags byte) []byte {
	p := binary.BigEndian.AppendUint64(nil, key)
	p = binary.BigEndian.AppendUint64(p, newKey)
	return append(p, 0, 0, 0, 0, flags, 0, 0, 0)
}

// out sends PERSISTENT RESERVE OUT.
func (r *rig) out(action, kind byte, list []byte) *sam.Command {
	r.t.Helper()
	return r.do(fmt.Sprintf("5f %02x %02x 00 00 %08x 00", action, kind, len(list)), list, 0)
}

const (
	outRegister = iota
	outReserve
	outRelease
	outClear
	outPreempt
	outAbort
	outIgnore
	outMove
)

func (h *hosts) register(name string, key uint64) {
	h.t.Helper()
	r := h.by[name]
	r.want(r.out(outIgnore, 0, reserveOutList(0, key, 0)), "good")
}

func memoryLUN() LUN { return testLUN(newRAM(64 * 512)) }

// TestReserveIn pins the answers of PERSISTENT RESERVE IN, byte by byte.
func TestReserveIn(t *testing.T) {
	const keys, held, caps, full = "5e 00 00 00 00 00 00 ffff 00", "5e 01 00 00 00 00 00 ffff 00",
		"5e 02 00 00 00 00 00 ffff 00", "5e 03 00 00 00 00 00 ffff 00"
	idA := "45 00 001c" + ascii("iqn.test:a,i,0x80000000ab00") + "00"
	idB := "45 00 001c" + ascii("iqn.test:b,i,0x80000000ab01") + "00"
	h := newHosts(t, memoryLUN())
	data := func(cdb, want string) { t.Helper(); h.wantData(h.do(cdb, nil, 1<<16), want) }

	data(keys, "00000000 00000000")
	data(held, "00000000 00000000")
	data(full, "00000000 00000000")
	data(caps, "0008 1c 80 ea01 0000")
	h.register("a", 0x1122334455667788)
	h.register("b", 2)
	data(keys, "00000002 00000010 1122334455667788 0000000000000002")
	data(held, "00000002 00000000")
	h.want(h.out(outReserve, 5, reserveOutList(0x1122334455667788, 0, 0)), "good")
	data(held, "00000002 00000010 1122334455667788 00000000 00 05 0000")
	data(full, "00000002 00000070"+
		"1122334455667788 00000000 01 05 00000000 0001 00000020"+idA+
		"0000000000000002 00000000 00 00 00000000 0001 00000020"+idB)
	h.want(h.out(outRelease, 5, reserveOutList(0x1122334455667788, 0, 0)), "good")
	h.want(h.out(outReserve, 8, reserveOutList(0x1122334455667788, 0, 0)), "good")
	data(held, "00000002 00000010 0000000000000000 00000000 00 08 0000")
	c := h.do("5e 00 00 00 00 00 00 0008 00", nil, 99)
	h.wantData(c, "00000002 00000010")
	h.want(h.do("5e 04 00 00 00 00 00 0008 00", nil, 99), "5 2400 cc0001")
}

// TestReserveOutScripts has initiators send commands; in the end of a line what comes
// of it. "x: CDB" is any other command of initiator x.
func TestReserveOutScripts(t *testing.T) {
	const write, read = "2a 00 00000000 00 0000 00", "28 00 00000000 00 0000 00"
	for _, tt := range []struct{ name, script string }{
		{"registered", `
			a 0 0 1 =good; a 0 0 2 =conflict; a 0 2 3 =conflict; a 0 1 3 =good; b 1 1 9 0 =conflict`},
		{"write exclusive", `
			a 6 0 1 =good; b 6 0 2 =good; a 1 1 0 1 =good
			a: WRITE =good; b: WRITE =conflict; b: READ =good; c: READ =good; c: 00 =good
			b 1 2 0 1 =conflict; b 1 2 0 3 =conflict; a 1 1 0 1 =good; a 1 1 0 3 =conflict
			b 2 2 0 1 =good; b: WRITE =conflict; a 2 1 0 3 =5 2604; a 2 1 0 1 =good; b: WRITE =good`},
		{"exclusive access, registrants", `
			a 6 0 1 =good; b 6 0 2 =good; a 1 1 0 6 =good
			b: WRITE =good; c: READ =conflict; c: WRITE =conflict
			a 2 1 0 6 =good; b: 00 =6 2a04; c: READ =good; a: 00 =good`},
		{"preempted", `
			a 6 0 1 =good; b 6 0 2 =good; a 1 1 0 3 =good
			b: READ =conflict; b 4 2 1 3 =good; a: READ =6 2a05; a: READ =conflict; b: WRITE =good
			b 4 2 9 3 =conflict; b 4 2 0 3 =5 2600 800008`},
		{"cleared", `
			a 6 0 1 =good; b 6 0 2 =good; c 6 0 3 =good; a 1 1 0 3 =good; b 3 2 0 =good
			a: WRITE =6 2a03; c: WRITE =6 2a03; b: WRITE =good; a 1 1 0 3 =conflict`},
		{"type and scope", `
			a 6 0 1 =good; a 1 1 0 0 =5 2400 c00002; a 1 1 0 2 =5 2400 c00002; a 1 1 0 11 =5 2400 c00002
			a 2 1 0 4 =5 2400 c00002; a 1 1 0 f =5 2400 c00002`},
		{"with RESERVE (6) of itself", `a: 16 =good; a 6 0 1 =conflict; a: 5e =conflict; a: 17 =good; a 6 0 1 =good`},
		{"RESERVE (6) of another", `
			a: 16 =good; a: 16 =good; b: 16 =conflict; b: 00 =conflict; b: READ =conflict; b: 5e =conflict
			b: 12 =good; b: a0 =good; b: 03 =good; b: 25 =good; b: 17 =good; b: READ =conflict
			a: READ =good; a: WRITE =good; a: 17 =good; b: 16 =good; a: READ =conflict`},
		{"RESERVE (6) with registrations", `
			a 6 0 1 =good; a: 16 =conflict; a: 17 =conflict; b: 16 =conflict
			a 1 1 0 5 =good; a: 16 =good; a: 17 =good; b: 16 =conflict; b: 17 =conflict
			b 6 0 2 =good; b: 16 =good; c: READ =good; c: WRITE =conflict
			a 2 1 0 5 =good; b: 00 =6 2a04; b: 16 =conflict`},
		{"resets and lost nexuses release RESERVE (6) only", `
			a: 16 =good; reset; b: 00 =6 2903; b: READ =good; a: 00 =6 2903
			a: 16 =good; warm; b: 00 =6 2902; b: READ =good; a: 00 =6 2902
			a: 16 =good; again; b: READ =good; a: 00 =6 2907
			a 6 0 1 =good; a 1 1 0 3 =good; reset; warm; again; b: 00 =6 2902; b: READ =conflict
			a: 00 =6 2902; a: READ =good`},
		{"prevent and allow", `
			a 6 0 1 =good; a 1 1 0 1 =good; b: 1e 00 00 00 00 =good; b: 1e 00 00 00 01 =conflict; a: 1e 00 00 00 01 =good`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHosts(t, memoryLUN())
			for _, step := range strings.FieldsFunc(tt.script, func(r rune) bool { return r == ';' || r == '\n' }) {
				if step = strings.TrimSpace(step); step != "" {
					h.step(strings.NewReplacer("WRITE", write, "READ", read).Replace(step))
				}
			}
		})
	}
}

func (h *hosts) step(step string) {
	h.t.Helper()
	switch step {
	case "reset":
		h.by["c"].nexus.Reset(context.Background(), sam.LogicalUnitReset, [8]byte{})
		return
	case "warm":
		h.by["c"].nexus.Reset(context.Background(), sam.TargetWarmReset, [8]byte{})
		return
	case "again":
		h.nexus.Close()
		h.nexus = h.target.NewNexus(sam.InitiatorPort{Name: "iqn.test:a", ISID: [6]byte{0x80, 0, 0, 0, 0xAB, 0}}, 1)
		return
	}
	what, want, _ := strings.Cut(step, "=")
	r := h.by[step[:1]]
	if step[1] == ':' {
		r.want(r.do(strings.TrimSpace(what[2:]), nil, 512), want)
		return
	}
	var action, kind byte
	var key, newKey uint64
	if n, err := fmt.Sscanf(what[1:], "%d %d %d %x", &action, &key, &newKey, &kind); n < 3 {
		h.t.Fatalf("%q: %v", step, err)
	}
	c := r.out(action, kind, reserveOutList(key, newKey, 0))
	if got := outcome(c); got != want {
		h.t.Errorf("%s: %q", step, got)
	}
}

// TestConflicts is SPC-4 table 65 and SBC-3 table 13. Columns: write exclusive and
// exclusive access, from another nexus; any for registrants, from a registered one;
// write exclusive and exclusive access for registrants, from one that is not; and
// RESERVE (6). C: RESERVATION CONFLICT; A: not.
func TestConflicts(t *testing.T) {
	rows := []struct{ name, cdb, want string }{
		{"TEST UNIT READY", "00", "A A A A A C"},
		{"REQUEST SENSE", "03", "A A A A A A"},
		{"READ (6)", "08 000000 01", "A C A A C C"},
		{"WRITE (6)", "0a 000000 01", "C C A C C C"},
		{"INQUIRY", "12", "A A A A A A"},
		{"MODE SELECT (6)", "15", "C C A C C C"},
		{"MODE SENSE (6)", "1a 00 3f 00 ff", "A C A A C C"},
		{"START STOP UNIT, start", "1b 00 00 00 01", "A A A A A A"},
		{"START STOP UNIT, stop", "1b 00 00 00 00", "C C A C C C"},
		{"START STOP UNIT, standby", "1b 00 00 00 31", "C C A C C C"},
		{"RECEIVE DIAGNOSTIC RESULTS", "1c", "A C A A C C"},
		{"SEND DIAGNOSTIC", "1d", "C C A C C C"},
		{"ALLOW MEDIUM REMOVAL", "1e 00 00 00 00", "A A A A A A"},
		{"PREVENT MEDIUM REMOVAL", "1e 00 00 00 01", "C C A C C C"},
		{"READ CAPACITY (10)", "25", "A A A A A A"},
		{"READ (10)", "28 00 00000000 00 0001", "A C A A C C"},
		{"WRITE (10)", "2a 00 00000000 00 0001", "C C A C C C"},
		{"VERIFY (10)", "2f 00 00000000 00 0001", "A C A A C C"},
		{"SYNCHRONIZE CACHE (10)", "35", "C C A C C C"},
		{"WRITE SAME (10)", "41 00 00000000 00 0001", "C C A C C C"},
		{"UNMAP", "42", "C C A C C C"},
		{"LOG SENSE", "4d", "A A A A A A"},
		{"MODE SELECT (10)", "55", "C C A C C C"},
		{"MODE SENSE (10)", "5a 00 3f 00 00 00 00 00ff", "A C A A C C"},
		{"READ KEYS", "5e 00 00 00 00 00 00 00ff", "A A A A A C"},
		{"READ RESERVATION", "5e 01 00 00 00 00 00 00ff", "A A A A A C"},
		{"REPORT CAPABILITIES", "5e 02 00 00 00 00 00 00ff", "A A A A A C"},
		{"READ FULL STATUS", "5e 03 00 00 00 00 00 00ff", "A A A A A C"},
		{"READ (16)", "88 00 0000000000000000 00000001", "A C A A C C"},
		{"WRITE (16)", "8a 00 0000000000000000 00000001", "C C A C C C"},
		{"VERIFY (16)", "8f 00 0000000000000000 00000001", "A C A A C C"},
		{"SYNCHRONIZE CACHE (16)", "91", "C C A C C C"},
		{"WRITE SAME (16)", "93 01 0000000000000000 00000001", "C C A C C C"},
		{"READ CAPACITY (16)", "9e 10 0000000000000000 00000020", "A A A A A A"},
		{"GET LBA STATUS", "9e 12 0000000000000000 00000020", "A C A A C C"},
		{"REPORT LUNS", "a0 00 00 000000 000000ff", "A A A A A A"},
		{"REPORT TARGET PORT GROUPS", askGroups, "A A A A A A"},
		{"REPORT SUPPORTED OPERATION CODES", "a3 0c 00 00 0000 000000ff", "A C A A C C"},
		{"REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", "a3 0d", "A C A A C C"},
		{"READ (12)", "a8 00 00000000 00000001", "A C A A C C"},
		{"WRITE (12)", "aa 00 00000000 00000001", "C C A C C C"},
		{"VERIFY (12)", "af 00 00000000 00000001", "A C A A C C"},
	}
	h := newHosts(t, memoryLUN())
	for column, setting := range []string{"1 b", "3 b", "5 b 6 b 7 b 8 b", "5 c 7 c", "6 c 8 c", "0 b"} {
		f := strings.Fields(setting)
		for ; len(f) > 0; f = f[2:] {
			var kind byte
			fmt.Sscan(f[0], &kind)
			other := h.by[f[1]]
			if kind == 0 {
				h.want(h.do("16", nil, 0), "good")
			} else {
				h.register("a", 1)
				h.register("b", 2)
				h.want(h.out(outReserve, kind, reserveOutList(1, 0, 0)), "good")
			}
			for _, row := range rows {
				got := "A"
				if outcome(other.do(row.cdb, nil, 4096)) == "conflict" {
					got = "C"
				}
				if want := strings.Fields(row.want)[column]; got != want {
					t.Errorf("%s under type %d: %s, want %s", row.name, kind, got, want)
				}
				if outcome(h.do(row.cdb, nil, 4096)) == "conflict" && kind != 0 {
					t.Errorf("%s under type %d: keeps out the holder", row.name, kind)
				}
			}
			if kind != 0 {
				h.want(h.out(outClear, 0, reserveOutList(1, 0, 0)), "good")
				h.by["b"].ua("2a03")
			}
		}
	}
}

// TestReserveOutLists sends parameter lists, right and wrong, from initiator a, which
// is registered with key 1 and holds the reservation, or from b, which is not.
func TestReserveOutLists(t *testing.T) {
	id := func(kind, text string) string {
		size := (len(text) + 4) / 4 * 4
		return fmt.Sprintf("%s 00 %04x", kind, size) + ascii(text) + zeros(size-len(text))
	}
	const key1, key2, none = "0000000000000001", "0000000000000002", "0000000000000000"
	name := "iqn.test:other,i,0x0123456789AB"
	listed := func(ids string) string {
		return none + key2 + "00000000 08 000000" + fmt.Sprintf("%08x", len(unhex(t, ids))) + ids
	}
	move := func(flags, port, ids string) string {
		return key1 + key2 + "00" + flags + port + fmt.Sprintf("%08x", len(unhex(t, ids))) + ids
	}
	for _, tt := range []struct {
		name, who string
		action    byte
		list      string
		want      string
	}{
		{"register", "b", 0, none + key2 + "00000000 00 000000", "good"},
		{"too short", "b", 0, none + key2 + "00000000 00 0000", "5 1a00"},
		{"too long", "b", 0, none + key2 + "00000000 00 000000 00", "5 1a00"},
		{"nothing", "b", 0, "", "5 1a00"},
		{"reserved bit", "b", 0, none + key2 + "00000000 02 000000", "5 2600 890014"},
		{"APTPL in memory", "b", 0, none + key2 + "00000000 01 000000", "5 2600 880014"},
		{"all ports", "b", 0, none + key2 + "00000000 04 000000", "good"},
		{"obsolete fields", "b", 0, none + key2 + "ffffffff 00 00 ffff", "good"},

		{"listed", "b", 0, listed(id("45", name)), "good"},
		{"two listed", "b", 0, listed(id("45", name) + id("45", "iqn.x,i,0x0123456789ab")), "good"},
		{"a device that is known", "b", 0, listed(id("05", "iqn.test:c") + zeros(0)), "5 2600 80001c"}, // under 20 bytes
		{"a device that is known, in full", "b", 0, listed("05 00 0014" + ascii("iqn.test:c") + zeros(10)), "good"},
		{"a device that is not known", "b", 0, listed("05 00 0014" + ascii("iqn.test:d") + zeros(10)), "5 2600 80001c"},
		{"none listed", "b", 0, listed(""), "good"},
		{"listed, registered already", "b", 0, listed("45 00 0020" + ascii("iqn.test:a,i,0x80000000ab00") + zeros(5)), "5 2600 80001c"},
		{"listed, second malformed", "b", 0, listed(id("45", name) + "45"), "5 2600 800040"},
		{"listed, no length", "b", 0, none + key2 + "00000000 08 000000", "5 1a00"},
		{"listed, length wrong", "b", 0, none + key2 + "00000000 08 000000 00000001", "5 1a00"},
		{"listed by one who is registered", "a", 0, key1 + key2 + "00000000 08 000000 00000000", "5 2600 8b0014"},
		{"listed with ignore", "b", 6, listed(id("45", name)), "5 2600 8b0014"},
		{"listed with reserve", "a", 1, key1 + key2 + "00000000 08 000000 00000000", "5 2600 8b0014"},

		{"move", "a", 7, move("00", "0001", id("45", name)), "good"},
		{"move and leave", "a", 7, move("02", "0001", id("45", name)), "good"},
		{"move to a port that is not there", "a", 7, move("00", "0002", id("45", name)), "5 2600 800012"},
		{"move, reserved bit", "a", 7, move("04", "0001", id("45", name)), "5 2600 8a0011"},
		{"move, APTPL in memory", "a", 7, move("01", "0001", id("45", name)), "5 2600 880011"},
		{"move to a device", "a", 7, move("00", "0001", "05 00 0014"+ascii("iqn.test:c")+zeros(10)), "5 2600 800018"},
		{"move to two", "a", 7, move("00", "0001", id("45", name)+id("45", name)), "5 2600 800018"},
		{"move to itself", "a", 7, move("00", "0001", "45 00 0020"+ascii("iqn.test:a,i,0x80000000AB00")+zeros(5)), "5 2600 800018"},
		{"move, length wrong", "a", 7, key1 + key2 + "00 00 0001 00000001", "5 1a00"},
		{"move by another", "b", 7, move("00", "0001", id("45", name)), "conflict"},
	} {
		h := newHosts(t, memoryLUN())
		h.register("a", 1)
		h.want(h.out(outReserve, 1, reserveOutList(1, 0, 0)), "good")
		before := h.target.luns[0].reservations.Load()
		r := h.by[tt.who]
		c := r.out(tt.action, 1, unhex(t, tt.list))
		if got := outcome(c); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
		if after := h.target.luns[0].reservations.Load(); (after != before) != (tt.want == "good") {
			t.Errorf("%s: state %+v", tt.name, after)
		}
	}
}

// TestTransportID lists TransportIDs that are malformed.
func TestTransportID(t *testing.T) {
	good := "45 00 0014" + ascii("iqn,i,0x0123456789ab")[:38] + "00"
	for _, tt := range []struct{ corrupt, id string }{
		{"cut", "45 00 00"},
		{"length beyond", "45 00 0018" + zeros(20)},
		{"too short", "45 00 0010" + ascii("i,i,0x01234567") + "0000"},
		{"not a multiple of four", "45 00 0015" + zeros(21)},
		{"ISID cut", good},
		{"no end", "45 00 0014" + ascii("iqn,i,0x0123456789ab")},
		{"after the end", "45 00 0018" + ascii("iqn,i,0x0123456789ab") + "00 01 0000"},
		{"no name", "45 00 0018" + ascii(",i,0x0123456789ab") + zeros(7)},
		{"ISID not hex", "45 00 0018" + ascii("iqn,i,0x0123456789ag") + zeros(4)},
		{"port without ISID", "45 00 0014" + ascii("iqn.device") + zeros(10)},
		{"device with ISID", "05 00 0018" + ascii("iqn,i,0x0123456789ab") + zeros(4)},
		{"another protocol", "46 00 0018" + ascii("iqn,i,0x0123456789ab") + zeros(4)},
		{"format", "85 00 0018" + ascii("iqn,i,0x0123456789ab") + zeros(4)},
		{"reserved", "45 01 0018" + ascii("iqn,i,0x0123456789ab") + zeros(4)},
		{"long", "45 00 00f8" + strings.Repeat("61", 224) + ascii(",i,0x0123456789ab") + zeros(7)},
	} {
		if name, _, ok := cutTransportID(unhex(t, tt.id)); ok {
			t.Errorf("%s: taken for %q", tt.corrupt, name)
		}
	}
	for _, name := range []string{"iqn,i,0x0123456789ab", "a,i,0x0123456789ab", strings.Repeat("n", 223) + ",i,0x0123456789ab"} {
		p := append(appendTransportID(nil, name), 1, 2)
		got, rest, ok := cutTransportID(p)
		if !ok || got != name || len(rest) != 2 {
			t.Errorf("%q became %q, %v, rest %x", name, got, ok, rest)
		}
	}
}

// FuzzTransportID reads any bytes: what is taken can be written, and means the same.
func FuzzTransportID(f *testing.F) {
	f.Add(appendTransportID(nil, "iqn.x,i,0x0123456789ab"))
	f.Add([]byte("\x05\x00\x00\x14iqn.device\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, p []byte) {
		name, rest, ok := cutTransportID(p)
		if !ok || isDevice(name) {
			return
		}
		again, _, ok := cutTransportID(appendTransportID(nil, name))
		if !ok || again != name || len(name) > reservation.MaxName || len(rest) >= len(p) {
			t.Fatalf("%x: %q, then %q, %v", p, name, again, ok)
		}
	})
}

// TestSitesDoNotShare refuses ALL_TG_PT and moves to the other site's port while
// there is one that does not share the reservations.
func TestSitesDoNotShare(t *testing.T) {
	h := newHosts(t, memoryLUN())
	h.target.SetGroups([]PortGroup{{ID: 1, Ports: []uint16{1}}, {ID: 2, Ports: []uint16{2}, Remote: true}})
	h.want(h.do("00 00 00 00 00 00", nil, 0), "6 2a06")
	h.wantData(h.do("5e 02 00 00 00 00 00 ffff 00", nil, 99), "0008 18 80 ea01 0000")
	h.want(h.out(outRegister, 0, reserveOutList(0, 1, bitAllPorts)), "5 2600 8a0014")
	h.target.SetGroups([]PortGroup{{ID: 1, Ports: []uint16{1}}, {ID: 2, Ports: []uint16{2}}})
	h.want(h.do("00 00 00 00 00 00", nil, 0), "6 2a06")
	h.wantData(h.do("5e 02 00 00 00 00 00 ffff 00", nil, 99), "0008 1c 80 ea01 0000")
	h.want(h.out(outRegister, 0, reserveOutList(0, 1, bitAllPorts)), "good")
	h.wantData(h.do("5e 00 00 00 00 00 00 ffff 00", nil, 99), "00000001 00000010 0000000000000001 0000000000000001")
}

// TestPersist gives a LUN's reservations to a new target, as after a power loss.
func TestPersist(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.pr")
	open := func() *hosts {
		r, err := local.Open(path, [16]byte{1})
		if err != nil {
			t.Fatal(err)
		}
		l := memoryLUN()
		l.Reservations = r
		return newHosts(t, l)
	}
	h := open()
	h.wantData(h.do("5e 02 00 00 00 00 00 ffff 00", nil, 99), "0008 1d 80 ea01 0000")
	h.want(h.out(outRegister, 0, reserveOutList(0, 1, bitPersist)), "good")
	h.wantData(h.do("5e 02 00 00 00 00 00 ffff 00", nil, 99), "0008 1d 81 ea01 0000")
	h.want(h.out(outReserve, 3, reserveOutList(1, 0, 0)), "good")
	h = open()
	h.want(h.by["b"].do("28 00 00000000 00 0000 00", nil, 0), "conflict")
	h.want(h.do("28 00 00000000 00 0000 00", nil, 0), "good")
	h.want(h.out(outClear, 0, reserveOutList(1, 0, 0)), "good")
	h.want(h.by["b"].do("28 00 00000000 00 0000 00", nil, 0), "good")
}

// broken is a Reserver that cannot keep anything.
type broken struct{ *local.Reservations }

func (broken) Apply(context.Context, reservation.Command) (reservation.Outcome, error) {
	return 0, errors.New("no quorum")
}

func TestReserverFails(t *testing.T) {
	l := memoryLUN()
	l.Reservations = broken{local.Memory()}
	h := newHosts(t, l)
	h.want(h.out(outRegister, 0, reserveOutList(0, 1, 0)), "4 4400")
}

// TestReservedBetween makes a reservation after a write was prepared, which must not
// reach the disk.
func TestReservedBetween(t *testing.T) {
	disk := newRAM(64 * 512)
	h := newHosts(t, testLUN(disk))
	b := h.by["b"]
	c := &sam.Command{CDB: unhex(t, "2a 00 00000000 00 0001 00 000000000000"), Out: make([]byte, 512), Ctx: context.Background()}
	if !b.nexus.Prepare(c) {
		t.Fatal("not prepared")
	}
	h.register("a", 1)
	h.want(h.out(outReserve, 1, reserveOutList(1, 0, 0)), "good")
	b.nexus.Execute(c)
	b.want(c, "conflict")
	if got := disk.took(); got != "" {
		t.Errorf("the disk saw %q", got)
	}
}

// aborts are the commands of a nexus, in name only.
type aborts func([8]byte, *sam.Command, bool)

func (a aborts) Abort(lun [8]byte, by *sam.Command, tas bool) int { a(lun, by, tas); return 1 }

// TestClearTaskSet tells a nexus whose commands another one has cleared.
func TestClearTaskSet(t *testing.T) {
	h := newHosts(t, memoryLUN())
	h.nexus.Cleared([8]byte{})
	h.ua("2f00")
	h.by["b"].want(h.by["b"].do("00", nil, 0), "good")
}

// TestPreemptAndAbort ends the commands of those who are preempted, on this unit, and
// no others, before it is answered.
func TestPreemptAndAbort(t *testing.T) {
	h := newHosts(t, memoryLUN())
	if err := h.target.AddLUN(1, memoryLUN()); err != nil {
		t.Fatal(err)
	}
	var aborted []string
	for name, r := range h.by {
		r.ua("3f0e")
		r.nexus.(sam.TaskUser).UseTasks(aborts(func(lun [8]byte, by *sam.Command, tas bool) {
			aborted = append(aborted, fmt.Sprintf("%s's on %x, %v", name, lun, tas))
		}))
	}
	h.register("a", 1)
	h.register("b", 2)
	h.want(h.out(outReserve, 1, reserveOutList(1, 0, 0)), "good")
	b := h.by["b"]
	b.want(b.out(outAbort, 3, reserveOutList(2, 1, 0)), "good")
	if got := strings.Join(aborted, ", "); got != "a's on 0000000000000000, false" {
		t.Errorf("aborted: %q", got)
	}
	h.want(h.do("00", nil, 0), "6 2a05")
	aborted = nil
	h.register("a", 1)
	h.nexus.Close()
	b.want(b.out(outAbort, 3, reserveOutList(2, 1, 0)), "good")
	if aborted != nil {
		t.Errorf("of a nexus that is closed: %q", aborted)
	}
}

// TestNoAllocationReserved reads and writes under a reservation for registrants, as
// cluster file systems do.
func TestNoAllocationReserved(t *testing.T) {
	h := newHosts(t, testLUN(huge{}))
	h.register("a", 1)
	h.register("b", 2)
	h.want(h.out(outReserve, 5, reserveOutList(1, 0, 0)), "good")
	n := h.by["b"].nexus
	c := &sam.Command{CDB: unhex(t, "2a 00 00000003 00 0008 00 000000000000"), Ctx: context.Background()}
	buf := make([]byte, 4096)
	got := testing.AllocsPerRun(1000, func() {
		if !n.Prepare(c) {
			panic("refused")
		}
		c.Out = buf
		n.Execute(c)
	})
	if got != 0 || c.Status != sam.Good {
		t.Errorf("%v allocations, status %d", got, c.Status)
	}
}
