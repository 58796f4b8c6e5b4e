package wire

import "strings"

// MaxReason bounds the reason of a Refuse, in bytes.
const MaxReason = 1024

// Refuse ends a connection with a reason for the other side's operator. Any
// stream. The layout is the same in every version of the protocol:
//
//	0  n  reason, UTF-8; the body ends with it
//
// Reasons are cut to MaxReason bytes, and made valid UTF-8, on both sides.
type Refuse struct{ Reason string }

// Kind implements Message.
func (*Refuse) Kind() Kind            { return KindRefuse }
func (*Refuse) check() error          { return nil }
func (m *Refuse) size() int           { return len(tidyReason(m.Reason)) }
func (m *Refuse) appendBody(b *Batch) { b.bytes([]byte(tidyReason(m.Reason))) }
func (m *Refuse) parseBody(p *parser) { m.Reason = tidyReason(string(p.bytes(len(p.rest)))) }

func tidyReason(s string) string {
	s = s[:min(len(s), MaxReason)]
	return strings.ToValidUTF8(s, "") // also a character that was cut
}
