package wire

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"testing"

	"github.com/twinlun/twinlun/dirtymap"
)

// samples has a message of every kind.
func samples() []Message {
	ranges := []dirtymap.Range{{First: 1, Count: 2}, {First: 9, Count: 1}}
	return []Message{
		&Hello{MinVersion: 1, MaxVersion: 1, Token: id16(1), MaxBody: MaxBody, Streams: 2, Node: "a"},
		&Refuse{Reason: "because"},
		&JoinRefuse{Reason: "because"},
		&Ping{ID: 1},
		&Pong{ID: 1},
		&JoinHello{LUN: id16(1), Size: 1 << 30, ExtentSize: 1 << 16, Preferred: true},
		&JoinMap{Last: true, Data: make([]byte, 600)},
		&JoinPrepared{Join: 1},
		&JoinDone{Join: 1},
		&Mark{ID: 1, Ranges: ranges},
		&MarkAck{ID: 1, Grants: []Grant{{Range: ranges[0], Turn: 1}, {Range: ranges[1], Busy: true}}},
		&Fetch{ID: 1, Own: true, Ranges: ranges},
		&FetchReply{ID: 1, Floors: []uint64{1, 2}, Items: []FetchItem{
			{Outcome: FetchedOwned, Turn: 1, Blocks: Blocks{Extent: 1, Present: dirtymap.MaskOf(3, 2), Zero: dirtymap.MaskOf(4, 1), Data: block}},
			{Outcome: FetchedShared, Blocks: Blocks{Extent: 2}}}},
		&Clear{Ranges: ranges},
		&Tell{ID: 1, Topic: 2, Body: []byte{3, 4}},
		&LeaseRequest{Life: 1, Seq: 2}, &LeaseGrant{Life: 1, Seq: 2, Applied: 3, Decided: 3, Lease: 2e9},
		&Verify{ID: 1, Extent: 2, Compare: true}, &Resend{ID: 1, Extent: 2, Blocks: dirtymap.MaskOf(3, 2)}, &Resent{ID: 1, OK: true},
		&Verified{ID: 1, Extent: 2, Outcome: VerifyDigests, Digests: []Digest{id16(1), id16(2)}},
		&Verified{ID: 1, Extent: 2, Outcome: VerifyCompared, Owned: true, Differ: dirtymap.MaskOf(0, 1), Skipped: dirtymap.MaskOf(1, 1)},
		&Told{ID: 1, Understood: true, Body: []byte{3, 4}},
		&Copy{Seq: 1, Items: []Blocks{{Extent: 1, Present: dirtymap.MaskOf(0, 1), Data: block}}},
		&CopyAck{Seq: 1},
	}
}

// Whatever arrives: what is taken as a message is one that can be sent, and
// comes back the same.
func FuzzFrame(f *testing.F) {
	var stream []byte
	for i, m := range samples() {
		f.Add(AppendFrame(nil, uint32(i), m, true))
		stream = AppendFrame(stream, uint32(i), m, false)
	}
	f.Add(stream)
	f.Fuzz(func(t *testing.T, data []byte) {
		r := newTestReader(data)
		for {
			lun, m, err := r.Next()
			if err != nil {
				if !errors.Is(err, ErrCorrupt) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("unexpected kind of error: %v", err)
				}
				return
			}
			checkAgain(t, lun, m)
		}
	})
}

// FuzzMessage is FuzzFrame behind the checksums, for bodies of one kind.
func FuzzMessage(f *testing.F) {
	for _, m := range samples() {
		f.Add(uint8(m.Kind()), body(m))
	}
	f.Fuzz(func(t *testing.T, kind uint8, data []byte) {
		m := newMessage(Kind(kind))
		if m == nil {
			return
		}
		given := bytes.Clone(data)
		if parseBody(m, data) == nil {
			checkAgain(t, 0, m)
		}
		if !bytes.Equal(given, data) {
			t.Fatal("the body was changed")
		}
	})
}

// FuzzCompressed is FuzzFrame behind the checksums, for compressed bodies.
func FuzzCompressed(f *testing.F) {
	for _, m := range samples() {
		b := AppendFrame(nil, 0, m, true)
		f.Add(uint8(m.Kind()), b[HeaderSize:])
	}
	f.Fuzz(func(t *testing.T, kind uint8, data []byte) {
		lun, m, err := newTestReader(frame(Kind(kind), flagCompressed, 0, len(data), data)).Next()
		if err == nil {
			checkAgain(t, lun, m)
		} else if !errors.Is(err, ErrCorrupt) {
			t.Fatalf("unexpected kind of error: %v", err)
		}
	})
}

func checkAgain(t *testing.T, lun uint32, m Message) {
	t.Helper()
	for _, compress := range []bool{false, true} {
		gotLUN, got, err := newTestReader(AppendFrame(nil, lun, m, compress)).Next()
		if err != nil || gotLUN != lun || !reflect.DeepEqual(got, m) {
			t.Fatalf("%+v came back as %+v, %v", m, got, err)
		}
	}
}
