package wire

// JoinDone says that join Join is in effect at the sender; it takes requests.
// Control stream.
//
//	0  8  number of the join
type JoinDone struct{ Join uint64 }

// Kind implements Message.
func (*JoinDone) Kind() Kind            { return KindJoinDone }
func (*JoinDone) check() error          { return nil }
func (*JoinDone) size() int             { return 8 }
func (m *JoinDone) appendBody(b *Batch) { b.u64(m.Join) }
func (m *JoinDone) parseBody(p *parser) { m.Join = p.u64() }
