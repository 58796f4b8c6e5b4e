package replication

import (
	"fmt"
	"net"

	"github.com/twinlun/twinlun/socket"
)

// streamSender is the sending half of a socket. Whoever has the turn of the stream's
// queue uses it. An encrypted connection brings its own.
type streamSender interface {
	// TrySend takes all of out, and sends what the socket takes without waiting. false:
	// something is left for Send, and out must stay as it is until that has returned.
	TrySend(out net.Buffers) (all bool)
	// Send sends what TrySend has left, and then out, which may be empty. It waits.
	Send(out net.Buffers) error
}

func newStreamSender(c net.Conn) streamSender {
	if own, ok := c.(streamSender); ok {
		return own
	}
	return &plainSender{conn: c, now: socket.NewSender(c)}
}

// plainSender sends over a TCP connection as it is.
type plainSender struct {
	conn net.Conn
	now  *socket.Sender
	rest net.Buffers // what TrySend has left
}

// TrySend implements streamSender. Whatever goes wrong happens again to Send, and is
// found there.
func (s *plainSender) TrySend(out net.Buffers) (all bool) {
	s.rest, _ = s.now.Send(out)
	return len(s.rest) == 0
}

// Send implements streamSender.
func (s *plainSender) Send(out net.Buffers) error {
	_, err := s.rest.WriteTo(s.conn)
	s.rest = nil
	if err == nil && len(out) > 0 {
		_, err = out.WriteTo(s.conn)
	}
	return err
}

// provenPeer tells whether a node is the one that its connection has proven it to be.
// A plain TCP connection proves nothing.
func provenPeer(c net.Conn, name string) error {
	p, ok := c.(interface{ Peer() string })
	if !ok || p.Peer() == name {
		return nil
	}
	return fmt.Errorf("%s says that it is %s: one node has the other's configuration or certificate", p.Peer(), name)
}
