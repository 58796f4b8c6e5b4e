package iscsi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// digestOf is the CRC32C of one piece of data, digestMore that of what b adds.
func digestOf(b []byte) uint32               { return crc32.Checksum(b, castagnoli) }
func digestMore(crc uint32, b []byte) uint32 { return crc32.Update(crc, castagnoli, b) }

var (
	errHeaderDigest = errors.New("header digest is wrong (the network, or the initiator, damages data)")
	errDataDigest   = errors.New("data digest is wrong (the network, or the initiator, damages data)")
)

// stream cuts what an initiator sends into PDUs. One goroutine owns it.
type stream struct {
	r        *intake
	maxData  int // bytes; a longer data segment is an error, and is not waited for
	maxAHS   int // bytes; the same
	checkHdr bool
	checkSeg bool

	// The present PDU.
	header  header
	ahs     []byte // inside ahsBuf
	left    int    // bytes of the data segment that were not read yet
	pending bool   // finish was not called yet
	crc     uint32 // of the segment so far

	ahsBuf  [maxAHS]byte
	scratch [4096]byte
}

func newStream(r io.Reader, maxData, maxAHS int) *stream {
	return &stream{r: newIntake(r, readBuffer), maxData: maxData, maxAHS: maxAHS}
}

// newLoginStream makes a stream for a login, with a small buffer.
func newLoginStream(r io.Reader) *stream {
	return &stream{r: newIntake(r, loginBuffer), maxData: loginMaxPDU}
}

// grow gives the stream its large buffer.
func (s *stream) grow() { s.r.grow(readBuffer) }

// buffered tells whether more than the present PDU has come already.
func (s *stream) buffered() bool { return s.r.buffered() > 0 }

// next reads the header and the additional headers of the next PDU. The segment
// of the one before must have been finished.
func (s *stream) next() error {
	if err := s.r.read(s.header[:], 0); err != nil {
		return err
	}
	if n := s.header.ahsLength(); n > s.maxAHS {
		return fmt.Errorf("AHS of %d bytes, more than the %d allowed: %w", n, s.maxAHS, errFormat)
	}
	s.ahs = s.ahsBuf[:s.header.ahsLength()]
	if err := s.r.read(s.ahs, 0); err != nil {
		return cut(err)
	}
	if s.checkHdr {
		if err := s.checkHeader(); err != nil {
			return err
		}
	}
	s.left, s.crc, s.pending = s.header.dataLength(), 0, true
	s.r.large = s.left >= largeRead
	if s.left > s.maxData {
		return fmt.Errorf("data segment of %d bytes, more than the %d allowed: %w", s.left, s.maxData, errFormat)
	}
	return nil
}

// behind is how much stands behind a data segment, at least, and before the next one.
func (s *stream) behind() int {
	n := headerSize
	if s.checkHdr {
		n += 4
	}
	if s.checkSeg {
		n += 4
	}
	return n
}

func (s *stream) checkHeader() error {
	crc := digestMore(digestOf(s.header[:]), s.ahs)
	return s.checkDigest(crc, errHeaderDigest)
}

// checkDigest reads a digest. On the wire, digests stand little endian (RFC
// 7143 section 13.1).
func (s *stream) checkDigest(crc uint32, wrong error) error {
	if err := s.r.read(s.scratch[:4], 0); err != nil {
		return cut(err)
	}
	if binary.LittleEndian.Uint32(s.scratch[:4]) != crc {
		return wrong
	}
	return nil
}

// read fills p with the next bytes of the data segment, which has that many.
func (s *stream) read(p []byte) error {
	if err := s.r.read(p, s.behind()); err != nil {
		return cut(err)
	}
	s.left -= len(p)
	if s.checkSeg {
		s.crc = digestMore(s.crc, p)
	}
	return nil
}

// finish throws away what is left of the segment, and the padding, and checks
// the digest: errDataDigest says that the segment as it was read is damaged;
// the stream goes on behind it. Called again, it does nothing.
func (s *stream) finish() error {
	if !s.pending {
		return nil
	}
	s.pending = false
	size := s.header.dataLength()
	s.left += padding(size)
	for s.left > 0 {
		if err := s.read(s.scratch[:min(s.left, len(s.scratch))]); err != nil {
			return err
		}
	}
	if s.checkSeg && size > 0 {
		return s.checkDigest(s.crc, errDataDigest)
	}
	return nil
}

// cut makes an end inside a PDU what it is.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
