package scsi

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
)

func ascii(s string) string { return hex.EncodeToString([]byte(s)) }
func zeros(n int) string    { return strings.Repeat("00", n) }

// TestResponses pins every response byte by byte, with an allocation length that
// takes all of it.
func TestResponses(t *testing.T) {
	const naa = "60010203 04050607 08090a0b 0c0d0e0f"
	for _, tt := range []struct{ name, cdb, want string }{
		{"INQUIRY", "12 00 00 00ff 00", "00 00 06 12 5b 18 10 02" + ascii("TWINLUN twinlun         0.1 ") +
			zeros(22) + "00a0 0960 0460 04c0" + zeros(8) + zeros(22)},
		{"supported pages", "12 01 00 00ff 00", "00 00 000a 00 80 83 86 87 88 8f b0 b1 b2"},
		{"serial", "12 01 80 00ff 00", "00 80 0004" + ascii("SN-1")},
		{"identification", "12 01 83 00ff 00", "00 83 008c" +
			"01 03 00 10" + naa +
			"02 01 00 1c" + ascii("TWINLUN twinlun         SN-1") +
			"51 94 00 04 0000 0002" +
			"51 95 00 04 0000 0002" +
			"53 98 00 24" + ascii(testName+",t,0x0002") + "000000" +
			"53 a8 00 1c" + ascii(testName) + zeros(4)},
		{"extended INQUIRY", "12 01 86 00ff 00", "00 86 003c 00 01 01 01" + zeros(56)},
		{"mode page policy", "12 01 87 00ff 00", "00 87 0004 3f ff 00 00"},
		{"SCSI ports", "12 01 88 00ff 00", "00 88 0034 0000 0002 0000 0000 0000 0028" +
			"53 98 00 24" + ascii(testName+",t,0x0002") + "000000"},
		{"block limits", "12 01 b0 00ff 00", "00 b0 003c 01 ff 0008 00008000 00000000 00000000" +
			"00100000 00000100 00000008 80000000 0000000000008000 00000100 00000008 00000008 00000100 00000100"},
		{"characteristics", "12 01 b1 00ff 00", "00 b1 003c 0001 00 40" + zeros(56)},
		{"provisioning", "12 01 b2 00ff 00", "00 b2 0004 00 e4 02 00"},

		{"READ CAPACITY (10)", "25", "0000003f 00000200"},
		{"READ CAPACITY (16)", "9e 10 00000000 00000000 00000020 00 00",
			"00000000 0000003f 00000200 00 03 c000" + zeros(16)},

		{"GET LBA STATUS", "9e 12 0000000000000003 00000020 00 00",
			"00000014 00000000 0000000000000003 0000003d 00000000"},

		{"caching", "1a 00 08 00 ff 00", "1f 00 10 08 00000040 00000200 08 12 04" + zeros(17)},
		{"caching, no block", "1a 08 08 00 ff 00", "17 00 10 00 08 12 04" + zeros(17)},
		{"caching, all subpages", "1a 08 08 ff ff 00", "17 00 10 00 08 12 04" + zeros(17)},
		{"caching, changeable", "1a 08 48 00 ff 00", "17 00 10 00 08 12 04" + zeros(17)},
		{"caching, default", "1a 08 88 00 ff 00", "17 00 10 00 08 12 04" + zeros(17)},
		{"control, changeable", "1a 08 4a 00 ff 00", "0f 00 10 00 0a 0a 0000 08 40" + zeros(6)},
		{"control, default", "1a 08 8a 00 ff 00", "0f 00 10 00 0a 0a 0010" + zeros(8)},
		{"control", "1a 08 0a 00 ff 00", "0f 00 10 00 0a 0a 0010" + zeros(8)},
		{"exceptions", "1a 08 1c 00 ff 00", "0f 00 10 00 1c 0a 08" + zeros(9)},
		{"all pages", "1a 08 3f 00 ff 00", "2f 00 10 00 08 12 04" + zeros(17) +
			"0a 0a 0010" + zeros(8) + "1c 0a 08" + zeros(9)},
		{"all pages and subpages", "1a 08 3f ff ff 00", "2f 00 10 00 08 12 04" + zeros(17) +
			"0a 0a 0010" + zeros(8) + "1c 0a 08" + zeros(9)},
		{"MODE SENSE (10)", "5a 00 0a 00 00 00 00 00ff 00",
			"001a 00 10 00 00 0008 00000040 00000200 0a 0a 0010" + zeros(8)},
		{"MODE SENSE (10), long", "5a 10 0a 00 00 00 00 00ff 00",
			"0022 00 10 01 00 0010 0000000000000040 00000000 00000200 0a 0a 0010" + zeros(8)},
		{"MODE SENSE (10), long, no block", "5a 18 0a 00 00 00 00 00ff 00",
			"0012 00 10 00 00 0000 0a 0a 0010" + zeros(8)},

		{"REPORT LUNS", "a0 00 00 000000 000000ff 00 00", "00000008 00000000" + zeros(8)},
		{"REPORT LUNS, well known", "a0 00 01 000000 000000ff 00 00", zeros(8)},
		{"REPORT LUNS, all", "a0 00 02 000000 000000ff 00 00", "00000008 00000000" + zeros(8)},
		{"REPORT LUNS, administrative", "a0 00 10 000000 000000ff 00 00", zeros(8)},
		{"REPORT LUNS, not subsidiary", "a0 00 11 000000 000000ff 00 00", "00000008 00000000" + zeros(8)},

		{"REQUEST SENSE", "03 00 00 00 ff 00", "70 00 00 00000000 0a 00000000 0000 00 000000"},
		{"REQUEST SENSE, descriptors", "03 01 00 00 ff 00", "72 00 0000 00000000"},

		{"log pages", "4d 00 00 00 00 0000 00ff 00", "00 00 0001 00"},
		{"log pages, current", "4d 00 40 00 00 0000 00ff 00", "00 00 0001 00"},
		{"log pages and subpages", "4d 00 00 ff 00 0000 00ff 00", "40 ff 0004 0000 00ff"},
		{"diagnostic pages", "1c 01 00 00ff 00", "00 00 0001 00"},
		{"diagnostic results", "1c 00 00 00ff 00", "00 00 0001 00"},
		{"task management", "a3 0d 00 00 0000 000000ff 00 00", "da 00 00 00"},
		{"task management, REPD", "a3 0d 80 00 0000 000000ff 00 00", "da 00 00 0c" + zeros(12)},

		{"opcode READ (10)", "a3 0c 01 28 0000 000000ff 00 00", "0003 000a 28 18 ffffffff 00 ffff 00"},
		{"opcode, timeouts", "a3 0c 81 00 0000 000000ff 00 00", "0083 0006 00 0000000000 000a" + zeros(10)},
		{"opcode not there", "a3 0c 01 04 0000 000000ff 00 00", "0001 0000"},
		{"service action", "a3 0c 02 9e 0010 000000ff 00 00",
			"0003 0010 9e 10 0000000000000000 ffffffff 00 00"},
		{"service action not there", "a3 0c 02 9e 0011 000000ff 00 00", "0001 0000"},
		{"either, opcode", "a3 0c 03 00 0000 000000ff 00 00", "0003 0006 00 0000000000"},
		{"either, action", "a3 0c 03 a3 000c 000000ff 00 00", "0003 000c a3 0c 87 ffffffffffffff 00 00"},
		{"either, not there", "a3 0c 03 00 0001 000000ff 00 00", "0001 0000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			c := r.do(tt.cdb, nil, 4096)
			r.wantData(c, tt.want)
			if want := len(unhex(t, tt.want)); int(c.Needed) != want {
				t.Errorf("Needed %d, want %d", c.Needed, want)
			}
		})
	}
}

// TestAllocationLength cuts each answer at every length, by the CDB and by what
// the initiator expects.
func TestAllocationLength(t *testing.T) {
	for _, tt := range []struct{ name, cdb string }{
		{"INQUIRY", "12 00 00 %04x 00"},
		{"identification", "12 01 83 %04x 00"},
		{"READ CAPACITY (16)", "9e 10 00000000 00000000 %08x 00 00"},
		{"MODE SENSE (6)", "1a 00 3f ff %02x 00"},
		{"MODE SENSE (10)", "5a 10 3f ff 00 00 00 %04x 00"},
		{"REPORT LUNS", "a0 00 00 000000 %08x 00 00"},
		{"REQUEST SENSE", "03 00 00 00 %02x 00"},
		{"opcodes", "a3 0c 00 00 0000 %08x 00 00"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			cdb := func(n int) string { return fmt.Sprintf(tt.cdb, n) }
			whole := r.do(cdb(255), nil, 255)
			all := whole.In[:whole.InLen]
			for n := range len(all) {
				c := r.do(cdb(n), nil, 255)
				r.wantData(c, hex.EncodeToString(all[:n]))
				if int(c.Needed) != n {
					t.Errorf("Needed %d, want %d", c.Needed, n)
				}
				c = r.do(cdb(255), nil, n)
				r.wantData(c, hex.EncodeToString(all[:n]))
				if c.Needed != whole.Needed {
					t.Errorf("expecting %d: Needed %d, want %d", n, c.Needed, whole.Needed)
				}
			}
		})
	}
}

// TestAllOpcodes checks the list of operation codes against what is answered:
// whatever is not in it ends with INVALID COMMAND OPERATION CODE.
func TestAllOpcodes(t *testing.T) {
	r := newRig(t)
	c := r.do("a3 0c 00 00 0000 00001000 00 00", nil, 4096)
	r.want(c, "good")
	listed := map[byte]bool{}
	for p := c.In[4:c.InLen]; len(p) > 0; p = p[8:] {
		listed[p[0]] = true
	}
	for code := range 256 {
		got := outcome(r.do(fmt.Sprintf("%02x", code), nil, 0))
		if refused := got == "5 2000"; refused == listed[byte(code)] {
			t.Errorf("operation code %02x: listed %v, but answers %q", code, listed[byte(code)], got)
		}
	}
	if len(listed) < 40 {
		t.Errorf("%d operation codes, want at least 40", len(listed))
	}
}

// TestEUI shows an EUI-64 designator and a short NAA identifier.
func TestEUI(t *testing.T) {
	target := quietTarget()
	l := testLUN(newRAM(4096))
	l.NAA, l.EUI, l.Serial = [16]byte{0x30, 1, 2, 3, 4, 5, 6, 7}, [8]byte{1, 2, 3, 4, 5, 6, 7, 8}, "X"
	if err := target.AddLUN(300, l); err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, target: target, nexus: target.NewNexus(testPort, 1)}
	cdb := unhex(t, "12 01 83 00 20 00 00 00 00 00 00 00 00 00 00 00")
	r.wantData(run(r.nexus, [8]byte{0x41, 0x2c}, cdb, nil, 32),
		"00 83 008d 01 03 00 08 30010203 04050607 01 02 00 08 01020304 05060708 02 01 00 19")
	r.wantData(r.do("a0 00 00 000000 000000ff 00 00", nil, 255), "00000008 00000000 412c"+zeros(6))
}
