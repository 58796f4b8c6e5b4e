package wire

import (
	"bufio"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/s2"
)

// readBuffer is large enough for dozens of small frames per system call; larger
// bodies are read past it.
const readBuffer = 64 << 10

// keepScratch is the largest scratch buffer that a Reader keeps between frames.
const keepScratch = 64 << 10

// Reader reads frames from a stream.
type Reader struct {
	src     *bufio.Reader
	kinds   KindSet
	maxBody int
	head    [HeaderSize]byte
	scratch []byte // bodies that no message keeps
	length  int
}

// NewReader reads frames of the given kinds, with bodies of at most maxBody
// bytes.
func NewReader(src io.Reader, kinds KindSet, maxBody int) *Reader {
	return &Reader{src: bufio.NewReaderSize(src, readBuffer), kinds: kinds, maxBody: min(maxBody, MaxBody)}
}

// Allow changes what NewReader said, from the next frame on.
func (r *Reader) Allow(kinds KindSet, maxBody int) {
	r.kinds, r.maxBody = kinds, min(maxBody, MaxBody)
}

// Next reads the next frame. The message, with its data, belongs to the caller.
// io.EOF: the stream has ended behind a frame; ErrCorrupt: the stream is of no
// further use. No error of the stream itself is ErrCorrupt.
func (r *Reader) Next() (lun uint32, m Message, err error) {
	if _, err := io.ReadFull(r.src, r.head[:]); err != nil {
		return 0, nil, err
	}
	h, err := parseHeader(r.head[:])
	if err != nil {
		return 0, nil, err
	}
	if m = newMessage(h.kind); m == nil || !r.kinds.Has(h.kind) {
		return 0, nil, corrupt("%v is not allowed here", h.kind)
	}
	if uint64(h.n) > uint64(r.maxBody) {
		return 0, nil, corrupt("%v: body of %d bytes, at most %d are allowed", h.kind, h.n, r.maxBody)
	}
	body, err := r.body(h)
	if err != nil {
		return 0, nil, fmt.Errorf("%v: %w", h.kind, err)
	}
	if err := parseBody(m, body); err != nil {
		return 0, nil, err
	}
	r.length = HeaderSize + int(h.n)
	return h.lun, m, nil
}

// FrameLen is the length of the frame that Next has returned last, as sent.
func (r *Reader) FrameLen() int { return r.length }

// body reads and unpacks the body that follows a header.
func (r *Reader) body(h header) ([]byte, error) {
	compressed := h.flags&flagCompressed != 0
	raw := r.buffer(int(h.n), dataKinds.Has(h.kind) && !compressed)
	if _, err := io.ReadFull(r.src, raw); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	if crc := crc32.Checksum(raw, castagnoli); crc != h.crc {
		return nil, corrupt("body of %d bytes: checksum is %08x, must be %08x", h.n, h.crc, crc)
	}
	if compressed {
		return unpack(raw, r.maxBody)
	}
	return raw, nil
}

// buffer has n bytes: fresh ones, or those that the frame before has used.
func (r *Reader) buffer(n int, fresh bool) []byte {
	if fresh || n > keepScratch {
		return make([]byte, n)
	}
	if cap(r.scratch) < n {
		r.scratch = make([]byte, keepScratch)
	}
	return r.scratch[:n]
}

// unpack decompresses a body. Its length stands at its beginning, is checked
// first, and must be exact.
func unpack(raw []byte, maxBody int) ([]byte, error) {
	n, err := s2.DecodedLen(raw)
	if err != nil || n > maxBody {
		return nil, corrupt("compressed body unpacks to %d bytes, at most %d are allowed (%v)", n, maxBody, err)
	}
	body, err := s2.Decode(make([]byte, n), raw)
	if err != nil {
		return nil, corrupt("compressed body: %v", err)
	}
	return body, nil
}

// parseBody fills an empty message. Messages of dataKinds keep parts of the body.
func parseBody(m Message, body []byte) error {
	p := parser{rest: body}
	m.parseBody(&p)
	if p.err == nil && len(p.rest) > 0 {
		p.fail("%d bytes too many", len(p.rest))
	}
	if p.err == nil {
		p.err = m.check()
	}
	if p.err != nil {
		return corrupt("%v: %w", m.Kind(), p.err)
	}
	return nil
}
