package wire

import (
	"encoding/binary"
	"fmt"
)

// parser takes a body apart. After its first error it returns zeros.
type parser struct {
	rest []byte
	err  error
}

func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf(format, args...)
	}
	p.rest = nil
}

// bytes takes n bytes, as part of the body; nil: they are not there.
func (p *parser) bytes(n int) []byte {
	if n > len(p.rest) {
		p.fail("body ends %d bytes too early", n-len(p.rest))
		return nil
	}
	b := p.rest[:n:n]
	p.rest = p.rest[n:]
	return b
}

func (p *parser) u8() uint8 {
	if b := p.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (p *parser) u16() uint16 {
	if b := p.bytes(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (p *parser) u32() uint32 {
	if b := p.bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (p *parser) u64() uint64 {
	if b := p.bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (p *parser) array16() (a [16]byte) {
	copy(a[:], p.bytes(16))
	return a
}

// flag takes a byte that is 0 or 1.
func (p *parser) flag() bool {
	v := p.u8()
	if v > 1 {
		p.fail("flag is %d, must be 0 or 1", v)
	}
	return v == 1
}

// count takes the u32 length of a list whose elements have at least min bytes
// each: so long a list can really follow.
func (p *parser) count(min int) int {
	n := uint64(p.u32())
	if n > MaxItems || n*uint64(min) > uint64(len(p.rest)) {
		p.fail("list of %d elements in %d bytes", n, len(p.rest))
		return 0
	}
	return int(n)
}
