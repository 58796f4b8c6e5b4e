package wire

import "fmt"

// Message is the body of a frame. Only this package implements it.
type Message interface {
	Kind() Kind
	// check tells how the message breaks its bounds.
	check() error
	// size is the length of the body without compression, in bytes.
	size() int
	appendBody(*Batch)
	parseBody(*parser)
}

// Kind says what a frame carries.
type Kind uint8

// The kinds of message. Numbers are never used again for something else.
const (
	KindHello        Kind = 1
	KindRefuse       Kind = 2
	KindPing         Kind = 3
	KindPong         Kind = 4
	KindJoinHello    Kind = 8
	KindJoinMap      Kind = 9
	KindJoinPrepared Kind = 10
	KindJoinDone     Kind = 11
	KindJoinRefuse   Kind = 12
	KindMark         Kind = 16
	KindMarkAck      Kind = 17
	KindFetch        Kind = 18
	KindFetchReply   Kind = 19
	KindClear        Kind = 20
	KindTell         Kind = 24
	KindTold         Kind = 25
	KindLeaseRequest Kind = 26
	KindLeaseGrant   Kind = 27
	KindVerify       Kind = 28
	KindVerified     Kind = 29
	KindResend       Kind = 30
	KindResent       Kind = 31
	KindCopy         Kind = 32
	KindCopyAck      Kind = 33
)

// Kinds is the number of kinds that there can be: every Kind is below it.
const Kinds = 64

// KindSet is a set of kinds.
type KindSet uint64

// What may arrive where.
const (
	HandshakeKinds KindSet = 1<<KindHello | 1<<KindRefuse
	ControlKinds   KindSet = 1<<KindRefuse | 1<<KindPing | 1<<KindPong |
		1<<KindJoinHello | 1<<KindJoinMap | 1<<KindJoinPrepared | 1<<KindJoinDone | 1<<KindJoinRefuse |
		1<<KindMark | 1<<KindMarkAck | 1<<KindFetch | 1<<KindFetchReply | 1<<KindClear | 1<<KindTell | 1<<KindTold |
		1<<KindLeaseRequest | 1<<KindLeaseGrant |
		1<<KindVerify | 1<<KindVerified | 1<<KindResend | 1<<KindResent
	BulkKinds KindSet = 1<<KindRefuse | 1<<KindPing | 1<<KindPong | 1<<KindCopy | 1<<KindCopyAck
)

// dataKinds are those whose messages keep parts of the body: it cannot be used
// for the next frame.
const dataKinds KindSet = 1<<KindJoinMap | 1<<KindFetchReply | 1<<KindCopy

// Has tells whether k is in the set.
func (s KindSet) Has(k Kind) bool { return k < Kinds && s>>k&1 == 1 }

// newMessage is an empty message of kind k; nil: there is no such kind.
func newMessage(k Kind) Message {
	switch k {
	case KindHello:
		return new(Hello)
	case KindRefuse:
		return new(Refuse)
	case KindPing:
		return new(Ping)
	case KindPong:
		return new(Pong)
	case KindJoinHello:
		return new(JoinHello)
	case KindJoinMap:
		return new(JoinMap)
	case KindJoinPrepared:
		return new(JoinPrepared)
	case KindJoinDone:
		return new(JoinDone)
	case KindJoinRefuse:
		return new(JoinRefuse)
	case KindMark:
		return new(Mark)
	case KindMarkAck:
		return new(MarkAck)
	case KindFetch:
		return new(Fetch)
	case KindFetchReply:
		return new(FetchReply)
	case KindClear:
		return new(Clear)
	case KindTell:
		return new(Tell)
	case KindTold:
		return new(Told)
	case KindLeaseRequest:
		return new(LeaseRequest)
	case KindLeaseGrant:
		return new(LeaseGrant)
	case KindVerify:
		return new(Verify)
	case KindVerified:
		return new(Verified)
	case KindResend:
		return new(Resend)
	case KindResent:
		return new(Resent)
	case KindCopy:
		return new(Copy)
	case KindCopyAck:
		return new(CopyAck)
	}
	return nil
}

// String is the kind's name, as in metrics.
func (k Kind) String() string {
	switch k {
	case KindHello:
		return "hello"
	case KindRefuse:
		return "refuse"
	case KindPing:
		return "ping"
	case KindPong:
		return "pong"
	case KindJoinHello:
		return "join-hello"
	case KindJoinMap:
		return "join-map"
	case KindJoinPrepared:
		return "join-prepared"
	case KindJoinDone:
		return "join-done"
	case KindJoinRefuse:
		return "join-refuse"
	case KindMark:
		return "mark"
	case KindMarkAck:
		return "mark-ack"
	case KindFetch:
		return "fetch"
	case KindFetchReply:
		return "fetch-reply"
	case KindClear:
		return "clear"
	case KindTell:
		return "tell"
	case KindTold:
		return "told"
	case KindLeaseRequest:
		return "lease-request"
	case KindLeaseGrant:
		return "lease-grant"
	case KindVerify:
		return "verify"
	case KindVerified:
		return "verified"
	case KindResend:
		return "resend"
	case KindResent:
		return "resent"
	case KindCopy:
		return "copy"
	case KindCopyAck:
		return "copy-ack"
	}
	return fmt.Sprintf("kind-%d", uint8(k))
}

// Check tells how a message breaks its bounds; nil: it may be sent.
func Check(m Message) error {
	if err := m.check(); err != nil {
		return fmt.Errorf("%v: %w", m.Kind(), err)
	}
	if n := m.size(); n > MaxBody {
		return fmt.Errorf("%v: body of %d bytes, at most %d can be sent", m.Kind(), n, MaxBody)
	}
	return nil
}

// Size is the length of the message's frame without compression, in bytes.
func Size(m Message) int { return HeaderSize + m.size() }
