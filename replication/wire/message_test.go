package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/twinlun/twinlun/dirtymap"
)

// id16 is 16 bytes that count up from first.
func id16(first byte) (a [16]byte) {
	for i := range a {
		a[i] = first + byte(i)
	}
	return a
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// parse is a message from a body; an error that is not ErrCorrupt fails the test.
func parse(t testing.TB, k Kind, body []byte) (Message, error) {
	t.Helper()
	m := newMessage(k)
	err := parseBody(m, body)
	if err != nil && !errors.Is(err, ErrCorrupt) {
		t.Fatalf("%v: %v is not ErrCorrupt", k, err)
	}
	return m, err
}

// body is a message's body without compression.
func body(m Message) []byte { return AppendFrame(nil, 0, m, false)[HeaderSize:] }

var block = bytes.Repeat([]byte{0xAB}, dirtymap.BlockSize)

// Each message's layout, byte by byte, and bodies that must be refused.
func TestMessages(t *testing.T) {
	const abBlock = "AB*4096"
	for _, test := range []struct {
		m       Message
		hex     string // abBlock stands for a block
		corrupt map[string]string
	}{
		{
			m: &Hello{MinVersion: 1, MaxVersion: 2, Features: 1, Token: id16(0x10), Connection: id16(0x20), NodeID: id16(0x30),
				MaxBody: 0x820000, Stream: 1, Streams: 2, Node: "ab"},
			hex: `0001 0002 00000001 101112131415161718191a1b1c1d1e1f 202122232425262728292a2b2c2d2e2f
				303132333435363738393a3b3c3d3e3f 00820000 01 02 02 6162`,
			corrupt: map[string]string{
				"version 0":      `0000 0002 00000001 ` + zeros(48) + `00820000 01 02 02 6162`,
				"min above max":  `0003 0002 00000001 ` + zeros(48) + `00820000 01 02 02 6162`,
				"no streams":     `0001 0002 00000001 ` + zeros(48) + `00820000 00 00 02 6162`,
				"stream too big": `0001 0002 00000001 ` + zeros(48) + `00820000 03 02 02 6162`,
				"17 streams":     `0001 0002 00000001 ` + zeros(48) + `00820000 00 11 02 6162`,
				"no name":        `0001 0002 00000001 ` + zeros(48) + `00820000 01 02 00`,
				"name cut":       `0001 0002 00000001 ` + zeros(48) + `00820000 01 02 03 6162`,
				"name no UTF-8":  `0001 0002 00000001 ` + zeros(48) + `00820000 01 02 01 ff`,
				"name with LF":   `0001 0002 00000001 ` + zeros(48) + `00820000 01 02 01 0a`,
				"name too long":  `0001 0002 00000001 ` + zeros(48) + `00820000 01 02 41 ` + strings.Repeat("61", 65),
				"short":          `0001 0002`,
			},
		},
		{m: &Refuse{Reason: "no ☂"}, hex: `6e6f20e29882`},
		{m: &JoinRefuse{Reason: "no ☂"}, hex: `6e6f20e29882`},
		{m: &Ping{ID: 0x0102030405060708}, hex: `0102030405060708`,
			corrupt: map[string]string{"short": `01020304050607`, "long": `010203040506070809`}},
		{m: &Pong{ID: 9}, hex: `0000000000000009`, corrupt: map[string]string{"empty": ``}},
		{
			m: &JoinHello{LUN: id16(0x10), History: id16(0x20), Size: 1 << 40, ExtentSize: 65536, Preferred: true, Crashed: true, Alone: true,
				Committed: 3, Prepared: 4, Proposal: id16(0x30), Want: 1 << 41, BlockSize: 4096, Term: 5, TermID: id16(0x40), AloneTerm: 6, Least: 7},
			hex: `101112131415161718191a1b1c1d1e1f 202122232425262728292a2b2c2d2e2f 0000010000000000 00010000 15
				0000000000000003 0000000000000004 303132333435363738393a3b3c3d3e3f 0000020000000000 00001000
				0000000000000005 404142434445464748494a4b4c4d4e4f 0000000000000006 0000000000000007`,
			corrupt: map[string]string{"unknown flag": zeros(44) + "40" + zeros(84), "short": zeros(128), "long": zeros(130)},
		},
		{m: &JoinHello{Blank: true, Restarted: true}, hex: zeros(44) + "0a" + zeros(84)},
		{m: &JoinHello{Fork: true}, hex: zeros(44) + "20" + zeros(84)},
		{m: &JoinMap{Last: true, Data: []byte{1, 2}}, hex: `01 0102`, corrupt: map[string]string{"flag": `02`, "empty": ``}},
		{m: &JoinMap{}, hex: `00`},
		{m: &JoinPrepared{Join: 7}, hex: `0000000000000007`, corrupt: map[string]string{"short": `00`}},
		{m: &JoinDone{Join: 8}, hex: `0000000000000008`, corrupt: map[string]string{"short": `00`}},
		{
			m:   &Mark{ID: 5, Ranges: []dirtymap.Range{{First: 1, Count: 2}, {First: 3, Count: 1<<34 - 3}}},
			hex: `0000000000000005 00000002 0000000000000001 0000000000000002 0000000000000003 00000003fffffffd`,
			corrupt: map[string]string{
				"no range":      `0000000000000005 00000000`,
				"empty range":   `0000000000000005 00000001 0000000000000001 0000000000000000`,
				"overlap":       `0000000000000005 00000002 0000000000000001 0000000000000002 0000000000000002 0000000000000001`,
				"descending":    `0000000000000005 00000002 0000000000000009 0000000000000001 0000000000000002 0000000000000001`,
				"overflow":      `0000000000000005 00000001 ffffffffffffffff 0000000000000002`,
				"behind 64 TiB": `0000000000000005 00000001 0000000000000001 0000000400000000`,
				"count":         `0000000000000005 ffffffff 0000000000000001 0000000000000002`,
				"one too many":  `0000000000000005 00000002 0000000000000001 0000000000000002`,
				"long":          `0000000000000005 00000001 0000000000000001 0000000000000002 00`,
			},
		},
		{
			m: &MarkAck{ID: 5, Grants: []Grant{{Range: dirtymap.Range{First: 1, Count: 2}, Turn: 3}, {Range: dirtymap.Range{First: 3, Count: 1}, Busy: true}}},
			hex: `0000000000000005 00000002 0000000000000001 0000000000000002 00 03
				0000000000000003 0000000000000001 01 00`,
			corrupt: map[string]string{
				"turn":        `0000000000000005 00000001 0000000000000001 0000000000000002 00 04`,
				"busy":        `0000000000000005 00000001 0000000000000001 0000000000000002 02 00`,
				"empty range": `0000000000000005 00000001 0000000000000001 0000000000000000 00 00`,
				"count":       `0000000000000005 00010001` + zeros(18*65537),
			},
		},
		{
			m:       &Fetch{ID: 5, Own: true, Ranges: []dirtymap.Range{{First: 1, Count: 2}}},
			hex:     `0000000000000005 01 00000001 0000000000000001 0000000000000002`,
			corrupt: map[string]string{"own": `0000000000000005 02 00000001 0000000000000001 0000000000000002`, "no range": `0000000000000005 01 00000000`},
		},
		{
			m: &FetchReply{ID: 5, Atomics: 0xb0c, Floors: []uint64{6, 7}, Items: []FetchItem{
				{Outcome: FetchedShared, Blocks: Blocks{Extent: 8}},
				{Outcome: FetchedOwned, Turn: 2, Blocks: Blocks{Extent: 9, Present: dirtymap.MaskOf(0, 2), Zero: dirtymap.MaskOf(1, 1), Data: block}},
				{Outcome: FetchedKept, Blocks: Blocks{Extent: 10, Present: dirtymap.MaskOf(255, 1), Zero: dirtymap.MaskOf(255, 1)}},
				{Outcome: FetchedFailed, Blocks: Blocks{Extent: 11}},
			}},
			hex: `0000000000000005 0000000000000b0c 02 0000000000000006 0000000000000007 00000004
				01 00 0000000000000008 00
				02 02 0000000000000009 01 0000000000000003 0000000000000002 ` + abBlock + `
				03 00 000000000000000a 04 ` + zeros(24) + `8000000000000000 ` + zeros(24) + `8000000000000000
				04 00 000000000000000b 00`,
			corrupt: map[string]string{
				"outcome 0":       `0000000000000005 0000000000000b0c 00 00000001 00 00 0000000000000008 00`,
				"outcome 5":       `0000000000000005 0000000000000b0c 00 00000001 05 00 0000000000000008 00`,
				"turn":            `0000000000000005 0000000000000b0c 00 00000001 01 04 0000000000000008 00`,
				"extent":          `0000000000000005 0000000000000b0c 00 00000001 01 00 0000000400000000 00`,
				"17 floors":       `0000000000000005 0000000000000b0c 11 ` + zeros(8*17) + `00000000`,
				"floors missing":  `0000000000000005 0000000000000b0c 02 0000000000000001`,
				"count":           `0000000000000005 0000000000000b0c 00 7fffffff 01 00 0000000000000008 00`,
				"5 words":         `0000000000000005 0000000000000b0c 00 00000001 01 00 0000000000000008 05` + zeros(80),
				"zero, absent":    `0000000000000005 0000000000000b0c 00 00000001 01 00 0000000000000008 01 0000000000000001 0000000000000003` + abBlock,
				"data missing":    `0000000000000005 0000000000000b0c 00 00000001 01 00 0000000000000008 01 0000000000000003 0000000000000000` + abBlock,
				"too much data":   `0000000000000005 0000000000000b0c 00 00000001 01 00 0000000000000008 01 0000000000000001 0000000000000001` + abBlock,
				"an item missing": `0000000000000005 0000000000000b0c 00 00000002 01 00 0000000000000008 00`,
			},
		},
		{m: &Clear{Ranges: []dirtymap.Range{{First: 1, Count: 2}}}, hex: `00000001 0000000000000001 0000000000000002`,
			corrupt: map[string]string{"no range": `00000000`, "count": `00000002 0000000000000001 0000000000000002`}},
		{m: &Tell{ID: 5, Topic: 0x0102, Body: []byte{0xab}}, hex: `0000000000000005 0102 0001 ab`,
			corrupt: map[string]string{"too long": `0000000000000005 0102 1001` + zeros(4097), "body missing": `0000000000000005 0102 0002 ab`}},
		{m: &Told{ID: 5, Understood: true}, hex: `0000000000000005 01 0000`,
			corrupt: map[string]string{"flag": `0000000000000005 02 0000`, "too long": `0000000000000005 01 1001` + zeros(4097), "body missing": `0000000000000005 01 0001`}},
		{
			m: &Copy{Seq: 5, Atomics: 0xd0e, Items: []Blocks{{Extent: 8, Present: dirtymap.MaskOf(1, 1), Data: block}, {Extent: 9, Present: dirtymap.MaskOf(64, 1), Zero: dirtymap.MaskOf(64, 1)}}},
			hex: `0000000000000005 0000000000000d0e 00000002 0000000000000008 01 0000000000000002 0000000000000000 ` + abBlock + `
				0000000000000009 02 0000000000000000 0000000000000001 0000000000000000 0000000000000001`,
			corrupt: map[string]string{
				"extent twice": `0000000000000005 0000000000000d0e 00000002 0000000000000008 00 0000000000000008 00`,
				"descending":   `0000000000000005 0000000000000d0e 00000002 0000000000000008 00 0000000000000007 00`,
				"data missing": `0000000000000005 0000000000000d0e 00000001 0000000000000008 01 0000000000000002 0000000000000000`,
				"zero, absent": `0000000000000005 0000000000000d0e 00000001 0000000000000008 01 0000000000000000 0000000000000001`,
			},
		},
		{m: &Verify{ID: 5, Extent: 9, Compare: true}, hex: `0000000000000005 0000000000000009 01`,
			corrupt: map[string]string{"flag": zeros(16) + `02`, "extent": zeros(8) + `0000000400000000 00`, "long": zeros(18)}},
		{
			m:   &Verified{ID: 5, Extent: 9, Outcome: VerifyCompared, Owned: true, Differ: dirtymap.MaskOf(0, 1), Skipped: dirtymap.MaskOf(64, 1)},
			hex: `0000000000000005 0000000000000009 04 01 0000000000000001` + zeros(24) + zeros(8) + `0000000000000001` + zeros(16) + `0000`,
			corrupt: map[string]string{
				"outcome 0":          zeros(84),
				"outcome 5":          zeros(16) + `05` + zeros(67),
				"extent":             zeros(8) + `0000000400000000 01` + zeros(67),
				"differ and skipped": zeros(16) + `04 00 0000000000000001` + zeros(24) + `0000000000000001` + zeros(26),
				"busy, and differs":  zeros(16) + `01 00 0000000000000001` + zeros(58),
				"no digests":         zeros(16) + `03` + zeros(67),
				"digests, busy":      zeros(16) + `01` + zeros(65) + `0001` + zeros(16),
				"digest missing":     zeros(16) + `03` + zeros(65) + `0002` + zeros(16),
				"257 digests":        zeros(16) + `03` + zeros(65) + `0101` + zeros(16*257),
			},
		},
		{
			m:   &Verified{ID: 5, Extent: 9, Outcome: VerifyDigests, Digests: []Digest{id16(0x10), id16(0x20)}},
			hex: `0000000000000005 0000000000000009 03 00` + zeros(64) + `0002 101112131415161718191a1b1c1d1e1f 202122232425262728292a2b2c2d2e2f`,
		},
		{m: &Resend{ID: 5, Extent: 9, Blocks: dirtymap.MaskOf(255, 1)}, hex: `0000000000000005 0000000000000009 ` + zeros(24) + `8000000000000000`,
			corrupt: map[string]string{"no blocks": zeros(48), "extent": zeros(8) + `0000000400000000 0000000000000001` + zeros(24), "short": zeros(47)}},
		{m: &Resent{ID: 5, OK: true}, hex: `0000000000000005 01`, corrupt: map[string]string{"flag": zeros(8) + `02`}},
		{m: &CopyAck{Seq: 5}, hex: `0000000000000005`, corrupt: map[string]string{"long": `000000000000000500`}},
	} {
		k := test.m.Kind()
		full := func(s string) []byte { return unhex(t, strings.ReplaceAll(s, abBlock, hex.EncodeToString(block))) }
		if got := body(test.m); !bytes.Equal(got, full(test.hex)) {
			t.Errorf("%v: encoded as %.200x", k, got)
		}
		if got := Size(test.m); got != HeaderSize+len(full(test.hex)) {
			t.Errorf("%v: size is %d", k, got)
		}
		if got, err := parse(t, k, full(test.hex)); err != nil || !reflect.DeepEqual(got, test.m) {
			t.Errorf("%v: parsed as %+v, %v", k, got, err)
		}
		for what, bad := range test.corrupt {
			if m, err := parse(t, k, full(bad)); err == nil {
				t.Errorf("%v, %s: taken as %+v", k, what, m)
			}
		}
	}
}

func zeros(n int) string { return strings.Repeat("00", n) }

// Every kind has a name and a message that says so itself.
func TestKinds(t *testing.T) {
	seen := map[string]bool{}
	all := HandshakeKinds | ControlKinds | BulkKinds
	for k := Kind(0); k < 255; k++ {
		m := newMessage(k)
		if (m != nil) != all.Has(k) || m != nil && m.Kind() != k {
			t.Errorf("kind %d makes a %T", k, m)
		}
		if m != nil && (strings.HasPrefix(k.String(), "kind-") || seen[k.String()]) {
			t.Errorf("kind %d is called %v", k, k)
		}
		seen[k.String()] = true
	}
}

// A later version may append to HELLO.
func TestHelloOfTheFuture(t *testing.T) {
	want := &Hello{MinVersion: 1, MaxVersion: 9, Streams: 1, Node: "a"}
	got, err := parse(t, KindHello, append(body(want), 1, 2, 3))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestRefuseIsCut(t *testing.T) {
	long := &Refuse{Reason: strings.Repeat("x", MaxReason-1) + "☂"}
	got, err := parse(t, KindRefuse, body(long))
	if err != nil || got.(*Refuse).Reason != strings.Repeat("x", MaxReason-1) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestAgree(t *testing.T) {
	for _, test := range []struct {
		a, b    [2]uint16 // versions
		version uint16    // 0: none
	}{
		{[2]uint16{1, 1}, [2]uint16{1, 1}, 1},
		{[2]uint16{1, 3}, [2]uint16{2, 5}, 3},
		{[2]uint16{2, 2}, [2]uint16{1, 2}, 2},
		{[2]uint16{1, 1}, [2]uint16{2, 3}, 0},
	} {
		a := &Hello{MinVersion: test.a[0], MaxVersion: test.a[1], Features: 6, Node: "a"}
		b := &Hello{MinVersion: test.b[0], MaxVersion: test.b[1], Features: 3, Node: "b"}
		for _, pair := range [][2]*Hello{{a, b}, {b, a}} {
			version, features, err := Agree(pair[0], pair[1])
			if version != test.version || (err != nil) != (test.version == 0) || err == nil && features != 2 {
				t.Errorf("%v and %v: %d, %b, %v", test.a, test.b, version, features, err)
			}
		}
	}
}

// What would break its bounds at the peer panics here.
func TestBadMessagesPanic(t *testing.T) {
	for _, m := range []Message{
		&Mark{},
		&Clear{Ranges: []dirtymap.Range{{First: 5, Count: 1}, {First: 5, Count: 1}}},
		&Fetch{Ranges: []dirtymap.Range{{First: MaxExtents, Count: 1}}},
		&MarkAck{Grants: []Grant{{Range: dirtymap.Range{Count: 1}, Turn: 4}}},
		&FetchReply{Floors: make([]uint64, MaxBulkStreams+1)},
		&Copy{Items: []Blocks{{Present: dirtymap.MaskOf(0, 1)}}},
		&Copy{Items: []Blocks{{Data: block}}},
		&JoinMap{Data: make([]byte, MaxBody)},
		&Tell{Body: make([]byte, MaxTell+1)},
		&Verified{Outcome: VerifyDigests, Digests: make([]Digest, maxDigests+1)},
		&Resend{},
		&Hello{},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%v was encoded: %+v", m.Kind(), m)
				}
			}()
			AppendFrame(nil, 0, m, false)
		}()
	}
}
