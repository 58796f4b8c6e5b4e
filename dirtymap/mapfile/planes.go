package mapfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"

	"github.com/klauspost/compress/zstd"

	"github.com/twinlun/twinlun/dirtymap"
)

// planesWindow is how far back the compression looks: some pieces. It bounds the memory
// of the reader.
const planesWindow = 1 << 20

// Planes are pieces of neighbouring extents, in order, all extents of the LUN:
//
//	 0  8  first extent
//	 8  8  number of extents
//	16  4  number of states that follow: 1, which all of them have, or one for each
//	20  4  CRC-32C of LUN UUID, the 20 bytes before, and the states
//	24  …  states, one byte each: State & Durable
const (
	pieceHead = 24
	// pieceStates is how many states a piece has at most: its memory at both nodes.
	pieceStates = 4096
	// pieceExtents is how many extents a piece of one state has at most: the reader's
	// owner works on a piece under a lock.
	pieceExtents = 1 << 20
	// pieceAlike is from when on a run of equal states is a piece of its own: its head,
	// and that of the piece which it cuts off, are little against what they replace.
	pieceAlike = 256
)

// WritePlanes writes the states of all extents for the peer: a header slot, and pieces,
// through zstd. runs yields neighbours that have the same state, in ascending order; only
// the Durable bits are sent.
func WritePlanes(w io.Writer, id Identity, runs iter.Seq2[dirtymap.Range, dirtymap.State]) error {
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(planesWindow))
	if err != nil {
		return fmt.Errorf("send map: %w", err)
	}
	p := &planesWriter{w: z, id: &id, states: make([]byte, 0, pieceStates)}
	p.write(planesHeader(&id))
	for run, s := range runs {
		p.run(run, byte(s&dirtymap.Durable))
	}
	p.flush()
	if closed := z.Close(); p.err == nil {
		p.err = closed
	}
	if p.err != nil {
		return fmt.Errorf("send map: %w", p.err)
	}
	return nil
}

// planesWriter gathers what is no piece of its own.
type planesWriter struct {
	w      io.Writer
	id     *Identity
	next   uint64 // extent: the one behind what was gathered
	states []byte // of those before it
	head   [pieceHead]byte
	err    error
}

func (p *planesWriter) run(r dirtymap.Range, s byte) {
	p.next = r.First
	if r.Count >= pieceAlike {
		p.flush()
		for n := uint64(0); p.next < r.End(); p.next += n {
			n = min(r.End()-p.next, pieceExtents)
			p.piece(p.next, n, []byte{s})
		}
		return
	}
	for ; p.next < r.End(); p.next++ {
		if len(p.states) == pieceStates {
			p.flush()
		}
		p.states = append(p.states, s)
	}
}

// flush writes what was gathered.
func (p *planesWriter) flush() {
	if n := uint64(len(p.states)); n > 0 {
		p.piece(p.next-n, n, p.states)
		p.states = p.states[:0]
	}
}

func (p *planesWriter) piece(first, n uint64, states []byte) {
	binary.LittleEndian.PutUint64(p.head[0:], first)
	binary.LittleEndian.PutUint64(p.head[8:], n)
	binary.LittleEndian.PutUint32(p.head[16:], uint32(len(states)))
	binary.LittleEndian.PutUint32(p.head[20:], p.id.sumPiece(p.head[:20], states))
	p.write(p.head[:])
	p.write(states)
}

func (p *planesWriter) write(b []byte) {
	if p.err == nil {
		_, p.err = p.w.Write(b)
	}
}

func (id *Identity) sumPiece(head, states []byte) uint32 {
	return crc32.Update(id.sum(head), castagnoli, states)
}

// planesHeader is the header slot at the front of planes: that of a new map
// file, with a Meta of zeros.
func planesHeader(id *Identity) []byte {
	h := header{version: 1, id: *id, generation: 1, logAt: id.logAt()}
	return h.encode()
}

// ReadPlanes reads what WritePlanes wrote, up to the end of r. piece gets the
// states in ascending order, every extent once: one state that all extents of a range
// have, or one for each of them; an error of its own comes back as it is. Memory is
// bounded whatever r contains; so is time, by the size of the LUN.
func ReadPlanes(r io.Reader, id Identity, piece func(extents dirtymap.Range, states []dirtymap.State) error) error {
	limit := &io.LimitedReader{R: r, N: id.planesLimit()}
	z, err := zstd.NewReader(limit, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(planesWindow), zstd.WithDecoderMaxMemory(1<<63))
	if err != nil {
		return fmt.Errorf("receive map: %w", err)
	}
	defer z.Close()
	p := &planesReader{r: z, id: &id}
	if err := p.read(piece); err != nil {
		return fmt.Errorf("receive map: %w", err)
	}
	if limit.N == 0 {
		return fmt.Errorf("receive map: %w: longer than any map of this LUN", ErrDamaged)
	}
	return nil
}

// planesLimit is more than planes take: a state for each extent; two heads where a run of
// pieceAlike extents begins, or one where pieceStates are full; and what data that cannot
// be compressed grows by.
func (id *Identity) planesLimit() int64 {
	n := int64(id.Extents())
	return (slotSize+n+(n/pieceAlike+1)*2*pieceHead)*101/100 + 1<<16
}

type planesReader struct {
	r      io.Reader
	id     *Identity
	next   uint64 // extent
	head   [pieceHead]byte
	bytes  [pieceStates]byte
	states [pieceStates]dirtymap.State
}

func (p *planesReader) read(piece func(dirtymap.Range, []dirtymap.State) error) error {
	if err := p.header(); err != nil {
		return err
	}
	for p.next < p.id.Extents() {
		extents, states, err := p.piece()
		if err != nil {
			return fmt.Errorf("piece at extent %d of %d: %w", p.next, p.id.Extents(), cutShort(err))
		}
		if err := piece(extents, states); err != nil {
			return err
		}
		p.next = extents.End()
	}
	switch n, err := io.ReadFull(p.r, p.head[:1]); {
	case n > 0:
		return fmt.Errorf("%w: something stands behind the last piece", ErrDamaged)
	case err != io.EOF:
		return fmt.Errorf("%w: behind the last piece: %w", ErrDamaged, err)
	}
	return nil
}

func (p *planesReader) header() error {
	buf := make([]byte, slotSize)
	if _, err := io.ReadFull(p.r, buf); err != nil {
		return cutShort(err)
	}
	h, err := decodeHeader(buf)
	if err != nil {
		return fmt.Errorf("%w: header %w", ErrDamaged, err)
	}
	return h.check(p.id)
}

// piece reads the next one. The states are good until the one behind it.
func (p *planesReader) piece() (extents dirtymap.Range, states []dirtymap.State, err error) {
	if _, err := io.ReadFull(p.r, p.head[:]); err != nil {
		return extents, nil, err
	}
	extents = dirtymap.Range{First: binary.LittleEndian.Uint64(p.head[0:]), Count: binary.LittleEndian.Uint64(p.head[8:])}
	n := uint64(binary.LittleEndian.Uint32(p.head[16:]))
	switch {
	case extents.First != p.next || extents.Count == 0 || extents.Count > p.id.Extents()-p.next:
		return extents, nil, fmt.Errorf("extents %d+%d stand there", extents.First, extents.Count)
	case n != extents.Count && n != 1 || n > pieceStates || extents.Count > pieceExtents:
		return extents, nil, fmt.Errorf("%d states for %d extents", n, extents.Count)
	}
	if _, err := io.ReadFull(p.r, p.bytes[:n]); err != nil {
		return extents, nil, err
	}
	if p.id.sumPiece(p.head[:20], p.bytes[:n]) != binary.LittleEndian.Uint32(p.head[20:]) {
		return extents, nil, errors.New("wrong checksum")
	}
	if !validStates(p.bytes[:n]) {
		return extents, nil, errors.New("holds states that cannot be")
	}
	for i, b := range p.bytes[:n] {
		p.states[i] = dirtymap.State(b)
	}
	return extents, p.states[:n], nil
}

// cutShort makes damage of a stream that ends early or does not unpack.
func cutShort(err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if errors.Is(err, ErrDamaged) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}
