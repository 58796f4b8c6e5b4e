package iscsi

import "encoding/binary"

// headerSize is the size of a basic header segment.
const headerSize = 48

// maxAHS is the most that TotalAHSLength can say, in bytes.
const maxAHS = 255 * 4

// header is a basic header segment; doc.go draws it.
type header [headerSize]byte

func (h *header) opcode() byte           { return h[0] & 0x3f }
func (h *header) immediate() bool        { return h[0]&bitImmediate != 0 }
func (h *header) flag(bit byte) bool     { return h[1]&bit != 0 }
func (h *header) ahsLength() int         { return int(h[4]) * 4 }
func (h *header) tag() uint32            { return h.u32(16) }
func (h *header) u16(at int) uint16      { return binary.BigEndian.Uint16(h[at:]) }
func (h *header) u32(at int) uint32      { return binary.BigEndian.Uint32(h[at:]) }
func (h *header) put16(at int, v uint16) { binary.BigEndian.PutUint16(h[at:], v) }
func (h *header) put32(at int, v uint32) { binary.BigEndian.PutUint32(h[at:], v) }

func (h *header) dataLength() int {
	return int(h[5])<<16 | int(h[6])<<8 | int(h[7])
}

func (h *header) setDataLength(n int) {
	h[5], h[6], h[7] = byte(n>>16), byte(n>>8), byte(n)
}

func (h *header) lun() (lun [8]byte) {
	copy(lun[:], h[8:16])
	return lun
}

// padding is how many zeros follow a segment of n bytes.
func padding(n int) int { return -n & 3 }

// setFlag sets bit in b if on.
func setFlag(b *byte, bit byte, on bool) {
	if on {
		*b |= bit
	}
}

// before tells whether serial number a comes before b (RFC 1982, RFC 7143
// section 4.2.2.1).
func before(a, b uint32) bool { return int32(a-b) < 0 }
