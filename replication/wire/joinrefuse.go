package wire

// JoinRefuse says why the sender does not join its replica of this LUN, or joins
// it no more, until somebody has acted; the connection goes on for other LUNs. The
// text is for the other side's operator. Control stream.
//
//	0  n  reason, as in Refuse; the body ends with it
type JoinRefuse struct{ Reason string }

// ReasonAbsent is the reason when the LUN is not open at the sender, or not yet.
const ReasonAbsent = "the LUN is not open there"

// ReasonForced is the reason when an operator had the sender serve alone, and the cluster
// has not agreed upon that, or upon something else, yet. The sender comes again when it has.
const ReasonForced = "it was forced to serve alone, and the cluster has not agreed to that yet"

// Kind implements Message.
func (*JoinRefuse) Kind() Kind            { return KindJoinRefuse }
func (*JoinRefuse) check() error          { return nil }
func (m *JoinRefuse) size() int           { return len(tidyReason(m.Reason)) }
func (m *JoinRefuse) appendBody(b *Batch) { b.bytes([]byte(tidyReason(m.Reason))) }
func (m *JoinRefuse) parseBody(p *parser) { m.Reason = tidyReason(string(p.bytes(len(p.rest)))) }
