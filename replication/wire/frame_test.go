package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/s2"
	"pgregory.net/rapid"

	"github.com/twinlun/twinlun/dirtymap"
)

const allKinds = HandshakeKinds | ControlKinds | BulkKinds

func newTestReader(b []byte) *Reader { return NewReader(bytes.NewReader(b), allKinds, MaxBody) }

// frame makes a frame of any header and body, with checksums that are right.
func frame(kind Kind, flags, reserved byte, n int, body []byte) []byte {
	b := make([]byte, HeaderSize, HeaderSize+len(body))
	b[0], b[1], b[2], b[3] = magic, byte(kind), flags, reserved
	binary.BigEndian.PutUint32(b[4:], 7)
	binary.BigEndian.PutUint32(b[8:], uint32(n))
	binary.BigEndian.PutUint32(b[12:], crc32.Checksum(body, castagnoli))
	binary.BigEndian.PutUint32(b[16:], crc32.Checksum(b[:16], castagnoli))
	return append(b, body...)
}

func TestFrameLayout(t *testing.T) {
	want := unhex(t, `d7 03 00 00 0a0b0c0d 00000008 46891f81 dff64cbb 0102030405060708`)
	got := AppendFrame([]byte{0xFF}, 0x0a0b0c0d, &Ping{ID: 0x0102030405060708}, true)
	if !bytes.Equal(got[1:], want) || got[0] != 0xFF {
		t.Errorf("%x", got)
	}
	r := newTestReader(want)
	lun, m, err := r.Next()
	if lun != 0x0a0b0c0d || err != nil || m.(*Ping).ID != 0x0102030405060708 || r.FrameLen() != len(want) {
		t.Errorf("%x %+v %v, length %d", lun, m, err, r.FrameLen())
	}
	if _, _, err := r.Next(); err != io.EOF {
		t.Errorf("behind the last frame: %v", err)
	}
}

func TestCorruptFrames(t *testing.T) {
	ping := make([]byte, 8)
	packed := s2.Encode(nil, append(make([]byte, 11), body(&JoinMap{Data: make([]byte, 2000)})...))
	for what, b := range map[string][]byte{
		"wrong magic":           append([]byte{'G'}, frame(KindPing, 0, 0, 8, ping)[1:]...),
		"unknown kind":          frame(5, 0, 0, 8, ping),
		"kind 255":              frame(255, 0, 0, 8, ping),
		"unknown flag":          frame(KindPing, 2, 0, 8, ping),
		"reserved byte":         frame(KindPing, 0, 1, 8, ping),
		"too long":              frame(KindJoinMap, 0, 0, MaxBody+1, nil),
		"4 GiB":                 frame(KindJoinMap, 0, 0, 1<<32-1, nil),
		"compressed nonsense":   frame(KindJoinMap, flagCompressed, 0, 5, []byte("\x05abcd")),
		"compressed, no length": frame(KindJoinMap, flagCompressed, 0, 0, nil),
		"compressed bomb":       frame(KindJoinMap, flagCompressed, 0, 5, binary.AppendUvarint(nil, 1<<32-1)),
		"unpacks too long":      frame(KindJoinMap, flagCompressed, 0, 4, binary.AppendUvarint(nil, MaxBody+1)),
		"compressed, cut":       frame(KindJoinMap, flagCompressed, 0, len(packed)-1, packed[:len(packed)-1]),
	} {
		if _, m, err := newTestReader(b).Next(); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %+v, %v", what, m, err)
		}
	}
}

// No single bit can change without being noticed.
func TestEveryBitCounts(t *testing.T) {
	good := AppendFrame(nil, 3, &Mark{ID: 1, Ranges: []dirtymap.Range{{First: 1, Count: 1}}}, false)
	for i := range len(good) * 8 {
		b := bytes.Clone(good)
		b[i/8] ^= 1 << (i % 8)
		if _, m, err := newTestReader(b).Next(); !errors.Is(err, ErrCorrupt) {
			t.Errorf("bit %d: %+v, %v", i, m, err)
		}
	}
}

// A stream that ends inside a frame is no clean end, and nothing to blame on the peer.
func TestCutFrames(t *testing.T) {
	good := AppendFrame(nil, 3, &JoinMap{Data: []byte("data")}, false)
	for n := range len(good) {
		want := io.ErrUnexpectedEOF
		if n == 0 {
			want = io.EOF
		}
		if _, _, err := newTestReader(good[:n]).Next(); !errors.Is(err, want) || errors.Is(err, ErrCorrupt) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
}

func TestReaderAllows(t *testing.T) {
	mark := AppendFrame(nil, 0, &Mark{Ranges: []dirtymap.Range{{First: 1, Count: 1}}}, false)
	hello := AppendFrame(nil, 0, &Hello{MinVersion: 1, MaxVersion: 1, Streams: 1, Node: "a"}, false)
	stream := append(append(append(bytes.Clone(hello), mark...), mark...), hello...)
	r := NewReader(bytes.NewReader(stream), HandshakeKinds, MaxHandshakeBody)
	for _, step := range []struct {
		kinds KindSet
		max   int
		good  bool
	}{
		{HandshakeKinds, MaxHandshakeBody, true},
		{ControlKinds, 28, true},
		{ControlKinds, 27, false},
	} {
		r.Allow(step.kinds, step.max)
		if _, _, err := r.Next(); (err == nil) != step.good {
			t.Errorf("%+v: %v", step, err)
		}
	}
	for _, kinds := range []KindSet{HandshakeKinds, BulkKinds} {
		if _, m, err := NewReader(bytes.NewReader(mark), kinds, MaxBody).Next(); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%v came through: %v", m, err)
		}
	}
}

// The length that a header claims takes no memory by itself.
func TestClaimsTakeNoMemory(t *testing.T) {
	claim := frame(KindCopy, 0, 0, MaxHandshakeBody+1, nil)
	r := NewReader(bytes.NewReader(claim), allKinds, MaxHandshakeBody)
	if _, _, err := r.Next(); !errors.Is(err, ErrCorrupt) || len(r.scratch) > 0 {
		t.Errorf("%v, %d bytes taken", err, len(r.scratch))
	}
}

// Large data is referred to by a batch, and belongs to the message of a reader.
func TestDataIsNotShared(t *testing.T) {
	data := bytes.Repeat([]byte{1}, 2*dirtymap.BlockSize)
	var b Batch
	b.Add(1, &Copy{Seq: 1, Items: []Blocks{{Present: dirtymap.MaskOf(0, 2), Data: data}}}, false)
	refers := false
	for _, p := range b.Buffers() {
		refers = refers || &p[0] == &data[0]
	}
	if !refers {
		t.Error("the batch has a copy of the data")
	}
	stream := bytes.Join(b.Buffers(), nil)
	r := newTestReader(append(bytes.Clone(stream), stream...))
	_, first, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	clear(first.(*Copy).Items[0].Data)
	if _, second, err := r.Next(); err != nil || !bytes.Equal(second.(*Copy).Items[0].Data, data) {
		t.Errorf("the second message's data has changed: %v", err)
	}
	b.Reset()
	if b.Len() != 0 || len(b.Buffers()) != 0 {
		t.Error("batch is not empty after Reset")
	}
}

func TestCompressionOnlyIfSmaller(t *testing.T) {
	noise := make([]byte, 10000)
	state := uint64(1)
	for i := range noise {
		state = state*6364136223846793005 + 1442695040888963407
		noise[i] = byte(state >> 56)
	}
	for _, test := range []struct {
		what   string
		data   []byte
		packed bool
	}{
		{"text", bytes.Repeat([]byte("twinlun "), 1000), true},
		{"noise", noise, false},
		{"little", make([]byte, 100), false},
	} {
		m := &JoinMap{Data: test.data}
		b := AppendFrame(nil, 0, m, true)
		if (b[2] == flagCompressed) != test.packed || (len(b) < Size(m)) != test.packed {
			t.Errorf("%s: %d bytes of %d, flags %x", test.what, len(b), Size(m), b[2])
		}
		if _, got, err := newTestReader(b).Next(); err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%s: comes back as another message, or %v", test.what, err)
		}
	}
}

// The largest message fits: 8 MiB of blocks in the smallest extents.
func TestLargestCopy(t *testing.T) {
	m := &Copy{}
	for i := range uint64(8 << 20 / dirtymap.BlockSize) {
		m.Items = append(m.Items, Blocks{Extent: i, Present: dirtymap.MaskOf(0, 1), Data: block})
	}
	if _, got, err := newTestReader(AppendFrame(nil, 0, m, false)).Next(); err != nil || !reflect.DeepEqual(got, m) {
		t.Error(err)
	}
}

// Any messages, in one batch, with or without compression, read in any pieces,
// come back as they were.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b Batch
		var want []Message
		for i := range rapid.IntRange(1, 6).Draw(t, "messages") {
			m := drawMessage(t)
			b.Add(uint32(i), m, rapid.Bool().Draw(t, "compress"))
			want = append(want, m)
		}
		stream := bytes.Join(b.Buffers(), nil)
		if len(stream) != b.Len() {
			t.Fatalf("batch of %d bytes says %d", len(stream), b.Len())
		}
		var src io.Reader = bytes.NewReader(stream)
		if rapid.Bool().Draw(t, "halves") {
			src = iotest.HalfReader(src)
		}
		r := NewReader(src, allKinds, MaxBody)
		for i, m := range want {
			lun, got, err := r.Next()
			if err != nil || lun != uint32(i) || !reflect.DeepEqual(got, m) {
				t.Fatalf("%d: %+v came back as %+v for LUN %d, %v", i, m, got, lun, err)
			}
		}
	})
}

func drawMessage(t *rapid.T) Message {
	u64 := func(name string) uint64 { return rapid.Uint64().Draw(t, name) }
	id := func() (a [16]byte) { copy(a[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id")); return a }
	flag := func(name string) bool { return rapid.Bool().Draw(t, name) }
	switch rapid.SampledFrom([]Kind{KindHello, KindRefuse, KindPing, KindJoinHello, KindJoinMap, KindMark, KindMarkAck,
		KindFetch, KindFetchReply, KindClear, KindTell, KindTold, KindLeaseRequest, KindLeaseGrant, KindVerified, KindResend, KindCopy, KindCopyAck}).Draw(t, "kind") {
	case KindHello:
		return &Hello{MinVersion: 1, MaxVersion: rapid.Uint16Min(1).Draw(t, "version"), Token: id(), Connection: id(), NodeID: id(),
			MaxBody: rapid.Uint32().Draw(t, "max"), Stream: 1, Streams: rapid.Uint8Range(1, 16).Draw(t, "streams"), Node: "näme"}
	case KindRefuse:
		return &Refuse{Reason: strings.ToValidUTF8(rapid.StringN(0, 100, 400).Draw(t, "reason"), "")}
	case KindPing:
		return &Ping{ID: u64("id")}
	case KindJoinHello:
		return &JoinHello{LUN: id(), History: id(), Size: u64("size"), ExtentSize: rapid.Uint32().Draw(t, "extent size"),
			Preferred: flag("preferred"), Blank: flag("blank"), Crashed: flag("crashed"), Restarted: flag("restarted"), Alone: flag("alone"),
			Committed: u64("committed"), Prepared: u64("prepared"), Proposal: id(), Want: u64("want"), BlockSize: rapid.Uint32().Draw(t, "block size"),
			Term: u64("term"), TermID: id(), AloneTerm: u64("alone term"), Least: u64("least")}
	case KindJoinMap:
		return &JoinMap{Last: flag("last"), Data: bytes.Repeat([]byte{rapid.Byte().Draw(t, "data")}, rapid.IntRange(1, 5000).Draw(t, "n"))}
	case KindMark:
		return &Mark{ID: u64("id"), Ranges: drawRanges(t)}
	case KindMarkAck:
		m := &MarkAck{ID: u64("id")}
		for _, r := range drawRanges(t) {
			m.Grants = append(m.Grants, Grant{Range: r, Busy: flag("busy"), Turn: rapid.Uint8Range(0, 3).Draw(t, "turn")})
		}
		return m
	case KindFetch:
		return &Fetch{ID: u64("id"), Own: flag("own"), Ranges: drawRanges(t)}
	case KindFetchReply:
		m := &FetchReply{ID: u64("id"), Atomics: u64("atomics")}
		for range rapid.IntRange(0, MaxBulkStreams).Draw(t, "floors") {
			m.Floors = append(m.Floors, u64("floor"))
		}
		for _, bl := range drawBlocks(t) {
			m.Items = append(m.Items, FetchItem{Outcome: Outcome(rapid.IntRange(1, 4).Draw(t, "outcome")), Blocks: bl})
		}
		return m
	case KindClear:
		return &Clear{Ranges: drawRanges(t)}
	case KindLeaseRequest:
		return &LeaseRequest{Life: rapid.Uint64().Draw(t, "life"), Seq: rapid.Uint64().Draw(t, "seq")}
	case KindLeaseGrant:
		return &LeaseGrant{Life: rapid.Uint64().Draw(t, "life"), Seq: rapid.Uint64().Draw(t, "seq"), Applied: rapid.Uint64().Draw(t, "applied"),
			Decided: rapid.Uint64().Draw(t, "decided"), Lease: rapid.Uint64().Draw(t, "lease")}
	case KindVerified:
		return &Verified{ID: u64("id"), Extent: rapid.Uint64Max(MaxExtents-1).Draw(t, "extent"), Outcome: VerifyDigests, Owned: flag("owned"),
			Digests: rapid.SliceOfN(rapid.Custom(func(*rapid.T) Digest { return id() }), 1, maxDigests).Draw(t, "digests")}
	case KindResend:
		return &Resend{ID: u64("id"), Extent: rapid.Uint64Max(MaxExtents-1).Draw(t, "extent"), Blocks: dirtymap.MaskOf(rapid.IntRange(0, 255).Draw(t, "first"), 3)}
	case KindTell:
		return &Tell{ID: rapid.Uint64().Draw(t, "id"), Topic: rapid.Uint16().Draw(t, "topic"), Body: rapid.SliceOfN(rapid.Byte(), 1, MaxTell).Draw(t, "body")}
	case KindTold:
		return &Told{ID: rapid.Uint64().Draw(t, "id"), Understood: rapid.Bool().Draw(t, "understood"), Body: rapid.SliceOfN(rapid.Byte(), 1, MaxTell).Draw(t, "body")}
	case KindCopy:
		return &Copy{Seq: u64("seq"), Atomics: u64("atomics"), Items: drawBlocks(t)}
	}
	return &CopyAck{Seq: u64("seq")}
}

func drawRanges(t *rapid.T) (list []dirtymap.Range) {
	at := uint64(0)
	for range rapid.IntRange(1, 5).Draw(t, "ranges") {
		r := dirtymap.Range{First: at + rapid.Uint64Range(0, 1<<20).Draw(t, "gap"), Count: rapid.Uint64Range(1, 1<<20).Draw(t, "count")}
		list = append(list, r)
		at = r.End()
	}
	return list
}

func drawBlocks(t *rapid.T) (list []Blocks) {
	for i := range rapid.IntRange(0, 4).Draw(t, "items") {
		bl := Blocks{Extent: uint64(i) * rapid.Uint64Range(1, 1<<30).Draw(t, "extent")}
		if i > 0 {
			bl.Extent = max(bl.Extent, list[i-1].Extent+1)
		}
		first := rapid.IntRange(0, 250).Draw(t, "first")
		bl.Present = dirtymap.MaskOf(first, rapid.IntRange(0, 6).Draw(t, "n"))
		bl.Zero = dirtymap.MaskOf(rapid.IntRange(0, 255).Draw(t, "zero"), 4).And(bl.Present)
		if n := bl.dataSize(); n > 0 {
			bl.Data = bytes.Repeat([]byte{rapid.Byte().Draw(t, "data"), byte(i)}, n/2)
		}
		list = append(list, bl)
	}
	return list
}
