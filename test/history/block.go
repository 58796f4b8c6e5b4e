package history

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
)

// BlockSize is the unit that is atomic, in bytes.
const BlockSize = 4096

const (
	stampSize = 32
	stamps    = BlockSize / stampSize
	magic     = "TWLH"
)

// castagnoli is a constant.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Value is what a block holds: the one write that filled it. The zero Value is
// the initial content, zeros.
type Value struct {
	Client uint16 // its number, plus 1
	Seq    uint64 // counts the writes of a client, from 1
}

func (v Value) String() string {
	if v == (Value{}) {
		return "zeros"
	}
	return fmt.Sprintf("c%d#%d", int(v.Client)-1, v.Seq)
}

// Fill writes the pattern of v for a block into p, BlockSize bytes. Run tells
// the writes of one run from what earlier runs have left.
func Fill(p []byte, run uint32, block int64, v Value) {
	for i := range stamps {
		s := p[i*stampSize : (i+1)*stampSize]
		copy(s, magic)
		binary.LittleEndian.PutUint16(s[4:], v.Client)
		binary.LittleEndian.PutUint16(s[6:], uint16(i))
		binary.LittleEndian.PutUint64(s[8:], v.Seq)
		binary.LittleEndian.PutUint64(s[16:], uint64(block))
		binary.LittleEndian.PutUint32(s[24:], run)
		binary.LittleEndian.PutUint32(s[28:], crc32.Checksum(s[:28], castagnoli))
	}
}

// Parse tells which write filled a block. Anything but one whole write, or
// zeros, is a *BadBlock.
func Parse(p []byte, run uint32, block int64) (Value, error) {
	if len(p) != BlockSize {
		return Value{}, &BadBlock{Block: block, What: fmt.Sprintf("it has %d bytes", len(p))}
	}
	first, ok := parseStamp(p[:stampSize], run, block, 0)
	for i := range stamps {
		v, sound := parseStamp(p[i*stampSize:(i+1)*stampSize], run, block, i)
		if !ok || !sound || v != first {
			return Value{}, badBlock(p, run, block)
		}
	}
	return first, nil
}

// parseStamp reads one stamp, or one piece of zeros.
func parseStamp(s []byte, run uint32, block int64, index int) (Value, bool) {
	if [stampSize]byte(s) == [stampSize]byte{} {
		return Value{}, true
	}
	v := Value{binary.LittleEndian.Uint16(s[4:]), binary.LittleEndian.Uint64(s[8:])}
	ok := string(s[:4]) == magic && v.Seq != 0 &&
		binary.LittleEndian.Uint16(s[6:]) == uint16(index) &&
		binary.LittleEndian.Uint64(s[16:]) == uint64(block) &&
		binary.LittleEndian.Uint32(s[24:]) == run &&
		binary.LittleEndian.Uint32(s[28:]) == crc32.Checksum(s[:28], castagnoli)
	return v, ok
}

// BadBlock is a block that no write of the run has filled as it is.
type BadBlock struct {
	Block int64
	Torn  bool   // made of sound pieces of several writes
	What  string // what is where
}

func (e *BadBlock) Error() string {
	kind := "damaged"
	if e.Torn {
		kind = "torn"
	}
	return fmt.Sprintf("block %d is %s: %s", e.Block, kind, e.What)
}

// badBlock describes a block piece by piece: which bytes come from where.
func badBlock(p []byte, run uint32, block int64) *BadBlock {
	e := &BadBlock{Block: block, Torn: true}
	var parts []string
	for from := 0; from < stamps; {
		what, sound := describe(p, run, block, from)
		to := from + 1
		for ; to < stamps; to++ {
			if next, _ := describe(p, run, block, to); next != what {
				break
			}
		}
		e.Torn = e.Torn && sound
		parts = append(parts, fmt.Sprintf("bytes %d-%d %s", from*stampSize, to*stampSize-1, what))
		from = to
	}
	if len(parts) > 8 {
		parts = append(slices.Clip(parts[:8]), fmt.Sprintf("and %d parts more", len(parts)-8))
	}
	e.What = strings.Join(parts, ", ")
	return e
}

// describe names the origin of one stamp.
func describe(p []byte, run uint32, block int64, i int) (what string, sound bool) {
	s := p[i*stampSize : (i+1)*stampSize]
	v, ok := parseStamp(s, run, block, i)
	if ok {
		return v.String(), true
	}
	if string(s[:4]) != magic || binary.LittleEndian.Uint32(s[28:]) != crc32.Checksum(s[:28], castagnoli) {
		return "of no write", false
	}
	return fmt.Sprintf("of %v, written for block %d by run %08x, moved by %d bytes", v,
		binary.LittleEndian.Uint64(s[16:]), binary.LittleEndian.Uint32(s[24:]),
		(i-int(binary.LittleEndian.Uint16(s[6:])))*stampSize), false
}
