package iscsi

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// readBuffer is large enough to take many commands with one system call.
// Segments that are larger than it go straight to where they belong.
const readBuffer = 64 << 10

// loginBuffer is what a connection gets until it is logged in: strangers cost little.
const loginBuffer = 4 << 10

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
	r        *bufio.Reader
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
	return &stream{r: bufio.NewReaderSize(r, readBuffer), maxData: maxData, maxAHS: maxAHS}
}

// newLoginStream makes a stream for a login, with a small buffer.
func newLoginStream(r io.Reader) *stream {
	return &stream{r: bufio.NewReaderSize(r, loginBuffer), maxData: loginMaxPDU}
}

// grow gives the stream its large buffer. Through the small one, which may hold
// something still, large reads go straight.
func (s *stream) grow() { s.r = bufio.NewReaderSize(s.r, readBuffer) }

// buffered tells whether more than the present PDU has come already.
func (s *stream) buffered() bool { return s.r.Buffered() > 0 }

// next reads the header and the additional headers of the next PDU. The segment
// of the one before must have been finished.
func (s *stream) next() error {
	if _, err := io.ReadFull(s.r, s.header[:]); err != nil {
		return err
	}
	if n := s.header.ahsLength(); n > s.maxAHS {
		return fmt.Errorf("AHS of %d bytes, more than the %d allowed: %w", n, s.maxAHS, errFormat)
	}
	s.ahs = s.ahsBuf[:s.header.ahsLength()]
	if _, err := io.ReadFull(s.r, s.ahs); err != nil {
		return cut(err)
	}
	if s.checkHdr {
		if err := s.checkHeader(); err != nil {
			return err
		}
	}
	s.left, s.crc, s.pending = s.header.dataLength(), 0, true
	if s.left > s.maxData {
		return fmt.Errorf("data segment of %d bytes, more than the %d allowed: %w", s.left, s.maxData, errFormat)
	}
	return nil
}

func (s *stream) checkHeader() error {
	crc := digestMore(digestOf(s.header[:]), s.ahs)
	return s.checkDigest(crc, errHeaderDigest)
}

// checkDigest reads a digest. On the wire, digests stand little endian (RFC
// 7143 section 13.1).
func (s *stream) checkDigest(crc uint32, wrong error) error {
	if _, err := io.ReadFull(s.r, s.scratch[:4]); err != nil {
		return cut(err)
	}
	if binary.LittleEndian.Uint32(s.scratch[:4]) != crc {
		return wrong
	}
	return nil
}

// read fills p with the next bytes of the data segment, which has that many.
func (s *stream) read(p []byte) error {
	if _, err := io.ReadFull(s.r, p); err != nil {
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
