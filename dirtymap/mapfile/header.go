package mapfile

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/twinlun/twinlun/dirtymap"
)

const (
	magic   = "TWLNMAP1"
	version = 2 // the newest that is known; a file without a term is of version 1

	metaAt      = 64
	metaSize    = 41
	blockSizeAt = metaAt + metaSize
	termAt      = blockSizeAt + 4
	termSize    = 32

	flagClean = 1
	flagBlank = 2
	flagTerm  = 4 // a term follows
	flagFork  = 8 // Term.Fork
)

// header is the content of a header slot.
type header struct {
	version    uint32
	id         Identity
	number     uint64
	generation uint64
	logAt      int64
	meta       Meta
}

// encode makes the bytes of a slot.
func (h *header) encode() []byte {
	b := make([]byte, 0, slotSize)
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint32(b, h.version)
	b = binary.LittleEndian.AppendUint32(b, uint32(h.id.ExtentSize))
	b = append(b, h.id.LUN[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.id.Size))
	b = binary.LittleEndian.AppendUint64(b, h.number)
	b = binary.LittleEndian.AppendUint64(b, h.generation)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.logAt))
	b = appendMeta(b, h.meta)
	if size := h.id.blockSize(); size != 512 {
		b = binary.LittleEndian.AppendUint32(b, uint32(size))
	}
	b = b[:slotSize-4]
	if h.meta.version() > 1 {
		appendTerm(b[:termAt], h.meta.Term)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodeHeader checks a slot's bytes. The geometry of a newer version is not
// judged.
func decodeHeader(b []byte) (header, error) {
	var h header
	le := binary.LittleEndian
	switch {
	case string(b[:8]) != magic:
		return h, fmt.Errorf("begins with % x, not with %q", b[:8], magic)
	case le.Uint32(b[slotSize-4:]) != crc32.Checksum(b[:slotSize-4], castagnoli):
		return h, fmt.Errorf("has a wrong checksum")
	}
	h.version = le.Uint32(b[8:])
	h.id.ExtentSize = int64(le.Uint32(b[12:]))
	copy(h.id.LUN[:], b[16:])
	h.id.Size = int64(le.Uint64(b[32:]))
	h.number, h.generation = le.Uint64(b[40:]), le.Uint64(b[48:])
	h.logAt = int64(le.Uint64(b[56:]))
	if h.version > version {
		return h, nil
	}
	if err := h.id.Check(); err != nil {
		return h, err
	}
	var err error
	var term bool
	h.meta, term, err = decodeMeta(b[metaAt:blockSizeAt])
	h.meta.Term.decode(b[termAt:])
	h.id.BlockSize = int64(le.Uint32(b[blockSizeAt:]))
	switch {
	case err != nil:
		return h, err
	case h.id.BlockSize != 0 && h.id.BlockSize != 4096:
		return h, fmt.Errorf("has blocks of %d bytes", h.id.BlockSize)
	case h.version == 0 || h.version < h.meta.version() || term != (h.meta.version() > 1) || h.generation == 0 || h.logAt < 0:
		return h, fmt.Errorf("has version %d, generation %d, log offset %d", h.version, h.generation, h.logAt)
	case len(bytes.TrimLeft(b[termAt+termSize:slotSize-4], "\x00")) > 0:
		return h, fmt.Errorf("has bytes that version %d does not know", h.version)
	}
	return h, nil
}

// check compares a header with what the reader wants; id may be nil.
func (h *header) check(id *Identity) error {
	switch {
	case h.version > version:
		return fmt.Errorf("%w: %d, this program knows %d: run the twinlun that wrote it, or a newer one", ErrVersion, h.version, version)
	case id != nil && h.id.LUN != id.LUN:
		return fmt.Errorf("%w: to LUN %x, wanted is %x: check which file is configured for which LUN", ErrForeign, h.id.LUN, id.LUN)
	case id != nil && h.id.Geometry != id.Geometry:
		return fmt.Errorf("%w: a LUN of %s, wanted are %s: the geometry is fixed when the LUN is made",
			ErrForeign, geometryText(h.id.Geometry), geometryText(id.Geometry))
	case id != nil && h.id.blockSize() != id.blockSize():
		return fmt.Errorf("%w: a LUN that shows hosts blocks of %d bytes, wanted are %d: hosts could not read what they have written; for a LUN without data that matters, move replica and map file away at both nodes, and it is made anew",
			ErrForeign, h.id.blockSize(), id.blockSize())
	}
	return nil
}

func geometryText(g dirtymap.Geometry) string {
	return fmt.Sprintf("%d bytes in extents of %d", g.Size, g.ExtentSize)
}

func appendMeta(b []byte, m Meta) []byte {
	b = append(b, m.History[:]...)
	b = binary.LittleEndian.AppendUint64(b, m.Join)
	b = append(b, m.BootID[:]...)
	var flags byte
	if m.Clean {
		flags |= flagClean
	}
	if m.Blank {
		flags |= flagBlank
	}
	if m.version() > 1 {
		flags |= flagTerm
	}
	if m.Term.Fork {
		flags |= flagFork
	}
	return append(b, flags)
}

// version is that of a file which has to keep m.
func (m *Meta) version() uint32 {
	if m.Term == (Term{}) {
		return 1
	}
	return 2
}

// appendTerm appends what a Meta with a term has more.
func appendTerm(b []byte, t Term) []byte {
	b = binary.LittleEndian.AppendUint64(b, t.Number)
	b = append(b, t.ID[:]...)
	return binary.LittleEndian.AppendUint64(b, t.Alone)
}

func (t *Term) decode(b []byte) {
	t.Number = binary.LittleEndian.Uint64(b)
	copy(t.ID[:], b[8:])
	t.Alone = binary.LittleEndian.Uint64(b[24:])
}

// decodeMeta decodes all but what follows of the term, and says whether there is one.
func decodeMeta(b []byte) (m Meta, term bool, err error) {
	copy(m.History[:], b)
	m.Join = binary.LittleEndian.Uint64(b[16:])
	copy(m.BootID[:], b[24:])
	flags := b[40]
	m.Clean, m.Blank = flags&flagClean != 0, flags&flagBlank != 0
	m.Term.Fork = flags&flagFork != 0
	if flags&^(flagClean|flagBlank|flagTerm|flagFork) != 0 {
		err = fmt.Errorf("has unknown flags %#x", flags)
	}
	return m, flags&flagTerm != 0, err
}

// slots are the two header slots of a file: header, or what is wrong with it.
type slots struct {
	header [2]header
	wrong  [2]error
}

// newest is the index of the slot that counts; -1: none is valid.
func (s *slots) newest() int {
	switch {
	case s.wrong[0] != nil && s.wrong[1] != nil:
		return -1
	case s.wrong[0] != nil:
		return 1
	case s.wrong[1] != nil:
		return 0
	case s.header[0].number > s.header[1].number:
		return 0
	}
	return 1
}

// same tells whether both slots are valid and say the same.
func (s *slots) same() bool {
	a, b := s.header[0], s.header[1]
	a.number, b.number = 0, 0
	return s.wrong[0] == nil && s.wrong[1] == nil && a == b
}

func readSlots(f File) (s slots, err error) {
	buf := make([]byte, 2*slotSize)
	if err := readFull(f, buf, 0); err != nil {
		return s, err
	}
	for i := range s.header {
		s.header[i], s.wrong[i] = decodeHeader(buf[i*slotSize:][:slotSize])
	}
	return s, nil
}
