package replication

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/twinlun/twinlun/replication/wire"
)

// linkFarewell bounds how long a node that closes a connection waits for the
// peer to take in the reason.
const linkFarewell = time.Second

// linkCall is one stream whose HELLOs are in progress or done.
type linkCall struct {
	conn   net.Conn
	source *streamSource
	in     *wire.Reader
	theirs *wire.Hello
}

func newLinkCall(conn net.Conn) *linkCall {
	source := &streamSource{conn: conn}
	in := wire.NewReader(source, wire.HandshakeKinds, wire.MaxHandshakeBody)
	return &linkCall{conn: conn, source: source, in: in}
}

// limit gives the HELLOs a time limit, and ends them with ctx. The caller calls
// the function returned when they are done.
func (call *linkCall) limit(ctx context.Context, d time.Duration) (done func()) {
	call.conn.SetDeadline(time.Now().Add(d))
	stop := context.AfterFunc(ctx, func() { call.conn.Close() })
	return func() {
		stop()
		call.conn.SetDeadline(time.Time{})
	}
}

// listen takes the peer's HELLO.
func (call *linkCall) listen(cfg *LinkConfig) error {
	_, m, err := call.in.Next()
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%v has closed the stream before HELLO", call.conn.RemoteAddr())
	}
	if err != nil {
		return fmt.Errorf("HELLO of %v: %w", call.conn.RemoteAddr(), err)
	}
	if refuse, ok := m.(*wire.Refuse); ok {
		return &LinkRefused{Peer: cfg.Peer, Reason: refuse.Reason}
	}
	call.theirs = m.(*wire.Hello)
	if err := provenPeer(call.conn, call.theirs.Node); err != nil {
		return err
	}
	return checkHello(cfg, call.theirs)
}

// say sends this node's HELLO.
func (call *linkCall) say(mine *wire.Hello) error {
	if _, err := call.conn.Write(wire.AppendFrame(nil, 0, mine, false)); err != nil {
		return fmt.Errorf("HELLO to %v: %w", call.conn.RemoteAddr(), err)
	}
	return nil
}

// checkHello tells why a node must not be talked to.
func checkHello(cfg *LinkConfig, theirs *wire.Hello) error {
	mine := cfg.hello(0, [16]byte{}, 1)
	switch {
	case theirs.NodeID == cfg.NodeID:
		return fmt.Errorf("%s is talking to itself: the address of its peer is its own, or both nodes run on one state directory", cfg.Self)
	case theirs.Token != cfg.Token:
		return fmt.Errorf("%s and %s have different link tokens: they belong to different pairs, or one configuration is wrong", cfg.Self, theirs.Node)
	case theirs.Node != cfg.Peer:
		return fmt.Errorf("%s expects %s as its peer, not %s; compare the names in both configurations", cfg.Self, cfg.Peer, theirs.Node)
	case theirs.MaxBody < wire.MaxBody:
		return fmt.Errorf("%s takes messages of up to %d bytes, %s sends up to %d", theirs.Node, theirs.MaxBody, cfg.Self, wire.MaxBody)
	}
	_, _, err := wire.Agree(mine, theirs)
	return err
}

// refuse tells the other end why, unless it was the one that refused, and closes
// the stream.
func (call *linkCall) refuse(why error) {
	defer call.conn.Close()
	if said := new(LinkRefused); errors.As(why, &said) {
		return
	}
	call.conn.SetDeadline(time.Now().Add(linkFarewell))
	if _, err := call.conn.Write(refusal(why)); err != nil {
		return
	}
	// Closing with bytes unread would take the reason back from the other end.
	if half, ok := call.conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		io.CopyN(io.Discard, call.conn, 64<<10)
	}
}

func refusal(why error) []byte {
	return wire.AppendFrame(nil, 0, &wire.Refuse{Reason: why.Error()}, false)
}
