package initiator

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

// Operation codes (RFC 7143 section 11.2.1.2).
const (
	opNopOut        = 0x00
	opSCSICommand   = 0x01
	opTaskRequest   = 0x02
	opLoginRequest  = 0x03
	opTextRequest   = 0x04
	opDataOut       = 0x05
	opLogoutRequest = 0x06

	opNopIn          = 0x20
	opSCSIResponse   = 0x21
	opTaskResponse   = 0x22
	opLoginResponse  = 0x23
	opTextResponse   = 0x24
	opDataIn         = 0x25
	opLogoutResponse = 0x26
	opR2T            = 0x31
	opAsync          = 0x32
	opReject         = 0x3f

	immediate = 0x40 // beside the operation code of a request
	final     = 0x80 // in the second byte
)

// noTag is the reserved value of task and transfer tags.
const noTag = 0xffffffff

// header is a basic header segment.
type header [48]byte

func (h *header) op() byte { return h[0] & 0x3f }

func (h *header) dataLen() int { return int(h[5])<<16 | int(h[6])<<8 | int(h[7]) }

func (h *header) setDataLen(n int) { h[5], h[6], h[7] = byte(n>>16), byte(n>>8), byte(n) }

func (h *header) u32(at int) uint32 { return binary.BigEndian.Uint32(h[at:]) }

func (h *header) set32(at int, v uint32) { binary.BigEndian.PutUint32(h[at:], v) }

// Where most PDUs have these fields.
const (
	atLUN      = 8
	atITT      = 16 // initiator task tag
	atTTT      = 20 // target transfer tag
	atCmdSN    = 24 // in requests
	atStatSN   = 24 // in responses
	atExpStat  = 28 // in requests
	atExpCmd   = 28 // in responses
	atMaxCmd   = 32
	atDataSN   = 36 // also R2TSN, ExpDataSN
	atOffset   = 40
	atResidual = 44 // also the desired length of an R2T
)

// castagnoli is a constant.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// padding is how many bytes fill n up to a multiple of 4.
func padding(n int) int { return -n & 3 }

// receiver reads PDUs. For each: header, then the whole data segment by chunk
// and take, or by data; then the next.
type receiver struct {
	r                        *bufio.Reader
	headerDigest, dataDigest bool
	maxData                  int // our MaxRecvDataSegmentLength

	left int    // bytes of the data segment not yet taken
	size int    // of the data segment
	crc  uint32 // of those taken
	tail [8]byte
}

// header reads a header, checks its digest, and skips additional header segments.
func (r *receiver) header(h *header) error {
	if _, err := io.ReadFull(r.r, h[:]); err != nil {
		return err
	}
	crc := crc32.Update(0, castagnoli, h[:])
	for range int(h[4]) {
		if _, err := io.ReadFull(r.r, r.tail[:4]); err != nil {
			return err
		}
		crc = crc32.Update(crc, castagnoli, r.tail[:4])
	}
	if r.headerDigest {
		if err := r.digest("header", crc); err != nil {
			return err
		}
	}
	r.size = h.dataLen()
	r.left, r.crc = r.size, 0
	if r.size > r.maxData {
		return protocolError("PDU %#02x with %d bytes of data, we take %d (section 13.12)", h.op(), r.size, r.maxData)
	}
	return nil
}

// chunk waits for some of the data segment and returns what is there already,
// valid until take. Nothing is left when it returns an empty slice.
func (r *receiver) chunk() ([]byte, error) {
	if r.left == 0 {
		return nil, nil
	}
	if _, err := r.r.Peek(1); err != nil {
		return nil, unexpected(err)
	}
	return r.r.Peek(min(r.left, r.r.Buffered()))
}

// take marks a chunk as used, and after the last one checks padding and digest.
func (r *receiver) take(chunk []byte) error {
	if r.dataDigest {
		r.crc = crc32.Update(r.crc, castagnoli, chunk)
	}
	if _, err := r.r.Discard(len(chunk)); err != nil {
		return err
	}
	r.left -= len(chunk)
	if r.left > 0 || r.size == 0 {
		return nil
	}
	pad := r.tail[:padding(r.size)]
	if _, err := io.ReadFull(r.r, pad); err != nil {
		return unexpected(err)
	}
	if !r.dataDigest {
		return nil
	}
	return r.digest("data", crc32.Update(r.crc, castagnoli, pad))
}

// data reads the rest of the data segment into a new slice.
func (r *receiver) data() ([]byte, error) {
	p := make([]byte, 0, r.left)
	for r.left > 0 {
		c, err := r.chunk()
		if err != nil {
			return nil, err
		}
		p = append(p, c...)
		if err := r.take(c); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// skip reads the rest of the data segment and forgets it.
func (r *receiver) skip() error {
	for r.left > 0 {
		c, err := r.chunk()
		if err != nil {
			return err
		}
		if err := r.take(c); err != nil {
			return err
		}
	}
	return nil
}

// digest reads a CRC-32C and compares it. On the wire its least significant byte
// comes first: the check value of 32 zeros is aa 36 91 8a (RFC 7143 appendix A.4).
func (r *receiver) digest(what string, want uint32) error {
	if _, err := io.ReadFull(r.r, r.tail[4:]); err != nil {
		return unexpected(err)
	}
	if got := binary.LittleEndian.Uint32(r.tail[4:]); got != want {
		return protocolError("%s digest %08x, computed %08x", what, got, want)
	}
	return nil
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// sender writes PDUs.
type sender struct {
	w                        *bufio.Writer
	headerDigest, dataDigest bool
	tail                     [8]byte
}

// pdu writes one PDU; ahs is empty or padded. The bytes may stay in the buffer.
func (s *sender) pdu(h *header, ahs, data []byte) error {
	if len(data) >= 1<<24 {
		return fmt.Errorf("data segment of %d bytes", len(data))
	}
	h[4] = byte(len(ahs) / 4)
	h.setDataLen(len(data))
	s.w.Write(h[:]) // errors stick to the writer: the last one tells
	_, err := s.w.Write(ahs)
	if s.headerDigest {
		err = s.digest(0, crc32.Update(crc32.Update(0, castagnoli, h[:]), castagnoli, ahs))
	}
	if len(data) == 0 {
		return err
	}
	pad := padding(len(data))
	clear(s.tail[:4])
	_, err = s.w.Write(data)
	if !s.dataDigest {
		if pad > 0 {
			_, err = s.w.Write(s.tail[:pad])
		}
		return err
	}
	crc := crc32.Update(0, castagnoli, data)
	return s.digest(pad, crc32.Update(crc, castagnoli, s.tail[:pad]))
}

// digest writes padding and a CRC-32C.
func (s *sender) digest(pad int, crc uint32) error {
	clear(s.tail[:4])
	binary.LittleEndian.PutUint32(s.tail[4:], crc)
	_, err := s.w.Write(s.tail[4-pad:])
	return err
}
