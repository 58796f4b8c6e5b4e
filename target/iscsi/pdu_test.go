package iscsi

import (
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// unhex reads hex with spaces.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func toHeader(t testing.TB, s string) (h header) {
	t.Helper()
	b := unhex(t, s)
	if len(b) != headerSize {
		t.Fatalf("header of %d bytes", len(b))
	}
	copy(h[:], b)
	return h
}

func TestParseRequests(t *testing.T) {
	for _, c := range []struct {
		name  string
		hex   string
		parse func(*header) any
		want  any
	}{
		{"SCSI write with immediate data", `
			01a10000 00000200 0001000000000000 11223344 00001000 00000064 00000007
			2a000000000500000800 000000000000`,
			func(h *header) any { c, _ := parseSCSICommand(h, nil); return c },
			scsiCommand{final: true, write: true, attribute: simple, lun: [8]byte{1: 1}, tag: 0x11223344, expected: 4096, cmdSN: 100}},
		{"SCSI read, immediate", `
			41c10000 00000000 0000000000000000 00000001 00000200 00000064 00000007
			28000000000500000100 000000000000`,
			func(h *header) any { c, _ := parseSCSICommand(h, nil); return c },
			scsiCommand{final: true, read: true, attribute: simple, tag: 1, expected: 512, cmdSN: 100}},
		{"Data-Out", `
			05800000 00000400 0000000000000000 00000001 00000009 00000000 00000007
			00000000 00000003 00001000 00000000`,
			func(h *header) any { return parseDataOut(h) },
			dataOut{final: true, tag: 1, transferTag: 9, dataSN: 3, offset: 4096, length: 1024}},
		{"abort task", `
			42810000 00000000 0000000000000000 00000002 00000001 00000065 00000007
			00000064 00000000 00000000 00000000`,
			func(h *header) any { return parseTaskRequest(h) },
			taskRequest{function: 1, tag: 2, refTag: 1, refCmdSN: 100}},
		{"login", `
			43870000 00000080 800102030405 0000 00000010 00010000 00000064 00000007
			00000000 00000000 00000000 00000000`,
			func(h *header) any { return parseLoginRequest(h) },
			loginRequest{transit: true, stage: 1, next: 3, isid: [6]byte{0x80, 1, 2, 3, 4, 5}, tag: 16, cid: 1, cmdSN: 100, expStatSN: 7}},
		{"login, going on, with TSIH", `
			43400002 00000080 800102030405 0102 00000010 00010000 00000064 00000007
			00000000 00000000 00000000 00000000`,
			func(h *header) any { return parseLoginRequest(h) },
			loginRequest{cont: true, versionMin: 2, isid: [6]byte{0x80, 1, 2, 3, 4, 5}, tsih: 0x102, tag: 16, cid: 1, cmdSN: 100, expStatSN: 7}},
		{"text", `
			04800000 00000010 0000000000000000 00000003 ffffffff 00000064 00000007
			00000000 00000000 00000000 00000000`,
			func(h *header) any { return parseTextRequest(h) },
			textRequest{final: true, tag: 3, transferTag: noTag}},
		{"logout", `
			46810000 00000000 0000000000000000 00000004 00020000 00000064 00000007
			00000000 00000000 00000000 00000000`,
			func(h *header) any { return parseLogoutRequest(h) },
			logoutRequest{reason: 1, tag: 4, cid: 2}},
		{"NOP-Out", `
			40800000 00000004 0000000000000001 00000005 ffffffff 00000064 00000007
			00000000 00000000 00000000 00000000`,
			func(h *header) any { return parseNopOut(h) },
			nopOut{lun: [8]byte{7: 1}, tag: 5}},
	} {
		h := toHeader(t, c.hex)
		if got := c.parse(&h); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", c.name, got, c.want)
		}
	}
}

func TestBuildResponses(t *testing.T) {
	over, under := residual{over: true, count: 512}, residual{under: true, count: 256}
	for _, c := range []struct {
		name string
		pdu  interface{ put(*header) }
		hex  string
	}{
		{"SCSI response", &scsiResponse{tag: 1, expDataSN: 2, residual: under}, `
			21820000 00000000 0000000000000000 00000001 00000000 00000000 00000000
			00000000 00000002 00000000 00000100`},
		{"SCSI response with sense data", &scsiResponse{tag: 1, status: 2, residual: over, senseSize: 20}, `
			21840002 00000014 0000000000000000 00000001 00000000 00000000 00000000
			00000000 00000000 00000000 00000200`},
		{"Data-In", &dataIn{tag: 1, dataSN: 3, offset: 0x2000, length: 0x1000, residual: under}, `
			25000000 00001000 0000000000000000 00000001 ffffffff 00000000 00000000
			00000000 00000003 00002000 00000000`},
		{"last Data-In", &dataIn{final: true, last: true, tag: 1, length: 16, residual: under}, `
			25830000 00000010 0000000000000000 00000001 ffffffff 00000000 00000000
			00000000 00000000 00000000 00000100`},
		{"R2T", &readyToTransfer{lun: [8]byte{1: 2}, tag: 1, transferTag: 9, r2tSN: 1, offset: 0x10000, length: 0x40000}, `
			31800000 00000000 0002000000000000 00000001 00000009 00000000 00000000
			00000000 00000001 00010000 00040000`},
		{"task management response", &taskResponse{tag: 2, response: tmfNoLUN}, `
			22800200 00000000 0000000000000000 00000002 00000000 00000000 00000000
			00000000 00000000 00000000 00000000`},
		{"login response", &loginResponse{transit: true, stage: 1, next: 3, isid: [6]byte{0x80}, tsih: 5, tag: 16}, `
			23870000 00000000 800000000000 0005 00000010 00000000 00000000 00000000
			00000000 00000000 00000000 00000000`},
		{"login refused", &loginResponse{stage: 1, tag: 16, status: loginNotFound}, `
			23040000 00000000 0000000000000000 00000010 00000000 00000000 00000000
			00000000 02030000 00000000 00000000`},
		{"text response", &textResponse{cont: true, tag: 3, transferTag: 8}, `
			24400000 00000000 0000000000000000 00000003 00000008 00000000 00000000
			00000000 00000000 00000000 00000000`},
		{"logout response", &logoutResponse{tag: 4, response: logoutNoCID, time2Wait: 2}, `
			26800100 00000000 0000000000000000 00000004 00000000 00000000 00000000
			00000000 00000000 00020000 00000000`},
		{"NOP-In", &nopIn{tag: noTag, transferTag: 6}, `
			20800000 00000000 0000000000000000 ffffffff 00000006 00000000 00000000
			00000000 00000000 00000000 00000000`},
		{"asynchronous message", &asyncMessage{event: asyncLogout, parameter3: 2}, `
			32800000 00000000 0000000000000000 ffffffff 00000000 00000000 00000000
			00000000 01000000 00000002 00000000`},
		{"reject", &reject{rejectSNACK}, `
			3f800300 00000030 0000000000000000 ffffffff 00000000 00000000 00000000
			00000000 00000000 00000000 00000000`},
	} {
		var got header
		got[30] = 0xee // what was in the header before must not shine through
		c.pdu.put(&got)
		if want := toHeader(t, c.hex); got != want {
			t.Errorf("%s:\n got % x\nwant % x", c.name, got, want)
		}
	}
}

func TestParseAHS(t *testing.T) {
	for _, c := range []struct {
		name     string
		hex      string
		extended int // bytes
		bidi     bool
		corrupt  bool
	}{
		{name: "none"},
		{name: "a CDB of 17 bytes", hex: "0002 01 00 aa000000", extended: 1},
		{name: "a CDB of 32 bytes", hex: "0011 01 00 " + strings.Repeat("aa", 16), extended: 16},
		{name: "both", hex: "0005 02 00 00001000 0005 01 00 01020304", extended: 4, bidi: true},
		{name: "twice", hex: "0005 02 00 00001000 0005 02 00 00001000", corrupt: true},
		{name: "longer than what is there", hex: "0006 02 00 00001000", corrupt: true},
		{name: "length 0", hex: "0000 01 00", corrupt: true},
		{name: "no CDB bytes", hex: "0001 01 00", corrupt: true},
		{name: "unknown type", hex: "0005 03 00 00001000", corrupt: true},
		{name: "short bidirectional length", hex: "0003 02 00 00100000", corrupt: true},
		{name: "CDB too long", hex: "00f6 01 00 " + strings.Repeat("aa", 248), corrupt: true},
	} {
		var q scsiCommand
		err := q.parseAHS(unhex(t, c.hex))
		if c.corrupt != errors.Is(err, errFormat) {
			t.Errorf("%s: %v", c.name, err)
		}
		if !c.corrupt && (len(q.extended) != c.extended || q.bidi != c.bidi) {
			t.Errorf("%s: %+v", c.name, q)
		}
	}
}

func TestSCSICommandCorrupt(t *testing.T) {
	for name, change := range map[string]func(*header){
		"reserved tag":             func(h *header) { h.put32(16, noTag) },
		"data of a read":           func(h *header) { h[1] = isRead; h.setDataLength(4) },
		"no F bit in no write":     func(h *header) { h[1] = bitRead },
		"data of neither of these": func(h *header) { h[1] = bitFinal; h.setDataLength(4) },
	} {
		h := header{0: opSCSI, 1: isWrite}
		if _, err := parseSCSICommand(&h, nil); err != nil {
			t.Fatal(err)
		}
		change(&h)
		if _, err := parseSCSICommand(&h, nil); !errors.Is(err, errFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSerialNumbers(t *testing.T) {
	for _, c := range []struct {
		a, b uint32
		want bool
	}{{1, 2, true}, {2, 1, false}, {1, 1, false}, {0xffffffff, 0, true}, {0, 0xffffffff, false}, {0x7fffffff, 0x80000000, true}} {
		if got := before(c.a, c.b); got != c.want {
			t.Errorf("before(%#x, %#x) = %v", c.a, c.b, got)
		}
	}
}

func FuzzSCSICommand(f *testing.F) {
	h := header{0: opSCSI, 1: isWrite}
	f.Add(h[:], []byte{0, 5, 2, 0, 0, 0, 16, 0, 0, 5, 1, 0, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, hdr, ahs []byte) {
		var h header
		copy(h[:], hdr)
		ahs = ahs[:min(len(ahs), maxAHS)&^3]
		c, err := parseSCSICommand(&h, ahs)
		if err == nil && len(c.extended) > maxExtended {
			t.Fatalf("extended CDB of %d bytes", len(c.extended))
		}
	})
}
