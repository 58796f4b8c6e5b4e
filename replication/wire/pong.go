package wire

// Pong answers a Ping, on its stream.
//
//	0  8  id of the Ping
type Pong struct{ ID uint64 }

// Kind implements Message.
func (*Pong) Kind() Kind            { return KindPong }
func (*Pong) check() error          { return nil }
func (*Pong) size() int             { return 8 }
func (m *Pong) appendBody(b *Batch) { b.u64(m.ID) }
func (m *Pong) parseBody(p *parser) { m.ID = p.u64() }
