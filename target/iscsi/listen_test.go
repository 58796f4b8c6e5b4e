package iscsi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"syscall"
)

// listen reads what the target sends until the connection ends, and returns what is
// wrong with it. It fits any state that the other side may be in: it looks at what
// must be right whatever was sent.
func (i *initiator) listen(secret []byte) error {
	var last struct {
		header
		there bool
	}
	for {
		r, err := i.hear()
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
			return nil
		}
		if err != nil {
			return err
		}
		if bytes.Contains(r.data, secret) {
			return fmt.Errorf("PDU % x with what was in a buffer", r.header)
		}
		if r.opcode() == opLoginResp {
			continue
		}
		if max, exp := r.u32(32), r.u32(28); before(max, exp-1) || max-exp+1 > 8 {
			return fmt.Errorf("PDU % x with a command window of %d", r.header, int32(max-exp+1))
		}
		if last.there && before(r.u32(32), last.u32(32)) {
			return fmt.Errorf("MaxCmdSN goes back in PDU % x", r.header)
		}
		if carriesStatSN(r.header) {
			if last.there && r.u32(24) != last.u32(24)+usesStatSN(last.header) {
				return fmt.Errorf("StatSN of PDU % x after % x", r.header, last.header)
			}
			last.header, last.there = r.header, true
		}
	}
}

// carriesStatSN tells whether a PDU has a StatSN, usesStatSN whether the next one has
// another (1) or the same (0).
func carriesStatSN(h header) bool { return h.opcode() != opDataIn || h.flag(bitStatus) }

func usesStatSN(h header) uint32 {
	if h.opcode() == opR2T || h.opcode() == opNopIn && h.tag() == noTag {
		return 0
	}
	return 1
}

// hear is tryRecv with errors for wrong digests. io.EOF: the end, even inside a PDU.
func (i *initiator) hear() (*received, error) {
	r := &received{}
	part := func(n int) ([]byte, error) {
		b := make([]byte, n)
		_, err := io.ReadFull(i.conn, b)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = io.EOF
		}
		return b, err
	}
	checked := func(n int) ([]byte, error) {
		b, err := part(n)
		if err != nil || !i.digest || n == 0 {
			return b, err
		}
		d, err := part(4)
		if err == nil && binary.LittleEndian.Uint32(d) != crc32.Checksum(b, castagnoli) {
			err = fmt.Errorf("digest of % x is % x", b[:min(n, headerSize)], d)
		}
		return b, err
	}
	h, err := checked(headerSize)
	if err != nil {
		return r, err
	}
	copy(r.header[:], h)
	n := r.dataLength()
	if r.ahsLength() != 0 || n > 1<<18 {
		return r, fmt.Errorf("lengths of PDU % x", r.header)
	}
	b, err := checked(n + padding(n))
	if err == nil && !bytes.Equal(b[n:], make([]byte, padding(n))) {
		err = fmt.Errorf("padding of PDU % x", r.header)
	}
	r.data = b
	return r, err
}
