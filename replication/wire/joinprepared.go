package wire

// JoinPrepared says that the sender has the outcome of join Join durably, not in
// effect. Control stream.
//
//	0  8  number of the join
type JoinPrepared struct{ Join uint64 }

// Kind implements Message.
func (*JoinPrepared) Kind() Kind            { return KindJoinPrepared }
func (*JoinPrepared) check() error          { return nil }
func (*JoinPrepared) size() int             { return 8 }
func (m *JoinPrepared) appendBody(b *Batch) { b.u64(m.Join) }
func (m *JoinPrepared) parseBody(p *parser) { m.Join = p.u64() }
