package wire

import "fmt"

// MaxTell bounds what Tell and Told carry, in bytes: the state of a logical unit,
// never data.
const MaxTell = 4096

// FeatureTell: the sender understands Tell, and answers each with Told.
const FeatureTell = 1 << 1

// Tell is a message of the LUN's device server to its like at the peer. Control
// stream. This package and the replication know nothing of what it says.
//
//	 0  8  request id
//	 8  2  topic
//	10  2  length of the body, up to MaxTell
//	12  n  body
type Tell struct {
	ID    uint64
	Topic uint16
	Body  []byte
}

// Kind implements Message.
func (*Tell) Kind() Kind     { return KindTell }
func (m *Tell) check() error { return checkTell(m.Body) }
func (m *Tell) size() int    { return 12 + len(m.Body) }

func (m *Tell) appendBody(b *Batch) {
	b.u64(m.ID)
	b.u16(m.Topic)
	b.u16(uint16(len(m.Body)))
	b.bytes(m.Body)
}

func (m *Tell) parseBody(p *parser) {
	m.ID, m.Topic = p.u64(), p.u16()
	m.Body = p.told()
}

// Told answers a Tell. Control stream.
//
//	 0  8  request id
//	 8  1  1: understood; 0: there is nobody who knows the topic
//	 9  2  length of the body, up to MaxTell
//	11  n  body
type Told struct {
	ID         uint64
	Understood bool
	Body       []byte
}

// Kind implements Message.
func (*Told) Kind() Kind     { return KindTold }
func (m *Told) check() error { return checkTell(m.Body) }
func (m *Told) size() int    { return 11 + len(m.Body) }

func (m *Told) appendBody(b *Batch) {
	b.u64(m.ID)
	b.flag(m.Understood)
	b.u16(uint16(len(m.Body)))
	b.bytes(m.Body)
}

func (m *Told) parseBody(p *parser) {
	m.ID, m.Understood = p.u64(), p.flag()
	m.Body = p.told()
}

func checkTell(body []byte) error {
	if len(body) > MaxTell {
		return fmt.Errorf("%d bytes to tell, at most %d", len(body), MaxTell)
	}
	return nil
}

// told takes a length and as many bytes: a copy, for the frame is used again.
func (p *parser) told() []byte {
	n := int(p.u16())
	if n > MaxTell {
		p.fail("%d bytes to tell, at most %d", n, MaxTell)
		return nil
	}
	return append([]byte(nil), p.bytes(n)...)
}
