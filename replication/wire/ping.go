package wire

// Ping is a heartbeat; Pong answers it. Any stream, LUN 0.
//
//	0  8  id: the answer has the same
type Ping struct{ ID uint64 }

// Kind implements Message.
func (*Ping) Kind() Kind            { return KindPing }
func (*Ping) check() error          { return nil }
func (*Ping) size() int             { return 8 }
func (m *Ping) appendBody(b *Batch) { b.u64(m.ID) }
func (m *Ping) parseBody(p *parser) { m.ID = p.u64() }
