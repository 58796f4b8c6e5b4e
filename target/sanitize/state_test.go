package sanitize

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"reflect"
	"strings"
	"testing"
)

var lun = [16]byte{0xa1, 15: 0xaf}

func id(n byte) [16]byte { return [16]byte{n, 15: 0xff} }

func order(n byte) Order {
	return Order{Number: uint64(n), ID: id(n), Passes: 3, Invert: true, AUSE: true, Pattern: []byte{0xab, 0xcd}}
}

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestStateBytes(t *testing.T) {
	const unit = "54574c4e53414e31 a10000000000000000000000000000af "
	for _, tt := range []struct {
		name string
		State
		bytes string // without the checksum
	}{
		{"idle", State{Over: 9}, unit + "0000000000000009 00 00" + strings.Repeat("00", 37)},
		{"it refuses to follow", State{Over: 9, objection: Protected}, unit + "0000000000000009 00 02" + strings.Repeat("00", 37)},
		{"running", State{Phase: Running, Order: order(5), Over: 4, Done: 1 << 40},
			unit + "0000000000000004 02 00 0000000000000005 050000000000000000000000000000ff 00 03 03 0000010000000000 0002 abcd"},
		{"failed", State{Phase: Failed, Order: Order{Number: 7, ID: id(7), Method: Erase, Before: FailedRestricted}},
			unit + "0000000000000000 04 00 0000000000000007 070000000000000000000000000000ff 01 08 00 0000000000000000 0000"},
	} {
		b := tt.Encode(lun)
		if want := unhex(t, tt.bytes); !bytes.Equal(b[:len(b)-4], want) {
			t.Errorf("%s: % x, want % x", tt.name, b, want)
		}
		if got, err := Decode(b, lun); err != nil || !reflect.DeepEqual(*got, tt.State) {
			t.Errorf("%s came back as %+v, %v", tt.name, got, err)
		}
	}
}

func TestCorruptState(t *testing.T) {
	good := State{Phase: Running, Order: order(5)}
	b := good.Encode(lun)
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 0x10
		if s, err := Decode(bad, lun); err == nil {
			t.Errorf("byte %d is wrong, and it is %+v", i, s)
		}
	}
	for n := range b {
		if _, err := Decode(b[:n], lun); err == nil {
			t.Errorf("the first %d bytes are taken for all", n)
		}
	}
	if _, err := Decode(b, [16]byte{1}); err == nil {
		t.Error("it is taken for another LUN's")
	}
	with := func(change func(*State)) State {
		s := State{Phase: Running, Order: order(5), Over: 4}
		change(&s)
		return s
	}
	for name, s := range map[string]State{
		"phase":                with(func(s *State) { s.Phase = Failed + 1 }),
		"no id":                with(func(s *State) { s.Order.ID = [16]byte{} }),
		"over already":         with(func(s *State) { s.Over = 5 }),
		"no passes":            with(func(s *State) { s.Order.Passes = 0 }),
		"passes":               with(func(s *State) { s.Order.Passes = MaxPasses + 1 }),
		"method":               with(func(s *State) { s.Order.Method = 5 }),
		"after what":           with(func(s *State) { s.Order.Before = 3 }),
		"a pattern to erase":   with(func(s *State) { s.Order.Method, s.Order.Passes, s.Order.Invert = Erase, 0, false }),
		"done":                 with(func(s *State) { s.Done = -1 }),
		"objects, and runs":    with(func(s *State) { s.objection = Absent }),
		"objection":            {objection: Absent + 1},
		"idle, with an order":  with(func(s *State) { s.Phase = Idle }),
		"idle, and at work":    {Done: 1},
		"a pattern too long":   with(func(s *State) { s.Order.Pattern = make([]byte, MaxPattern+1) }),
		"idle, with a pattern": {Order: Order{Pattern: []byte{1}}},
	} {
		if got, err := Decode(s.Encode(lun), lun); err == nil {
			t.Errorf("%s: %+v was taken", name, got)
		}
	}
}

// FuzzState reads what may be in a file, or come from the other site, with a checksum
// that is right, and hears it.
func FuzzState(f *testing.F) {
	summed := func(b []byte) []byte {
		return binary.BigEndian.AppendUint32(bytes.Clone(b), crc32.Checksum(b, castagnoli))
	}
	bare := func(s State) []byte {
		b := s.Encode(lun)
		return b[:len(b)-4]
	}
	follows := State{Phase: Following, Order: order(2), Over: 1}
	for _, s := range []State{{}, {Over: 3, objection: Conflict}, {Phase: Running, Order: order(1)}, {Phase: Failed, Order: Order{Number: 1, ID: id(1), Method: Erase}}} {
		f.Add(bare(s), bare(follows))
		f.Add(bare(follows), bare(s))
	}
	f.Fuzz(func(t *testing.T, one, two []byte) {
		a, err := Decode(summed(one), lun)
		if err != nil {
			return
		}
		if !bytes.Equal(a.Encode(lun), summed(one)) {
			t.Fatalf("% x is another state when written again", one)
		}
		b, err := Decode(summed(two), lun)
		if err != nil || a.objection != None {
			return
		}
		next := merge(*a, *b) // what is made of it can be kept
		if err := next.check(); err != nil {
			t.Fatalf("%+v, told %+v, is %+v: %v", a, b, next, err)
		}
	})
}

// TestMerge: what a site is in after it has heard the other one.
func TestMerge(t *testing.T) {
	in := func(p Phase, n, over byte) State {
		s := State{Phase: p, Over: uint64(over)}
		if p != Idle {
			s.Order = order(n)
			s.Order.Pattern = nil
		}
		return s
	}
	other := func(s State) State { // of two with one number this one is the older
		s.Order.ID = [16]byte{1}
		return s
	}
	for _, tt := range []struct {
		name            string
		own, peer, want State
	}{
		{"nothing", in(Idle, 0, 1), in(Idle, 0, 1), in(Idle, 0, 1)},
		{"what is over", in(Idle, 0, 1), in(Idle, 0, 2), in(Idle, 0, 2)},
		{"it asks", in(Idle, 0, 1), in(Starting, 2, 1), in(Following, 2, 1)},
		{"it begins", in(Idle, 0, 1), in(Running, 2, 1), in(Following, 2, 1)},
		{"it goes on", in(Following, 2, 1), in(Running, 2, 1), in(Following, 2, 1)},
		{"it has ended", in(Following, 2, 1), in(Idle, 0, 2), in(Idle, 0, 2)},
		{"it has ended, and asks again", in(Following, 2, 1), in(Starting, 3, 2), in(Following, 3, 2)},
		{"late: it begins", in(Idle, 0, 2), in(Running, 2, 1), in(Idle, 0, 2)},
		{"late: it is idle", in(Following, 2, 1), in(Idle, 0, 1), in(Following, 2, 1)},
		{"late: an older order", in(Following, 3, 1), in(Running, 2, 1), in(Following, 3, 1)},
		{"it has failed", in(Following, 2, 1), in(Failed, 2, 1), in(Failed, 2, 1)},
		{"it has failed unheard", in(Idle, 0, 1), in(Failed, 2, 1), in(Failed, 2, 1)},
		{"late: it runs", in(Failed, 2, 1), in(Running, 2, 1), in(Failed, 2, 1)},
		{"the failure is over", in(Failed, 2, 1), in(Idle, 0, 2), in(Idle, 0, 2)},
		{"the failure is over here", in(Idle, 0, 2), in(Failed, 2, 1), in(Idle, 0, 2)},
		{"once more after a failure", in(Failed, 2, 1), in(Starting, 3, 1), in(Following, 3, 1)},
		{"we do it once more", in(Starting, 3, 1), in(Failed, 2, 1), in(Starting, 3, 1)},
		{"we do it once more, and it objects", in(Starting, 3, 1), in(Failed, 3, 1), in(Failed, 3, 1)},
		{"both at once, ours counts", other(in(Starting, 2, 1)), in(Starting, 2, 1), other(in(Starting, 2, 1))},
		{"both at once, theirs counts", in(Starting, 2, 1), other(in(Starting, 2, 1)), other(in(Following, 2, 1))},
		{"it asks, and we run", in(Running, 2, 1), other(in(Starting, 2, 1)), in(Running, 2, 1)},
		{"it follows us", in(Running, 2, 1), in(Following, 2, 1), in(Running, 2, 1)},
		{"it follows what is over", in(Idle, 0, 2), in(Following, 2, 1), in(Idle, 0, 2)},
		{"it has lost its file", in(Running, 2, 1), in(Idle, 0, 0), in(Running, 2, 1)},
		{"it has lost its file, and led", in(Following, 2, 1), in(Idle, 0, 0), in(Following, 2, 1)},
		{"we have lost our file, and led", in(Idle, 0, 0), in(Following, 2, 1), in(Failed, 2, 1)},
		{"nobody leads", in(Following, 2, 1), in(Following, 2, 1), in(Failed, 2, 1)},
		{"nobody leads, of two orders", in(Following, 2, 1), in(Following, 3, 1), in(Failed, 3, 1)},
		{"late: it follows", in(Following, 3, 1), in(Following, 2, 1), in(Following, 3, 1)},
	} {
		if got := merge(tt.own, tt.peer); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %s, want %s", tt.name, word(got), word(tt.want))
		}
	}
}

// TestRules: how orders begin and end at a site.
func TestRules(t *testing.T) {
	free, strict := Order{ID: id(9), Passes: 1, AUSE: true}, Order{ID: id(9), Passes: 1}
	failed := func(ause bool) State {
		return State{Phase: Failed, Order: Order{Number: 4, ID: id(4), Passes: 1, AUSE: ause}, Over: 2}
	}
	for _, tt := range []struct {
		name    string
		from    State
		order   Order
		err     error
		number  uint64
		abandon Phase // what is left if it is not begun
		exit    error // and whether that can be left
	}{
		{"in use", State{Over: 3}, strict, nil, 4, Idle, nil},
		{"failed, free", failed(true), strict, nil, 5, Failed, nil},
		{"failed, free, and again", failed(true), free, nil, 5, Failed, nil},
		{"failed, restricted", failed(false), strict, nil, 5, Failed, ErrRestricted},
		{"failed, restricted, and then free", failed(false), free, ErrRestricted, 0, 0, nil},
		{"running", State{Phase: Running, Order: order(1)}, strict, ErrBusy, 0, 0, nil},
		{"following", State{Phase: Following, Order: order(1)}, strict, ErrBusy, 0, 0, nil},
		{"starting", State{Phase: Starting, Order: order(1)}, strict, ErrBusy, 0, 0, nil},
	} {
		s, err := tt.from.start(tt.order)
		if err != tt.err {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.err)
		}
		if err != nil {
			continue
		}
		if s.Phase != Starting || s.Order.Number != tt.number || s.check() != nil {
			t.Errorf("%s: it starts as %s, %v", tt.name, word(s), s.check())
		}
		left := s.abandon()
		if left.Phase != tt.abandon || left.check() != nil {
			t.Errorf("%s: not begun, it is %s, %v", tt.name, word(left), left.check())
		}
		if end, err := left.exit(); err != tt.exit || err == nil && end.Phase != Idle {
			t.Errorf("%s: EXIT FAILURE MODE: %v, %s", tt.name, err, word(end))
		}
		peer := State{Phase: Following, Order: s.Order}
		if next, ok := s.agree(peer); !ok || next.Phase != Running {
			t.Errorf("%s: the other site follows, and it is %s", tt.name, word(next))
		}
		peer.Order.ID = id(8)
		if next, ok := s.agree(peer); ok {
			t.Errorf("%s: the other site follows another order, and it is %s", tt.name, word(next))
		}
	}
}

// TestPatterns: what each pass writes; the last one is the pattern itself.
func TestPatterns(t *testing.T) {
	for _, tt := range []struct {
		name   string
		o      Order
		passes []string // the beginning of two logical blocks of 8 bytes
	}{
		{"once", Order{Passes: 1, Pattern: []byte{1, 2, 3}}, []string{"0102030102030102 0102030102030102"}},
		{"inverted once", Order{Passes: 1, Invert: true, Pattern: []byte{1, 2, 3}}, []string{"0102030102030102 0102030102030102"}},
		{"an odd number", Order{Passes: 3, Invert: true, Pattern: []byte{0xf0}}, []string{"f0f0f0f0f0f0f0f0", "0f0f0f0f0f0f0f0f", "f0f0f0f0f0f0f0f0"}},
		{"an even number", Order{Passes: 2, Invert: true, Pattern: []byte{0xf0}}, []string{"0f0f0f0f0f0f0f0f", "f0f0f0f0f0f0f0f0"}},
		{"not inverted", Order{Passes: 2, Pattern: []byte{0xf0}}, []string{"f0f0f0f0f0f0f0f0", "f0f0f0f0f0f0f0f0"}},
	} {
		for pass, want := range tt.passes {
			w := unhex(t, want)
			if got := tt.o.buffer(pass, 8); !bytes.Equal(got[:len(w)], w) || len(got) != overwriteStep {
				t.Errorf("%s, pass %d: % x, want % x", tt.name, pass, got[:len(w)], w)
			}
		}
	}
}
