package transport

import (
	"bufio"
	"crypto/tls"
	"net"
	"sync"
	"time"

	"github.com/twinlun/twinlun/cluster/identity"
)

const (
	// recordSize is the most that a TLS record carries, in bytes (RFC 8446 section
	// 5.1). Small pieces are gathered to that: each record costs 22 bytes and a call.
	recordSize = 16 << 10
	// sendChunk is how much Send encrypts before it sends that: what stays in a
	// processor's cache, and is enough for one system call.
	sendChunk = 256 << 10
	// closeTime is for the last record of a connection, when the peer may not read.
	closeTime = time.Second
)

// Conn is a connection with another node of the cluster. Beside what any net.Conn does
// it can send without waiting.
type Conn struct {
	// Fixed by newConn.
	*tls.Conn
	socket   *socket
	peer     identity.Peer
	protocol Protocol
	closed   func(*Conn)

	mu    sync.Mutex    // held by Write; TrySend and Send have one caller at a time
	plain *bufio.Writer // into TLS
	err   error         // what TrySend has met, for Send
}

// newConn takes a connection whose handshake is over.
func newConn(c *tls.Conn, s *socket, peer identity.Peer, protocol Protocol, closed func(*Conn)) *Conn {
	s.established()
	return &Conn{
		Conn: c, socket: s, peer: peer, protocol: protocol, closed: closed,
		plain: bufio.NewWriterSize(c, recordSize),
	}
}

// Peer is the name of the node at the other end, as it has proven.
func (c *Conn) Peer() string { return c.peer.Node }

// Identity is its name and its key.
func (c *Conn) Identity() identity.Peer { return c.peer }

// Protocol is what is spoken.
func (c *Conn) Protocol() Protocol { return c.protocol }

// TrySend takes all of out, and sends what the socket takes at once. It never waits.
// false: something is left, which Send sends; whoever gets false sees to it that Send
// is called. TrySend and Send are called by one goroutine at a time, and not beside
// Write.
func (c *Conn) TrySend(out net.Buffers) (all bool) {
	for _, p := range out {
		c.write(p)
	}
	c.finish()
	return c.err == nil && c.socket.tryFlush()
}

// Send takes all of out, which may be empty, and sends it, behind what TrySend has
// left. It waits until the socket has taken everything.
func (c *Conn) Send(out net.Buffers) error {
	for _, p := range out {
		for len(p) > 0 && c.err == nil {
			n := min(len(p), sendChunk)
			c.write(p[:n])
			p = p[n:]
			if c.socket.buffered() >= sendChunk {
				c.flush()
			}
		}
	}
	c.finish()
	c.flush()
	return c.err
}

func (c *Conn) write(p []byte) {
	if c.err == nil {
		_, c.err = c.plain.Write(p)
	}
}

func (c *Conn) finish() {
	if c.err == nil {
		c.err = c.plain.Flush()
	}
}

func (c *Conn) flush() {
	if c.err == nil {
		c.err = c.socket.flush()
	}
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.Send(net.Buffers{p}); err != nil {
		return 0, err
	}
	return len(p), nil
}

// CloseWrite tells the peer that nothing more comes. It is called like Send, and waits
// for a second at most.
func (c *Conn) CloseWrite() error {
	err := c.Conn.CloseWrite()
	if err == nil {
		c.socket.SetWriteDeadline(time.Now().Add(closeTime)) // crypto/tls has let it pass
		err = c.socket.flush()
	}
	if half, ok := c.socket.Conn.(interface{ CloseWrite() error }); ok && err == nil {
		err = half.CloseWrite()
	}
	return err
}

// Close implements net.Conn. It does not wait.
func (c *Conn) Close() error {
	c.closed(c)
	return c.Conn.Close()
}
