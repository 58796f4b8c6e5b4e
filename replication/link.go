// Package replication runs the link between the two nodes of a pair.
//
// The link (files link*.go and stream*.go) carries the messages of package wire
// between exactly two nodes that know each other from their configuration: over
// one control stream and some bulk streams, all up or all down. LINK.md tells
// how it behaves; LinkHandler and LinkConn are all that its users see of it, and
// a simulation implements them without a socket.
package replication

import (
	"context"
	"errors"
	"time"

	"github.com/twinlun/twinlun/replication/wire"
)

// LinkHandler is what a link calls. For every connection, in this order:
//
//  1. Up, once. No other call for the connection begins before Up has returned.
//  2. Control, one call at a time, in the order in which the peer called
//     SendControl; and for each bulk stream Bulk, one call at a time, in the order
//     of the peer's SendBulk for this stream. Calls for different streams run
//     concurrently, and nothing is known of their order.
//  3. Down, once. It begins when all calls of 2 have returned, and is the last
//     call for the connection.
//
// The next connection's Up begins after Down has returned: at any time a link has
// at most one connection that is up.
//
// A call that does not return holds back its own stream only, up to the peer's
// sender (backpressure); but as Down waits for it, it must return soon after the
// connection's Context has ended. Messages belong to the handler: the link does
// not touch them again, neither their Data.
type LinkHandler interface {
	Up(c LinkConn)
	Control(c LinkConn, lun uint32, m wire.Message)
	// Bulk gets a message of bulk stream 0 to c.Streams()-1.
	Bulk(c LinkConn, stream int, lun uint32, m wire.Message)
	// Down says why the connection is over: the first thing that went wrong.
	Down(c LinkConn, err error)
}

// LinkConn is one connection between the two nodes. Its methods never block, may
// be called from any goroutine, under any lock, and inside the handler's calls,
// also before Up has returned and after Down.
type LinkConn interface {
	// SendControl sends a message behind all those that were given to SendControl
	// before. The message, with its Data, belongs to the link from then on. Once
	// the connection is broken, messages are dropped; those that were sent shortly
	// before may or may not have arrived.
	SendControl(lun uint32, m wire.Message)
	// SendBulk does the same on bulk stream 0 to Streams()-1. There is no order
	// between streams.
	SendBulk(stream int, lun uint32, m wire.Message)
	// Streams is the number of bulk streams: 1 to wire.MaxBulkStreams, the same
	// at both nodes.
	Streams() int
	// Peer is the peer's name.
	Peer() string
	// Features are the wire.Feature… bits that both nodes have.
	Features() uint32
	// Close breaks the connection and tells the peer the reason. Down follows,
	// with this reason unless the connection was broken before.
	Close(reason error)
	// RTT is the control stream's smoothed round trip time; 0: not measured yet.
	RTT() time.Duration
	// Context ends when the connection is broken, before Down begins; its cause is
	// Down's error.
	Context() context.Context
}

// What ends a connection, beside errors of the network.
var (
	// ErrLinkSilent: nothing at all was received for LinkConfig.Dead.
	ErrLinkSilent = errors.New("nothing was received from the peer")
	// ErrLinkOverflow: the peer takes messages much slower than they are sent, and
	// LinkConfig.MaxQueue bytes wait for a stream.
	ErrLinkOverflow = errors.New("too much is waiting to be sent to the peer")
	// ErrLinkSuperseded: the peer has connected anew, and so knows nothing of this
	// connection any longer.
	ErrLinkSuperseded = errors.New("the peer has opened a new connection")
	// ErrLinkClosed: this node has closed the link.
	ErrLinkClosed = errors.New("the link was closed")
)

// LinkRefused is the error when the peer has refused or closed a connection and
// said why.
type LinkRefused struct {
	Peer   string
	Reason string
}

func (e *LinkRefused) Error() string { return e.Peer + " has closed the link: " + e.Reason }
