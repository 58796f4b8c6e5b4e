package wire

import "fmt"

// Copy carries mirrored blocks. Bulk stream; Seq counts each stream's COPY
// frames from 1 on.
//
//	 0  8  sequence number
//	 8  8  atomic writes
//	16  4  number of items, up to MaxItems; for each: blocks (see Blocks)
type Copy struct {
	Seq     uint64
	Atomics uint64   // how many atomic writes had begun at the sender
	Items   []Blocks // ascending extents
}

// Kind implements Message.
func (*Copy) Kind() Kind { return KindCopy }

func (m *Copy) size() int {
	n := 20
	for i := range m.Items {
		n += m.Items[i].size()
	}
	return n
}

func (m *Copy) check() error {
	if len(m.Items) > MaxItems {
		return fmt.Errorf("%d items, at most %d", len(m.Items), MaxItems)
	}
	for i := range m.Items {
		if i > 0 && m.Items[i].Extent <= m.Items[i-1].Extent {
			return fmt.Errorf("extent %d after extent %d", m.Items[i].Extent, m.Items[i-1].Extent)
		}
		if err := m.Items[i].check(); err != nil {
			return err
		}
	}
	return nil
}

func (m *Copy) appendBody(b *Batch) {
	b.u64(m.Seq)
	b.u64(m.Atomics)
	b.u32(uint32(len(m.Items)))
	for i := range m.Items {
		b.blocks(&m.Items[i])
	}
}

func (m *Copy) parseBody(p *parser) {
	m.Seq = p.u64()
	m.Atomics = p.u64()
	n := p.count(minBlocksSize)
	if n == 0 {
		return
	}
	m.Items = make([]Blocks, n)
	for i := range m.Items {
		m.Items[i] = p.blocks()
	}
}
