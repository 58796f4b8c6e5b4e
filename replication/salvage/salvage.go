// Package salvage keeps what a replica is about to lose for good: writes that hosts
// were told are done, and that the other replica, which served alone meanwhile and wins
// the join, knows nothing of. It happens only where an operator chose to go on without
// them. They are written to a file of their own before they can be overwritten, and may
// be looked at, compared and copied from there.
//
// All numbers are little endian. The file:
//
//	offset size
//	     0    8  magic "TWLNSLV1"
//	     8    4  version: 1
//	    12    4  extent size, bytes
//	    16   16  LUN UUID
//	    32    8  LUN size, bytes
//	    40    8  number of the join that would lose it
//	    48    8  time, nanoseconds since 1970
//	    56   64  name of the node, UTF-8, then zeros
//	   120    4  CRC-32C of all before
//	   124    …  records
//
// A record is followed by the CRC-32C of the LUN UUID and the record:
//
//	 0   1  kind: 1, blocks of an extent
//	 1   8  extent
//	 9  32  which blocks of 4 KiB there are: bit i%64 of word i/64 is block i
//	41  32  which of them are zeros
//	73   …  the others, in ascending order
//
//	 0   1  kind: 2, the end; a file without it is not whole
//	 1   8  number of records before
package salvage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"
	"unicode/utf8"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication/wire"
)

const (
	magic      = "TWLNSLV1"
	version    = 1
	headerSize = 124
	// MaxPlace bounds the name of a node, in bytes.
	MaxPlace = 64

	kindBlocks = 1
	kindEnd    = 2
	blocksSize = 73 // of a record, without data
	endSize    = 9
)

// ErrDamaged: a file cannot be relied upon from here on. What was read before is good.
var ErrDamaged = errors.New("salvage file is damaged, or not whole")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Header says what a file is about.
type Header struct {
	LUN [16]byte // UUID
	dirtymap.Geometry
	Join  uint64 // number of the join that would lose the blocks
	Time  time.Time
	Place string // name of the node whose replica they are from
}

func (h *Header) encode() []byte {
	le := binary.LittleEndian
	b := make([]byte, 0, headerSize)
	b = append(b, magic...)
	b = le.AppendUint32(b, version)
	b = le.AppendUint32(b, uint32(h.ExtentSize))
	b = append(b, h.LUN[:]...)
	b = le.AppendUint64(b, uint64(h.Size))
	b = le.AppendUint64(b, h.Join)
	b = le.AppendUint64(b, uint64(h.Time.UnixNano()))
	b = append(b, h.Place...)
	b = b[:headerSize-4]
	return le.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeHeader(b []byte) (h Header, err error) {
	le := binary.LittleEndian
	switch {
	case string(b[:8]) != magic:
		return h, fmt.Errorf("%w: it begins with % x, not with %q", ErrDamaged, b[:8], magic)
	case le.Uint32(b[headerSize-4:]) != crc32.Checksum(b[:headerSize-4], castagnoli):
		return h, fmt.Errorf("%w: its header has a wrong checksum", ErrDamaged)
	case le.Uint32(b[8:]) != version:
		return h, fmt.Errorf("salvage file has version %d, this program knows %d: use the twinlun that wrote it, or a newer one", le.Uint32(b[8:]), version)
	}
	h.ExtentSize = int64(le.Uint32(b[12:]))
	copy(h.LUN[:], b[16:])
	h.Size = int64(le.Uint64(b[32:]))
	h.Join = le.Uint64(b[40:])
	h.Time = time.Unix(0, int64(le.Uint64(b[48:])))
	h.Place = string(bytes.TrimRight(b[56:56+MaxPlace], "\x00"))
	if err := h.Check(); err != nil {
		return h, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return h, nil
}

// Check tells what is wrong with a header.
func (h *Header) Check() error {
	if len(h.Place) > MaxPlace || !utf8.ValidString(h.Place) {
		return fmt.Errorf("name of the node: %.80q", h.Place)
	}
	return h.Geometry.Check()
}

// Writer writes a file.
type Writer struct {
	to      io.Writer
	header  Header
	records uint64
}

// NewWriter begins a file. The header must have passed Check.
func NewWriter(to io.Writer, h Header) (*Writer, error) {
	if _, err := to.Write(h.encode()); err != nil {
		return nil, fmt.Errorf("write salvage file: %w", err)
	}
	return &Writer{to: to, header: h}, nil
}

// Add writes blocks of an extent.
func (w *Writer) Add(b wire.Blocks) error {
	le := binary.LittleEndian
	head := make([]byte, 0, blocksSize)
	head = le.AppendUint64(append(head, kindBlocks), b.Extent)
	for _, mask := range []dirtymap.Mask{b.Present, b.Zero} {
		for _, word := range mask {
			head = le.AppendUint64(head, word)
		}
	}
	w.records++
	return w.record(head, b.Data)
}

// End makes the file whole.
func (w *Writer) End() error {
	return w.record(binary.LittleEndian.AppendUint64([]byte{kindEnd}, w.records))
}

func (w *Writer) record(parts ...[]byte) error {
	sum := crc32.Checksum(w.header.LUN[:], castagnoli)
	for _, p := range parts {
		sum = crc32.Update(sum, castagnoli, p)
		if _, err := w.to.Write(p); err != nil {
			return fmt.Errorf("write salvage file: %w", err)
		}
	}
	if _, err := w.to.Write(binary.LittleEndian.AppendUint32(nil, sum)); err != nil {
		return fmt.Errorf("write salvage file: %w", err)
	}
	return nil
}

// Reader reads a file; its memory is that of one extent.
type Reader struct {
	from    io.Reader
	header  Header
	records uint64
	sum     uint32
}

// NewReader reads the header.
func NewReader(from io.Reader) (*Reader, error) {
	b := make([]byte, headerSize)
	if _, err := io.ReadFull(from, b); err != nil {
		return nil, fmt.Errorf("%w: read its header: %w", ErrDamaged, err)
	}
	h, err := decodeHeader(b)
	if err != nil {
		return nil, err
	}
	return &Reader{from: from, header: h}, nil
}

// Header says what the file is about.
func (r *Reader) Header() Header { return r.header }

// Next is the next extent's blocks; io.EOF: that was all, and the file is whole.
func (r *Reader) Next() (b wire.Blocks, err error) {
	r.sum = crc32.Checksum(r.header.LUN[:], castagnoli)
	switch kind := r.take(1, &err); {
	case err != nil:
	case kind[0] == kindBlocks:
		b, err = r.blocks()
		r.records++
	case kind[0] == kindEnd:
		n := binary.LittleEndian.Uint64(r.take(endSize-1, &err))
		if r.check(&err); err == nil && n != r.records {
			err = fmt.Errorf("%d records of %d", r.records, n)
		}
		if err == nil {
			return b, io.EOF
		}
	default:
		err = fmt.Errorf("unknown kind %d", kind[0])
	}
	if err != nil {
		err = fmt.Errorf("%w: record %d: %w", ErrDamaged, r.records+1, err)
	}
	return b, err
}

func (r *Reader) blocks() (b wire.Blocks, err error) {
	head := r.take(blocksSize-1, &err)
	b.Extent = binary.LittleEndian.Uint64(head)
	for i := range b.Present {
		b.Present[i] = binary.LittleEndian.Uint64(head[8+8*i:])
		b.Zero[i] = binary.LittleEndian.Uint64(head[40+8*i:])
	}
	switch {
	case err != nil:
		return b, err
	case b.Extent >= r.header.Extents() || !b.Present.Minus(r.header.Full(b.Extent)).Empty() || !b.Zero.Minus(b.Present).Empty():
		return b, fmt.Errorf("extent %d has not these blocks", b.Extent)
	}
	b.Data = r.take(b.Present.Minus(b.Zero).Count()*dirtymap.BlockSize, &err)
	r.check(&err)
	return b, err
}

// take reads n bytes; after an error it gives zeros.
func (r *Reader) take(n int, err *error) []byte {
	b := make([]byte, n)
	if *err == nil {
		if _, e := io.ReadFull(r.from, b); e != nil {
			*err = e
		}
		r.sum = crc32.Update(r.sum, castagnoli, b)
	}
	return b
}

func (r *Reader) check(err *error) {
	want := r.sum
	if got := binary.LittleEndian.Uint32(r.take(4, err)); *err == nil && got != want {
		*err = errors.New("wrong checksum")
	}
}

// Export writes a file's blocks to where they were in the LUN, and says how many bytes
// that is. It stops at the first damage.
func Export(to io.WriterAt, r *Reader) (bytes int64, err error) {
	for {
		b, err := r.Next()
		if err == io.EOF {
			return bytes, nil
		}
		if err != nil {
			return bytes, err
		}
		n, err := exportExtent(to, r.header.Offset(b.Extent), b)
		if bytes += n; err != nil {
			return bytes, fmt.Errorf("export extent %d: %w", b.Extent, err)
		}
	}
}

func exportExtent(to io.WriterAt, base int64, b wire.Blocks) (bytes int64, err error) {
	const size = dirtymap.BlockSize
	data := b.Data
	for first, n := range b.Present.Runs {
		for i := first; i < first+n; i++ {
			block := make([]byte, size)
			if !b.Zero.Has(i) {
				block, data = data[:size], data[size:]
			}
			if _, err := to.WriteAt(block, base+int64(i)*size); err != nil {
				return bytes, err
			}
			bytes += size
		}
	}
	return bytes, nil
}
