package wire

// CopyAck says that a COPY is durable (or was out of date). On the COPY's own
// bulk stream, in the other direction.
//
//	0  8  sequence number of the Copy
type CopyAck struct {
	Seq uint64
}

// Kind implements Message.
func (*CopyAck) Kind() Kind            { return KindCopyAck }
func (*CopyAck) check() error          { return nil }
func (*CopyAck) size() int             { return 8 }
func (m *CopyAck) appendBody(b *Batch) { b.u64(m.Seq) }
func (m *CopyAck) parseBody(p *parser) { m.Seq = p.u64() }
