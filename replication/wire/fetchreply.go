package wire

import "fmt"

// FetchReply answers a Fetch, in one or several parts: each extent once. Control
// stream. A reader drops COPY frames for these extents up to Floors.
//
//	0   8   request id
//	8   8   atomic writes
//	16  1   f, number of floors, up to MaxBulkStreams
//	17  8f  floors
//	…   4   number of items, up to MaxItems; for each:
//	        outcome u8, turn u8, blocks (see Blocks)
type FetchReply struct {
	ID      uint64
	Atomics uint64   // how many atomic writes had begun at the owner
	Floors  []uint64 // per bulk stream: the last COPY number sent so far
	Items   []FetchItem
}

// Outcome is what the owner did with an extent that was fetched.
type Outcome uint8

// The outcomes of a fetch.
const (
	FetchedShared Outcome = 1 // the owner is SHARED now, and so is the reader
	FetchedOwned  Outcome = 2 // ownership is granted to the reader
	FetchedKept   Outcome = 3 // the owner stays OWNED; good for the reads that waited only
	FetchedFailed Outcome = 4 // the owner could not read its replica; nothing changed
)

// FetchItem is the answer for one extent. No blocks: it was in sync.
type FetchItem struct {
	Outcome Outcome
	Turn    uint8 // the turn after a grant, 0 to 3
	Blocks
}

// Kind implements Message.
func (*FetchReply) Kind() Kind { return KindFetchReply }

func (m *FetchReply) size() int {
	n := 21 + 8*len(m.Floors)
	for i := range m.Items {
		n += 2 + m.Items[i].Blocks.size()
	}
	return n
}

func (m *FetchReply) check() error {
	if len(m.Floors) > MaxBulkStreams || len(m.Items) > MaxItems {
		return fmt.Errorf("%d floors and %d items, at most %d and %d", len(m.Floors), len(m.Items), MaxBulkStreams, MaxItems)
	}
	for i := range m.Items {
		if err := m.Items[i].check(); err != nil {
			return err
		}
	}
	return nil
}

func (it *FetchItem) check() error {
	if it.Outcome < FetchedShared || it.Outcome > FetchedFailed {
		return fmt.Errorf("extent %d: unknown outcome %d", it.Extent, it.Outcome)
	}
	if err := checkTurn(it.Turn); err != nil {
		return err
	}
	return it.Blocks.check()
}

func (m *FetchReply) appendBody(b *Batch) {
	b.u64(m.ID)
	b.u64(m.Atomics)
	b.u8(uint8(len(m.Floors)))
	for _, f := range m.Floors {
		b.u64(f)
	}
	b.u32(uint32(len(m.Items)))
	for i := range m.Items {
		it := &m.Items[i]
		b.u8(uint8(it.Outcome))
		b.u8(it.Turn)
		b.blocks(&it.Blocks)
	}
}

func (m *FetchReply) parseBody(p *parser) {
	m.ID = p.u64()
	m.Atomics = p.u64()
	m.Floors = p.floors()
	n := p.count(2 + minBlocksSize)
	if n == 0 {
		return
	}
	m.Items = make([]FetchItem, n)
	for i := range m.Items {
		m.Items[i] = FetchItem{Outcome: Outcome(p.u8()), Turn: p.u8(), Blocks: p.blocks()}
	}
}

func (p *parser) floors() []uint64 {
	n := int(p.u8())
	if n > MaxBulkStreams {
		p.fail("%d floors, at most %d", n, MaxBulkStreams)
	}
	if n == 0 || p.err != nil {
		return nil
	}
	floors := make([]uint64, n)
	for i := range floors {
		floors[i] = p.u64()
	}
	return floors
}
