package replication

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/twinlun/twinlun/replication/wire"
)

// LinkDialer opens a stream to the peer: 0 is the control stream, all others are bulk
// streams. See LinkConfig.Listener for what it returns.
type LinkDialer func(ctx context.Context, stream int) (net.Conn, error)

// LinkConfig says who is joined with whom, and how. Both nodes of a pair must
// have the same Token; Heartbeat of each must be well below Dead of the other.
type LinkConfig struct {
	Self, Peer string   // names of the two nodes, 1 to wire.MaxNodeName bytes each
	Token      Token    // the pair's, not zero; see LinkToken
	NodeID     [16]byte // this node's; zero: random

	// One of the two nodes dials and the other listens, see LinkDials.
	Address string     // dialing over plain TCP: the peer's, host:port
	Dial    LinkDialer // dialing in any other way
	// Listener is the listening node's; the link closes it in the end. Connections
	// that have a method Peer() string have proven which node is at their other end,
	// and HELLO must say the same. Those that encrypt should be streamSenders: the link
	// sends under locks, and crypto/tls alone may wait.
	Listener net.Listener
	Streams  int // dialing: number of bulk streams; 0: 2

	Compress  bool          // compress what is sent, if that makes it smaller
	Heartbeat time.Duration // between two pings on a stream; 0: 500 ms
	// Dead is how long nothing at all may be received before the connection is
	// given up; one single stream may be silent for linkStreamDead times that.
	Dead       time.Duration // 0: 2 s
	Handshake  time.Duration // limit for dialing and HELLO; 0: 5 s
	BackoffMin time.Duration // first wait after a failure, doubled each time; 0: 50 ms
	BackoffMax time.Duration // 0: 500 ms
	// MaxQueue is how much may wait to be sent on each stream, in bytes. Windows
	// of the protocol keep far below it: reaching it breaks the connection.
	MaxQueue int64 // 0: 256 MiB

	Log *slog.Logger // nil: slog.Default()

	features uint32 // the wire.Feature… bits that this node has; 0: all, but for tests of older ones
}

// linkStreamDead: a connection whose other streams are alive waits so much longer
// for a silent one, since a crowded line may starve a stream for a while.
const linkStreamDead = 5

// LinkDials tells which of two nodes dials: the one with the smaller name.
func LinkDials(self, peer string) bool { return self < peer }

// Token is what both nodes of a pair know, and say first: it keeps pairs apart. It is
// not to be seen in a log.
type Token [16]byte

// Format implements fmt.Formatter: for every verb the token is hidden.
func (Token) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("(hidden)")) }

// LinkToken makes a pair's token from any text that both configurations share.
func LinkToken(text string) Token {
	sum := sha256.Sum256([]byte("twinlun link\x00" + text))
	return Token(sum[:16])
}

// complete puts in what was left out, and checks the rest.
func (c LinkConfig) complete() (LinkConfig, error) {
	if c.NodeID == [16]byte{} {
		rand.Read(c.NodeID[:]) // never fails
	}
	if c.Dial == nil && c.Address != "" {
		c.Dial = plainDialer(c.Address)
	}
	setDefault(&c.Streams, 2)
	setDefault(&c.Heartbeat, 500*time.Millisecond)
	setDefault(&c.Dead, 2*time.Second)
	setDefault(&c.Handshake, 5*time.Second)
	setDefault(&c.BackoffMin, 50*time.Millisecond)
	setDefault(&c.BackoffMax, 500*time.Millisecond)
	setDefault(&c.MaxQueue, 256<<20)
	setDefault(&c.features, wire.FeatureCompression|wire.FeatureTell|wire.FeatureLease|wire.FeatureVerify)
	setDefault(&c.Log, slog.Default())
	return c, c.check()
}

func plainDialer(address string) LinkDialer {
	return func(ctx context.Context, _ int) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	}
}

func setDefault[T comparable](v *T, def T) {
	if *v == *new(T) {
		*v = def
	}
}

func (c *LinkConfig) check() error {
	if err := wire.Check(c.hello(0, [16]byte{}, c.Streams)); err != nil {
		return fmt.Errorf("link of node %q: %w", c.Self, err)
	}
	switch {
	case c.Peer == "" || len(c.Peer) > wire.MaxNodeName:
		return fmt.Errorf("link of node %q: name of the peer is %q, must have 1 to %d bytes", c.Self, c.Peer, wire.MaxNodeName)
	case c.Self == c.Peer:
		return fmt.Errorf("link: both nodes are called %q; give each a name of its own", c.Self)
	case c.Token == [16]byte{}:
		return errors.New("link: no token; give both nodes of the pair the same one")
	case c.Heartbeat < 0 || c.Heartbeat >= c.Dead:
		return fmt.Errorf("link: a heartbeat every %v, but the peer is given up after %v without any", c.Heartbeat, c.Dead)
	case c.Handshake < 0 || c.BackoffMin < 0 || c.BackoffMax < c.BackoffMin || c.MaxQueue < 0:
		return fmt.Errorf("link: handshake %v, backoff %v to %v, queue of %d bytes: out of range", c.Handshake, c.BackoffMin, c.BackoffMax, c.MaxQueue)
	}
	return c.checkSide()
}

func (c *LinkConfig) checkSide() error {
	switch dials := LinkDials(c.Self, c.Peer); {
	case dials && c.Dial == nil:
		return fmt.Errorf("link: %s dials %s, but its address is missing", c.Self, c.Peer)
	case dials && c.Listener != nil:
		return fmt.Errorf("link: %s dials %s and must not listen", c.Self, c.Peer)
	case !dials && c.Listener == nil:
		return fmt.Errorf("link: %s is dialed by %s, but does not listen", c.Self, c.Peer)
	}
	return nil
}

// hello is what this node says first on a stream.
func (c *LinkConfig) hello(stream int, connection [16]byte, streams int) *wire.Hello {
	return &wire.Hello{
		MinVersion: wire.MinVersion,
		MaxVersion: wire.MaxVersion,
		Features:   c.features,
		Token:      c.Token,
		Connection: connection,
		NodeID:     c.NodeID,
		MaxBody:    wire.MaxBody,
		Stream:     uint8(stream),
		Streams:    uint8(min(max(streams, 0), 255)),
		Node:       c.Self,
	}
}
