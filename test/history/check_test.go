package history

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const limit = 20 * time.Second

// script makes a history of one block, one client to a line. Each word is an
// operation: w1 writes 1, r1 reads 1, r0 reads zeros, s1>2 swaps 1 for 2, f1 is a swap
// that does not find 1; its place is its interval.
// A "?" after a write or swap: it may have happened; "~": it never returned.
//
//	"w1---  r2"
func script(t *testing.T, lines ...string) []Op {
	t.Helper()
	var ops []Op
	for client, line := range lines {
		for at := 0; at < len(line); {
			if line[at] == ' ' {
				at++
				continue
			}
			word, _, _ := strings.Cut(line[at:], " ")
			var n, put uint64
			var kind byte
			if found, _ := fmt.Sscanf(word, "%c%d>%d", &kind, &n, &put); found < 2 || (kind == 's') != (found == 3) {
				t.Fatalf("%q", word)
			}
			op := Op{Client: client, Write: kind == 'w' || kind == 's', Call: int64(at), Return: int64(at + len(word) - 1)}
			if op.Value = number(n); kind == 's' || kind == 'f' {
				op.Swap, op.Expect, op.Value = true, op.Value, number(put)
			}
			switch {
			case strings.HasSuffix(word, "?"):
				op.Maybe = true
			case strings.HasSuffix(word, "~"):
				op.Maybe, op.Return = true, Open
			}
			ops = append(ops, op)
			at += len(word)
		}
	}
	return ops
}

// number is the value of that write; 0: zeros.
func number(n uint64) Value {
	if n == 0 {
		return Value{}
	}
	return Value{Client: 1, Seq: n}
}

func TestCheckOps(t *testing.T) {
	for _, c := range []struct {
		name  string
		lines []string
		ok    bool
	}{
		{"nothing", nil, true},
		{"zeros at first", []string{"r0 w1 r1"}, true},
		{"zeros after a write", []string{"w1 r0"}, false},
		{"never written", []string{"r7"}, false},
		{"read before it is written", []string{"r1 w1"}, false},
		{"two writes at a time, either last", []string{"w1---     ", "w2---     ", "      r1"}, true},
		{"two writes at a time, seen both ways", []string{"w1---       ", "w2---       ", "      r1 r2"}, false},
		{"seen early by one, late by the other", []string{"w1---------", "   r1      ", "       r0"}, false},
		{"seen by none yet, then by all", []string{"w1---------", "   r0      ", "       r1"}, true},
		{"an older value comes back", []string{"w1 w2 r2 r1"}, false},

		{"a lost answer: done", []string{"w1~  ", "     r1 r1"}, true},
		{"a lost answer: not done", []string{"w1~  ", "     r0 r0"}, true},
		{"a lost answer: done late", []string{"w1~  ", "     r0 r1"}, true},
		{"a straggler, after its repetition and others", []string{"w1~         ", " w1-        ", "     w2 r2 r1"}, true},
		{"a straggler comes once", []string{"w1~              ", " w1-             ", "     w2 r2 r1 w3 r1"}, false},
		{"a straggler that is over", []string{"w1-?           ", " w1--          ", "      w2 r2 r1 "}, false},
		{"a straggler swaps late", []string{"s0>1~                    ", " s0>1              ", "       w0 r0 r1"}, true},
		{"a lost answer: done and undone", []string{"w1~  ", "     r1 r0"}, false},
		{"a lost answer: done twice", []string{"w1~       ", "     r1 w2 r2 r1"}, false},
		{"a lost answer, seen before it was asked", []string{"      w1~", "r1 r1"}, false},

		// A client that repeats: every try but the last may have happened, in its time.
		{"repeated: done by the second try", []string{"w1-? w1- r1", "   r0"}, true},
		{"repeated: done by both, others between", []string{"w1---?         w1-     ", "     w2 r2             ", " r1            r2    r1"}, true},
		{"repeated: the same, if it were one write", []string{"w1----------------     ", "     w2 r2             ", " r1            r2    r1"}, false},
		{"repeated: the first try comes after the second", []string{"w1-? w1-  w2 r1"}, false},
		{"repeated: the first comes after its end", []string{"w1-?           w1~", "     r0 w2 r2", "              r1        r2 r1"}, false},
		{"repeated: the first comes in its time", []string{"w1-----------?           w1~", "     r0 w2 r2", "              r2           r2 r1"}, true},

		{"a swap", []string{"s0>1 r1 s1>2 r2"}, true},
		{"a swap of what is not there", []string{"w1 s0>2 r2"}, false},
		{"a swap that was not done", []string{"s0>1 r0"}, false},
		{"a swap of what is there is refused", []string{"w1 f1"}, false},
		{"a swap is refused, rightly", []string{"w1 f0 r1"}, true},
		{"two swaps of one value, one wins", []string{"s0>1----", "f0------", "        r1"}, true},
		{"two swaps of one value, both win", []string{"s0>1----", "s0>2----", "        r2"}, false},
		{"a chain of swaps at a time", []string{"s0>1--------", "s1>2--------", "s2>3--------", "            r3"}, true},
		{"a swap is refused because of a write that lost its answer", []string{"w1~     ", "    f0 r1"}, true},
		{"a swap is refused because of one that nobody saw", []string{"w1~           ", "    f0 w2 r2 r2"}, true},
		{"a swap is refused before that", []string{"      w1~", "f0 r0"}, false},
		{"a swap is refused, and then the value is there", []string{"w1~     ", "    f0 r0"}, false},
		{"a swap without an answer: done", []string{"s0>1~  ", "      r1"}, true},
		{"a swap without an answer: not done", []string{"s0>1~  ", "      r0"}, true},
		{"a swap without an answer: not done, since it could not be", []string{"w2 s0>1~  ", "         r1"}, false},
		{"a swap is repeated, and finds itself", []string{"s0>1? f0 r1"}, true},
		{"a swap is repeated, and finds nothing of itself", []string{"s0>1? f0 r0"}, false},
		{"a swap is repeated, done by the second try", []string{"s0>1? s0>1 r1"}, true},
		{"a swap done twice, with what it expects put back", []string{"s0>1? s0>1 f0 w2 s2>3 r3"}, true},
		{"a lost update", []string{"w1 r1   s1>2---     r2", "      s1>3---   r3  "}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := CheckOps(script(t, c.lines...), limit, "")
			var v *Violation
			if (err == nil) != c.ok || err != nil && !errors.As(err, &v) {
				t.Errorf("%v\n%s", err, strings.Join(c.lines, "\n"))
			}
		})
	}
}

func TestViolationNamesTheCulprit(t *testing.T) {
	ops := script(t,
		"w1 r1    r1    r1 w4 r4",
		"      w2    r2         ")
	ops = append(ops, Op{Block: 5, Write: true, Value: Value{1, 9}, Call: 0, Return: 1})
	dir := filepath.Join(t.TempDir(), "pictures")
	err := CheckOps(ops, limit, dir)
	var v *Violation
	if !errors.As(err, &v) {
		t.Fatal(err)
	}
	if v.Block != 0 || v.Culprit.Call != 9 || v.Culprit.Value.Seq != 1 {
		t.Errorf("culprit: block %d, %+v", v.Block, v.Culprit)
	}
	if text := err.Error(); !strings.Contains(text, "client 1 writes c0#2") || strings.Contains(text, "c0#4") {
		t.Errorf("operations around it: %s", text)
	}
	if page, err := os.ReadFile(v.Picture); err != nil || !strings.Contains(string(page), "read c0#1") {
		t.Errorf("picture %s: %d bytes, %v", v.Picture, len(page), err)
	}
}

func TestUndecided(t *testing.T) {
	var ops []Op
	for i := range 40 { // 40 writes at once, and a read that contradicts the last of them
		ops = append(ops, Op{Client: i, Write: true, Value: Value{1, uint64(i + 1)}, Call: 0, Return: 100})
	}
	for i := range 40 {
		ops = append(ops, Op{Client: 50 + i, Value: Value{1, uint64(i + 1)}, Call: 50, Return: 100})
	}
	ops = append(ops, Op{Client: 99, Value: Value{1, 1}, Call: 101, Return: 102}, Op{Client: 99, Value: Value{1, 2}, Call: 103, Return: 104})
	if err := CheckOps(ops, 50*time.Millisecond, ""); !errors.Is(err, ErrUndecided) {
		t.Errorf("decided, among 2^40 orders: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	p := make([]byte, BlockSize)
	f.Add(p, uint32(0), int64(0))
	Fill(p, 7, 3, Value{2, 9})
	f.Add(append([]byte(nil), p...), uint32(7), int64(3))
	Fill(p[:BlockSize/2:BlockSize], 7, 3, Value{2, 10})
	f.Add(p, uint32(7), int64(3))
	f.Fuzz(func(t *testing.T, p []byte, run uint32, block int64) {
		v, err := Parse(p, run, block)
		var bad *BadBlock
		if err != nil {
			if !errors.As(err, &bad) || bad.Error() == "" {
				t.Fatal(err)
			}
			return
		}
		want := make([]byte, BlockSize)
		if v != (Value{}) {
			Fill(want, run, block, v)
		}
		if string(p) != string(want) {
			t.Errorf("taken for %v", v)
		}
	})
}

func TestParse(t *testing.T) {
	fill := func(run uint32, block int64, v Value) []byte {
		p := make([]byte, BlockSize)
		Fill(p, run, block, v)
		return p
	}
	sound := fill(1, 7, Value{1, 5})
	with := func(change func(p []byte)) []byte {
		p := append([]byte(nil), sound...)
		change(p)
		return p
	}
	for _, c := range []struct {
		name string
		p    []byte
		torn bool
		says string
	}{
		{"half of another write", with(func(p []byte) { copy(p[2048:], fill(1, 7, Value{2, 3})[2048:]) }), true, "bytes 0-2047 c0#5, bytes 2048-4095 c1#3"},
		{"one sector of zeros", with(func(p []byte) { clear(p[512:1024]) }), true, "bytes 512-1023 zeros"},
		{"zeros first", with(func(p []byte) { clear(p[:32]) }), true, "bytes 0-31 zeros, bytes 32-4095 c0#5"},
		{"one bit", with(func(p []byte) { p[100] ^= 1 }), false, "bytes 96-127 of no write"},
		{"of another block", fill(1, 8, Value{1, 5}), false, "written for block 8"},
		{"of another run", fill(2, 7, Value{1, 5}), false, "by run 00000002"},
		{"moved by a sector", with(func(p []byte) { copy(p[512:], sound[:3584]) }), false, "moved by 512 bytes"},
		{"too short", sound[:512], false, "512 bytes"},
		{"checkered", with(func(p []byte) {
			for i := 0; i < BlockSize; i += 64 {
				clear(p[i : i+32])
			}
		}), true, "120 parts more"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse(c.p, 1, 7)
			var bad *BadBlock
			if !errors.As(err, &bad) || bad.Torn != c.torn || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v", err)
			}
		})
	}
	if v, err := Parse(sound, 1, 7); err != nil || v != (Value{1, 5}) {
		t.Errorf("%v, %v", v, err)
	}
	if v, err := Parse(make([]byte, BlockSize), 1, 7); err != nil || v != (Value{}) {
		t.Errorf("zeros: %v, %v", v, err)
	}
}
