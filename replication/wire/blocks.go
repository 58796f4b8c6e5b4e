package wire

import (
	"fmt"

	"github.com/twinlun/twinlun/dirtymap"
)

// Blocks are blocks of one extent. Data has those of Present that are not in
// Zero, in ascending order, dirtymap.BlockSize bytes each. As part of a message:
//
//	0      8   extent
//	8      1   w, words of each mask, 0 to 4; further words are zero
//	9      8w  Present, block 0 is bit 0 of the first word
//	9+8w   8w  Zero
//	9+16w  …   Data, its length follows from the masks
type Blocks struct {
	Extent  uint64
	Present dirtymap.Mask
	Zero    dirtymap.Mask // subset of Present: blocks of zeros
	Data    []byte
}

// minBlocksSize is the length of Blocks without a block.
const minBlocksSize = 9

func (bl *Blocks) size() int { return minBlocksSize + 16*bl.words() + len(bl.Data) }

// words is how many words of the masks are needed.
func (bl *Blocks) words() int {
	w := len(bl.Present)
	for w > 0 && bl.Present[w-1]|bl.Zero[w-1] == 0 {
		w--
	}
	return w
}

// dataSize is the length that Data must have.
func (bl *Blocks) dataSize() int {
	return bl.Present.Minus(bl.Zero).Count() * dirtymap.BlockSize
}

func (bl *Blocks) check() error {
	switch {
	case bl.Extent >= MaxExtents:
		return fmt.Errorf("extent %d: there are at most %d", bl.Extent, uint64(MaxExtents))
	case !bl.Zero.Minus(bl.Present).Empty():
		return fmt.Errorf("extent %d: zero blocks %x that are not among those present %x", bl.Extent, bl.Zero, bl.Present)
	case len(bl.Data) != bl.dataSize():
		return fmt.Errorf("extent %d: %d bytes of data, must be %d", bl.Extent, len(bl.Data), bl.dataSize())
	}
	return nil
}

func (b *Batch) blocks(bl *Blocks) {
	b.u64(bl.Extent)
	w := bl.words()
	b.u8(uint8(w))
	for _, bits := range bl.Present[:w] {
		b.u64(bits)
	}
	for _, bits := range bl.Zero[:w] {
		b.u64(bits)
	}
	b.bytes(bl.Data)
}

// blocks takes Blocks; their Data is part of the body.
func (p *parser) blocks() (bl Blocks) {
	bl.Extent = p.u64()
	w := int(p.u8())
	if w > len(bl.Present) {
		p.fail("masks of %d words, at most %d", w, len(bl.Present))
		return Blocks{}
	}
	for i := range w {
		bl.Present[i] = p.u64()
	}
	for i := range w {
		bl.Zero[i] = p.u64()
	}
	if n := bl.dataSize(); n > 0 {
		bl.Data = p.bytes(n)
	}
	return bl
}
