package wire

import (
	"encoding/binary"
	"hash/crc32"
	"net"
	"slices"

	"github.com/klauspost/compress/s2"
)

// refMin is from which length on data is referred to instead of copied: about
// where copying costs more than one more element of a vectored write.
const refMin = 2048

// CompressMin is the smallest body that is worth trying to compress, in bytes.
const CompressMin = 512

// Batch gathers frames for one vectored write. Block data is referred to, not
// copied: it must stay as it is until the batch was written or reset. The zero
// Batch is empty.
type Batch struct {
	small []byte   // headers, and everything that is not referred to
	refs  []ref    // ascending at
	total int      // bytes of all frames
	flat  []byte   // scratch of compress
	out   [][]byte // scratch of Buffers
}

// ref puts data behind the first at bytes of small.
type ref struct {
	at   int
	data []byte
}

// Add appends a frame. With compress, the body is compressed if that makes it
// smaller. A message that breaks its bounds is a bug, and panics.
func (b *Batch) Add(lun uint32, m Message, compress bool) {
	if err := Check(m); err != nil {
		panic("wire: message to be sent breaks its bounds: " + err.Error())
	}
	at, refs := len(b.small), len(b.refs)
	b.small = append(b.small, make([]byte, HeaderSize)...)
	m.appendBody(b)
	h := header{kind: m.Kind(), lun: lun}
	if compress && b.compress(at+HeaderSize, refs) {
		h.flags |= flagCompressed
	}
	for p := range b.pieces(at+HeaderSize, refs) {
		h.n += uint32(len(p))
		h.crc = crc32.Update(h.crc, castagnoli, p)
	}
	h.put(b.small[at:])
	b.total += HeaderSize + int(h.n)
}

// Len is the number of bytes in the batch.
func (b *Batch) Len() int { return b.total }

// Buffers is the batch for net.Buffers.WriteTo. It is valid until Add or Reset.
func (b *Batch) Buffers() net.Buffers {
	b.out = b.out[:0]
	for p := range b.pieces(0, 0) {
		b.out = append(b.out, p)
	}
	return b.out
}

// Reset empties the batch, lets go of all data, and keeps its own memory.
func (b *Batch) Reset() {
	clear(b.refs)
	clear(b.out)
	b.small, b.refs, b.out, b.total = b.small[:0], b.refs[:0], b.out[:0], 0
}

// AppendFrame appends a message's frame to dst, with a copy of its data.
func AppendFrame(dst []byte, lun uint32, m Message, compress bool) []byte {
	var b Batch
	b.Add(lun, m, compress)
	dst = slices.Grow(dst, b.Len())
	for p := range b.pieces(0, 0) {
		dst = append(dst, p...)
	}
	return dst
}

// pieces yields what follows the first at bytes of small and the first n refs.
func (b *Batch) pieces(at, n int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for _, r := range b.refs[n:] {
			if r.at > at && !yield(b.small[at:r.at:r.at]) {
				return
			}
			if !yield(r.data) {
				return
			}
			at = r.at
		}
		if at < len(b.small) {
			yield(b.small[at:])
		}
	}
}

// compress replaces the body that follows the first at bytes of small and the
// first n refs, if that makes it smaller.
func (b *Batch) compress(at, n int) bool {
	b.flat = b.flat[:0]
	for p := range b.pieces(at, n) {
		b.flat = append(b.flat, p...)
	}
	if len(b.flat) < CompressMin {
		return false
	}
	packed := s2.Encode(nil, b.flat)
	if len(packed) >= len(b.flat) {
		return false
	}
	clear(b.refs[n:])
	b.small, b.refs = b.small[:at], b.refs[:n]
	b.bytes(packed)
	return true
}

func (b *Batch) u8(v uint8)   { b.small = append(b.small, v) }
func (b *Batch) u16(v uint16) { b.small = binary.BigEndian.AppendUint16(b.small, v) }
func (b *Batch) u32(v uint32) { b.small = binary.BigEndian.AppendUint32(b.small, v) }
func (b *Batch) u64(v uint64) { b.small = binary.BigEndian.AppendUint64(b.small, v) }

func (b *Batch) flag(v bool) {
	if v {
		b.u8(1)
	} else {
		b.u8(0)
	}
}

// bytes appends data, by reference if it is long.
func (b *Batch) bytes(data []byte) {
	if len(data) < refMin {
		b.small = append(b.small, data...)
		return
	}
	b.refs = append(b.refs, ref{at: len(b.small), data: data})
}
