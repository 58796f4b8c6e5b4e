package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// head is what a head says.
type head struct {
	count  int
	number uint64
	length int // of the records
	sum    uint32
}

// encode makes the bytes of a head at the front of b, which are zeros.
func (h *head) encode(b []byte, lun [16]byte) {
	le := binary.LittleEndian
	copy(b, magic)
	le.PutUint32(b[8:], version)
	le.PutUint32(b[12:], uint32(h.count))
	copy(b[16:], lun[:])
	le.PutUint64(b[32:], h.number)
	le.PutUint32(b[40:], uint32(h.length))
	le.PutUint32(b[44:], h.sum)
	le.PutUint32(b[headSize-4:], crc32.Checksum(b[:headSize-4], castagnoli))
}

// decodeHead checks a head's bytes. Only a head of this version is valid; of a newer
// one, and of another LUN's, the error tells.
func decodeHead(b []byte, lun [16]byte) (h head, err error) {
	le := binary.LittleEndian
	if string(b[:8]) != magic || le.Uint32(b[headSize-4:]) != crc32.Checksum(b[:headSize-4], castagnoli) {
		return h, errors.New("no head")
	}
	if v := le.Uint32(b[8:]); v > version {
		return h, fmt.Errorf("%w: %d, this program knows %d: run the twinlun that wrote it, or a newer one", ErrVersion, v, version)
	}
	if [16]byte(b[16:]) != lun {
		return h, fmt.Errorf("%w: to %x, wanted is %x: check which file is configured for which LUN", ErrForeign, b[16:32], lun)
	}
	h = head{int(le.Uint32(b[12:])), le.Uint64(b[32:]), int(le.Uint32(b[40:])), le.Uint32(b[44:])}
	if le.Uint32(b[8:]) != version || h.count > MaxWrites || h.length > maxRecords || !zero(b[48:headSize-4]) {
		return h, errors.New("no head that was ever written")
	}
	return h, nil
}

// newest is the head that counts.
func newest(b []byte, lun [16]byte) (head, error) {
	x, xErr := decodeHead(b[:headSize], lun)
	y, yErr := decodeHead(b[headSize:], lun)
	for _, err := range []error{xErr, yErr} {
		if errors.Is(err, ErrVersion) || errors.Is(err, ErrForeign) {
			return head{}, err
		}
	}
	switch {
	case xErr != nil && yErr != nil:
		return head{}, fmt.Errorf("%w: neither head is valid: %s", ErrDamaged, hint)
	case xErr != nil || yErr == nil && y.number > x.number:
		return y, nil
	}
	return x, nil
}

// load reads the head that counts, and the writes that are pending.
func load(f File, lun [16]byte) (head, []Write, error) {
	heads := make([]byte, recordsAt)
	if err := readFull(f, heads, 0); err != nil {
		return head{}, nil, err
	}
	h, err := newest(heads, lun)
	if err != nil || h.count == 0 {
		return h, nil, err
	}
	b := make([]byte, (h.length+sectorData-1)/sectorData*sector)
	if err := readFull(f, b, recordsAt); err != nil {
		return h, nil, err
	}
	records, whole := h.records(b)
	if !whole {
		return h, nil, nil // a crash has kept it from getting here, so it has not begun
	}
	if crc32.Update(crc32.Checksum(lun[:], castagnoli), castagnoli, records) != h.sum {
		return h, nil, fmt.Errorf("%w: the records have a wrong checksum: %s", ErrDamaged, hint)
	}
	writes, err := split(records, h.count)
	if err != nil {
		return h, nil, fmt.Errorf("%w: %w: %s", ErrDamaged, err, hint)
	}
	return h, writes, nil
}

// records puts the records together. Not whole: one of their sectors is older.
func (h *head) records(b []byte) (p []byte, whole bool) {
	p = make([]byte, 0, h.length)
	for len(p) < h.length {
		if binary.LittleEndian.Uint64(b[sectorData:]) != h.number {
			return nil, false
		}
		p = append(p, b[:min(sectorData, h.length-len(p))]...)
		b = b[sector:]
	}
	return p, true
}

// split takes records apart.
func split(p []byte, count int) ([]Write, error) {
	writes := make([]Write, 0, count)
	for range count {
		if len(p) < recordHead {
			return nil, errors.New("a record is cut short")
		}
		off, n := int64(binary.LittleEndian.Uint64(p)), int64(binary.LittleEndian.Uint32(p[8:]))
		p = p[recordHead:]
		if off < 0 || n < 1 || n > int64(len(p)) || off+n < off {
			return nil, fmt.Errorf("a record of %d bytes at offset %d", n, off)
		}
		writes = append(writes, Write{off, p[:n:n]})
		p = p[n:]
	}
	if len(p) > 0 {
		return nil, errors.New("there is more behind the last record")
	}
	return writes, nil
}

// appendRecords appends the sectors of writes, and returns the length of their records.
func appendRecords(b []byte, number uint64, writes []Write) (length int, _ []byte) {
	s := sectors{b, number, 0}
	bytes := 0
	for _, w := range writes {
		s.put(w.head())
		s.put(w.Data)
		bytes += len(w.Data)
	}
	if len(writes) == 0 || !Fits(len(writes), bytes) {
		panic(fmt.Sprintf("journal: %d writes of %d bytes in one Put", len(writes), bytes))
	}
	return s.length, s.end()
}

// sectors appends bytes to b, and a stamp behind each 504 of them.
type sectors struct {
	b      []byte
	stamp  uint64
	length int // without stamps
}

func (s *sectors) put(p []byte) {
	for len(p) > 0 {
		n := min(len(p), sectorData-s.length%sectorData)
		s.b = append(s.b, p[:n]...)
		p = p[n:]
		if s.length += n; s.length%sectorData == 0 {
			s.b = binary.LittleEndian.AppendUint64(s.b, s.stamp)
		}
	}
}

// end fills the last sector.
func (s *sectors) end() []byte {
	if n := s.length % sectorData; n > 0 {
		s.b = append(s.b, make([]byte, sectorData-n)...)
		s.b = binary.LittleEndian.AppendUint64(s.b, s.stamp)
	}
	return s.b
}
