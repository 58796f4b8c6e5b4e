// Package wire turns the messages between two nodes into frames and back.
//
// A connection has one control stream and up to MaxBulkStreams bulk streams, each
// a TCP stream of frames. A frame, big endian:
//
//	offset size
//	     0    1  0xD7, in every version of the protocol
//	     1    1  kind of the message
//	     2    1  flags: bit 0: the body is compressed (an S2 block); others 0
//	     3    1  0
//	     4    4  LUN; 0 where the message concerns none
//	     8    4  n, length of the body as sent, at most MaxBody
//	    12    4  CRC-32C of the body as sent
//	    16    4  CRC-32C of the 16 bytes before
//	    20    n  body; each message's file draws it
//
// The first frame of a stream, in both directions, is a Hello; Hello and Refuse
// keep their layout for ever, everything else may depend on the version that the
// two agree on. A body that is compressed unpacks to at most MaxBody bytes.
//
// Promise: what a Reader returns is within every bound that is stated at the
// message, so that its user need not check again what only concerns the message
// itself; a frame takes no memory before its length was checked, and no list
// before its count was compared with the bytes that are there. A message that
// breaks its bounds is refused by the reader and panics in the writer.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/twinlun/twinlun/dirtymap"
)

// Sizes of frames.
const (
	// HeaderSize is what a frame adds to its body, in bytes.
	HeaderSize = 20
	// MaxBody bounds a body, before and after compression: 8 MiB of blocks, and
	// room for their numbers and masks.
	MaxBody = 8<<20 + 128<<10
	// MaxItems bounds each list of ranges, grants or extents in a message: enough
	// for 8 MiB of blocks in the smallest extents many times over, while a parsed
	// message takes a few MiB at most beside its data.
	MaxItems = 1 << 16
	// MaxExtents bounds the number of a LUN's extents: the largest LUN in the
	// smallest extents.
	MaxExtents = dirtymap.MaxSize / dirtymap.MinExtentSize
	// MaxBulkStreams bounds the bulk streams of a connection.
	MaxBulkStreams = 16
)

const (
	magic          = 0xD7
	flagCompressed = 1
)

// ErrCorrupt is in every error that means: these bytes are no frame of a peer
// that keeps the protocol, or were damaged on their way.
var ErrCorrupt = errors.New("corrupt frame")

// castagnoli is never written to after this.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type header struct {
	kind  Kind
	flags uint8
	lun   uint32
	n     uint32
	crc   uint32
}

func (h header) put(b []byte) {
	b[0], b[1], b[2], b[3] = magic, byte(h.kind), h.flags, 0
	binary.BigEndian.PutUint32(b[4:], h.lun)
	binary.BigEndian.PutUint32(b[8:], h.n)
	binary.BigEndian.PutUint32(b[12:], h.crc)
	binary.BigEndian.PutUint32(b[16:], crc32.Checksum(b[:16], castagnoli))
}

// parseHeader checks all that a header says about itself.
func parseHeader(b []byte) (h header, err error) {
	if b[0] != magic {
		return h, corrupt("begins with byte %#02x instead of %#02x: the other end is no twinlun node", b[0], magic)
	}
	if want, got := binary.BigEndian.Uint32(b[16:]), crc32.Checksum(b[:16], castagnoli); want != got {
		return h, corrupt("header: checksum is %08x, must be %08x", want, got)
	}
	if b[2]&^flagCompressed != 0 || b[3] != 0 {
		return h, corrupt("header: unknown flags %#02x %#02x", b[2], b[3])
	}
	return header{
		kind:  Kind(b[1]),
		flags: b[2],
		lun:   binary.BigEndian.Uint32(b[4:]),
		n:     binary.BigEndian.Uint32(b[8:]),
		crc:   binary.BigEndian.Uint32(b[12:]),
	}, nil
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrCorrupt, fmt.Errorf(format, args...))
}
