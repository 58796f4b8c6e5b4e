package wire

// JoinMap carries a piece of the sender's planes in the shared format of package
// mapfile, compressed. Control stream.
//
//	0  1  1: this is the last piece; else 0
//	1  n  data; the body ends with it
type JoinMap struct {
	Last bool
	Data []byte
}

// Kind implements Message.
func (*JoinMap) Kind() Kind   { return KindJoinMap }
func (*JoinMap) check() error { return nil }
func (m *JoinMap) size() int  { return 1 + len(m.Data) }

func (m *JoinMap) appendBody(b *Batch) {
	b.flag(m.Last)
	b.bytes(m.Data)
}

func (m *JoinMap) parseBody(p *parser) {
	m.Last = p.flag()
	if n := len(p.rest); n > 0 {
		m.Data = p.bytes(n)
	}
}
