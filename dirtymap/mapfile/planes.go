package mapfile

import (
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/twinlun/twinlun/dirtymap"
)

// planesWindow is how far back the compression looks: two neighbouring pages are
// what it needs to find. It bounds the memory of the reader.
const planesWindow = 1 << 20

// WritePlanes writes the states of all extents for the peer: a header slot and
// the pages of a map file, through zstd. state fills its argument with the
// states of the extents from first on; only the Durable bits are sent.
func WritePlanes(w io.Writer, id Identity, state func(first uint64, into []dirtymap.State)) error {
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(planesWindow))
	if err != nil {
		return fmt.Errorf("send map: %w", err)
	}
	err = writePlanes(z, &id, state)
	if closed := z.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("send map: %w", err)
	}
	return nil
}

func writePlanes(w io.Writer, id *Identity, state func(first uint64, into []dirtymap.State)) error {
	if _, err := w.Write(planesHeader(id)); err != nil {
		return err
	}
	states := make([]dirtymap.State, pageStates)
	buf := make([]byte, pageSize)
	for page := range id.pages() {
		n := id.statesIn(page)
		state(page*pageStates, states[:n])
		for i, s := range states[:n] {
			buf[8+i] = byte(s & dirtymap.Durable)
		}
		clear(buf[8+n:])
		id.sealPage(page, buf)
		if _, err := w.Write(buf); err != nil {
			return err
		}
	}
	return nil
}

// planesHeader is the header slot at the front of planes: that of a new map
// file, with a Meta of zeros.
func planesHeader(id *Identity) []byte {
	h := header{version: 1, id: *id, generation: 1, logAt: id.logAt()}
	return h.encode()
}

// ReadPlanes reads what WritePlanes wrote, up to the end of r. page gets the
// states in ascending order, in portions, every extent once; an error of its own
// comes back as it is. Memory is bounded whatever r contains; so is time, by the
// size of the LUN.
func ReadPlanes(r io.Reader, id Identity, page func(first uint64, states []dirtymap.State) error) error {
	// Even incompressible data grows by little; more than that is no map.
	limit := &io.LimitedReader{R: r, N: (int64(id.pages())+1)*pageSize*101/100 + 1<<16}
	z, err := zstd.NewReader(limit, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(planesWindow), zstd.WithDecoderMaxMemory(1<<63))
	if err != nil {
		return fmt.Errorf("receive map: %w", err)
	}
	defer z.Close()
	if err := readPlanes(z, &id, page); err != nil {
		return fmt.Errorf("receive map: %w", err)
	}
	if limit.N == 0 {
		return fmt.Errorf("receive map: %w: longer than any map of this LUN", ErrDamaged)
	}
	return nil
}

func readPlanes(r io.Reader, id *Identity, page func(first uint64, states []dirtymap.State) error) error {
	buf := make([]byte, pageSize)
	if _, err := io.ReadFull(r, buf); err != nil {
		return cutShort(err)
	}
	h, err := decodeHeader(buf)
	if err != nil {
		return fmt.Errorf("%w: header %w", ErrDamaged, err)
	}
	if err := h.check(id); err != nil {
		return err
	}
	states := make([]dirtymap.State, pageStates)
	for no := range id.pages() {
		if _, err := io.ReadFull(r, buf); err != nil {
			return fmt.Errorf("page %d of %d: %w", no, id.pages(), cutShort(err))
		}
		if err := id.checkPage(no, buf); err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		for i := range states {
			states[i] = dirtymap.State(buf[8+i])
		}
		if err := page(no*pageStates, states[:id.statesIn(no)]); err != nil {
			return err
		}
	}
	switch n, err := io.ReadFull(r, buf[:1]); {
	case n > 0:
		return fmt.Errorf("%w: something stands behind the last page", ErrDamaged)
	case err != io.EOF:
		return fmt.Errorf("%w: behind the last page: %w", ErrDamaged, err)
	}
	return nil
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
