package mapfile

import (
	"encoding/binary"
	"fmt"
)

const (
	sectorSize = 512
	sectorData = sectorSize - 1
	blockMagic = 'T' | 'W'<<8 | 'L'<<16 | 'B'<<24
	headSize   = 40
	// maxPayload bounds what replay keeps in memory of one block.
	maxPayload = 1 << 20
)

// blockHead is the head of a block of the log.
type blockHead struct {
	length     uint32 // of the records, bytes
	generation uint64
	sequence   uint64
	durable    uint64
	sum        uint32
}

func markOf(generation uint64) byte { return byte(1 + generation%255) }

// size is how many bytes of the file the block takes.
func (h *blockHead) size() int64 {
	return (headSize + int64(h.length) + sectorData - 1) / sectorData * sectorSize
}

// appendBlock encodes a block; length and sum of the head are set here.
func (id *Identity) appendBlock(dst []byte, h blockHead, payload []byte) []byte {
	le := binary.LittleEndian
	h.length, h.sum = uint32(len(payload)), id.sum(payload)
	raw := make([]byte, 0, headSize)
	raw = le.AppendUint32(raw, blockMagic)
	raw = le.AppendUint32(raw, h.length)
	raw = le.AppendUint64(raw, h.generation)
	raw = le.AppendUint64(raw, h.sequence)
	raw = le.AppendUint64(raw, h.durable)
	raw = le.AppendUint32(raw, h.sum)
	raw = le.AppendUint32(raw, id.sum(raw))

	dst = append(dst, raw...)
	mark := markOf(h.generation)
	for room := sectorData - headSize; ; room = sectorData {
		n := min(room, len(payload))
		dst = append(dst, payload[:n]...)
		dst = append(dst, make([]byte, room-n)...)
		dst = append(dst, mark)
		if payload = payload[n:]; len(payload) == 0 {
			return dst
		}
	}
}

// decodeHead reads the head in a block's first sector; false: there is none.
func (id *Identity) decodeHead(sector []byte) (h blockHead, ok bool) {
	le := binary.LittleEndian
	if len(sector) < sectorSize || le.Uint32(sector) != blockMagic || le.Uint32(sector[36:]) != id.sum(sector[:36]) {
		return h, false
	}
	h = blockHead{
		length:     le.Uint32(sector[4:]),
		generation: le.Uint64(sector[8:]),
		sequence:   le.Uint64(sector[16:]),
		durable:    le.Uint64(sector[24:]),
		sum:        le.Uint32(sector[32:]),
	}
	return h, h.length > 0 && h.length <= maxPayload
}

// payload takes the records out of a block's sectors; false: wrong checksum.
func (id *Identity) payload(into []byte, h *blockHead, sectors []byte) ([]byte, bool) {
	into = append(into[:0], sectors[headSize:sectorData]...)
	for at := sectorSize; at < len(sectors); at += sectorSize {
		into = append(into, sectors[at:at+sectorData]...)
	}
	into = into[:h.length]
	return into, id.sum(into) == h.sum
}

// marked tells whether every sector was written in the generation.
func marked(sectors []byte, generation uint64) bool {
	for at := 0; at < len(sectors); at += sectorSize {
		if at+sectorSize > len(sectors) || sectors[at+sectorData] != markOf(generation) {
			return false
		}
	}
	return true
}

// blocks reads the blocks of one generation in order.
type blocks struct {
	window
	id         *Identity
	generation uint64
	at         int64  // where the next block begins
	sequence   uint64 // of the block before
	old        bool   // the log ended at a block of another generation
	buf        []byte
}

// next gives the records of the next block; nil: the log ends here. An error is
// a damaged log, or a failed read.
func (r *blocks) next() ([]byte, error) {
	first, err := r.get(r.at, sectorSize)
	if err != nil || len(first) == 0 {
		return nil, err
	}
	h, ok := r.id.decodeHead(first)
	if ok && h.generation != r.generation {
		r.old = true
		return nil, nil
	}
	if !ok {
		return nil, r.end(first)
	}
	if h.sequence != r.sequence+1 {
		return nil, fmt.Errorf("log offset %d: block %d where block %d belongs", r.at, h.sequence, r.sequence+1)
	}
	sectors, err := r.get(r.at, int(h.size()))
	if err != nil {
		return nil, err
	}
	if int64(len(sectors)) < h.size() {
		return nil, r.end(nil)
	}
	r.buf, ok = r.id.payload(r.buf, &h, sectors)
	if !ok {
		return nil, r.end(sectors)
	}
	r.at, r.sequence = r.at+h.size(), h.sequence
	return r.buf, nil
}

// end judges the block at r.at, which is not valid: a crash that kept some of
// its sectors from being written ends the log (nil); anything else is damage.
//
// Several blocks may be on their way when a crash comes, and be written in any
// order: a valid block further on proves damage only if it says that this one
// was durable.
func (r *blocks) end(sectors []byte) error {
	if len(sectors) > 0 && marked(sectors, r.generation) {
		return fmt.Errorf("log offset %d: block %d has a wrong checksum", r.at, r.sequence+1)
	}
	for at := r.at + sectorSize; ; at += sectorSize {
		b, err := r.get(at, sectorSize)
		if err != nil || len(b) == 0 {
			return err
		}
		h, ok := r.id.decodeHead(b)
		if ok && h.generation == r.generation && h.durable > r.sequence {
			return fmt.Errorf("log offset %d: block %d is missing, but block %d at offset %d knows it as durable",
				r.at, r.sequence+1, h.sequence, at)
		}
	}
}

// window reads a file forward through one buffer.
type window struct {
	f     File
	size  int64 // of the file
	off   int64 // of buf
	cache []byte
}

const windowSize = 4 << 20

// get gives n bytes at off, fewer at the end of the file. They are valid until
// the next get.
func (w *window) get(off int64, n int) ([]byte, error) {
	n = int(max(0, min(int64(n), w.size-off)))
	if n == 0 {
		return nil, nil
	}
	if off < w.off || off+int64(n) > w.off+int64(len(w.cache)) {
		want := int(min(windowSize, w.size-off))
		if cap(w.cache) < want {
			w.cache = make([]byte, want)
		}
		w.off, w.cache = off, w.cache[:want]
		if err := readFull(w.f, w.cache, off); err != nil {
			w.cache = w.cache[:0]
			return nil, err
		}
	}
	return w.cache[off-w.off:][:n], nil
}
