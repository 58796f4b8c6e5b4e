package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/twinlun/twinlun/cluster/transport"
)

// Nodes ask each other over connections of their own, one request at a time on each.
// A request and its answer are, big endian:
//
//	0  1  kind of the request; of an answer 0: done, 1: not done, the body says why,
//	      2: not here, another node leads
//	1  4  length of the body, at most maxBody
//	5  …  body
const (
	requestHead = 5
	// maxBody is the longest command and some more, in bytes: commands describe LUNs
	// and hosts.
	maxBody = MaxCommand + 64
)

// MaxCommand is the longest command, in bytes.
const MaxCommand = 1 << 20

// Kinds of requests.
const (
	askPropose = 1 // an entry of the log; the answer is its index
	askSync    = 2 // nothing; the answer is the index that is applied at the leader
	askMember  = 3 // see members.go; the answer is 0, u64
	askRenew   = 4 // nothing; the answer is a certificate for who asks, DER
	askApplied = 5 // an index; the answer, that of the last entry applied, comes when that is reached
)

const (
	answerDone    = 0
	answerFailed  = 1
	answerNotHere = 2
)

const (
	// requestTime bounds what a node does for another one.
	requestTime = 10 * time.Second
	// asking is how many requests are on their way to one node at a time: as many
	// connections are kept with it.
	asking = 4
	// awaiting is how many of askApplied are, beside those: they wait, and must not keep
	// a proposal from its way.
	awaiting = 2
	// maxServed is how many connections are served at a time: a dozen nodes have no
	// more than this.
	maxServed = 128
)

// errNotHere: the node that was asked does not lead.
var errNotHere = errors.New("it does not lead the cluster")

func writeFrame(w io.Writer, kind byte, body []byte) error {
	b := make([]byte, 0, requestHead+len(body))
	b = binary.BigEndian.AppendUint32(append(b, kind), uint32(len(body)))
	_, err := w.Write(append(b, body...))
	return err
}

func readFrame(r io.Reader) (kind byte, body []byte, err error) {
	var head [requestHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxBody {
		return 0, nil, fmt.Errorf("a message of %d bytes, at most %d are taken", n, maxBody)
	}
	body = make([]byte, n)
	_, err = io.ReadFull(r, body)
	return head[0], body, err
}

// callers are this node's connections for requests.
type callers struct {
	port *transport.Port

	mu     sync.Mutex
	closed bool
	idle   map[string][]*transport.Conn
	places map[placeKey]chan struct{} // one for each request on its way
}

// placeKey is what places are counted for.
type placeKey struct {
	node  string
	await bool // for askApplied
}

func newCallers(port *transport.Port) *callers {
	return &callers{port: port, idle: map[string][]*transport.Conn{}, places: map[placeKey]chan struct{}{}}
}

// place waits until there are few requests on their way to a node.
func (c *callers) place(ctx context.Context, node string, kind byte) (leave func(), err error) {
	key, most := placeKey{node, kind == askApplied}, asking
	if key.await {
		most = awaiting
	}
	c.mu.Lock()
	places := c.places[key]
	if places == nil {
		places = make(chan struct{}, most)
		c.places[key] = places
	}
	c.mu.Unlock()
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("ask node %s: %w", node, context.Cause(ctx))
	}
}

// ask sends a request to a node, and returns its answer.
func (c *callers) ask(ctx context.Context, node string, kind byte, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	leave, err := c.place(ctx, node, kind)
	if err != nil {
		return nil, err
	}
	defer leave()
	conn, err := c.take(ctx, node)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	status, answer, err := exchange(conn, kind, body)
	if !stop() || err != nil {
		conn.Close()
		return nil, fmt.Errorf("ask node %s: %w", node, errors.Join(err, context.Cause(ctx)))
	}
	c.give(node, conn)
	switch status {
	case answerDone:
		return answer, nil
	case answerNotHere:
		return nil, fmt.Errorf("node %s: %w", node, errNotHere)
	}
	return nil, fmt.Errorf("node %s: %.500s", node, answer)
}

func exchange(conn net.Conn, kind byte, body []byte) (status byte, answer []byte, err error) {
	if err := writeFrame(conn, kind, body); err != nil {
		return 0, nil, err
	}
	return readFrame(conn)
}

func (c *callers) take(ctx context.Context, node string) (*transport.Conn, error) {
	c.mu.Lock()
	if list := c.idle[node]; len(list) > 0 {
		conn := list[len(list)-1]
		c.idle[node] = list[:len(list)-1]
		c.mu.Unlock()
		return conn, nil
	}
	c.mu.Unlock()
	return c.port.Dial(ctx, node, transport.Cluster)
}

func (c *callers) give(node string, conn *transport.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		conn.Close()
		return
	}
	c.idle[node] = append(c.idle[node], conn)
}

// drop closes what is idle with a node: after a failure the others are as dead.
func (c *callers) drop(node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.idle[node] {
		conn.Close()
	}
	delete(c.idle, node)
}

func (c *callers) close() {
	c.mu.Lock()
	c.closed = true
	nodes := make([]string, 0, len(c.idle))
	for node := range c.idle {
		nodes = append(nodes, node)
	}
	c.mu.Unlock()
	for _, node := range nodes {
		c.drop(node)
	}
}

// serve takes connections for requests. It runs as long as the node.
func (n *Node) serve() {
	for {
		conn, err := n.requests.Accept()
		if err != nil {
			return
		}
		c := conn.(*transport.Conn)
		if !n.enter(c) {
			c.Close()
			continue
		}
		n.running.Go(func() {
			defer n.leave(c)
			n.answerAll(c)
		})
	}
}

func (n *Node) enter(c *transport.Conn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ctx.Err() != nil || len(n.mu.conns) >= maxServed {
		return false
	}
	n.mu.conns[c] = true
	return true
}

func (n *Node) leave(c *transport.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.mu.conns, c)
	c.Close()
}

// hangUp closes all connections that are served.
func (n *Node) hangUp() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.mu.conns {
		c.Close()
	}
}

// answerAll serves one connection: one goroutine each.
func (n *Node) answerAll(c *transport.Conn) {
	for {
		kind, body, err := readFrame(c)
		if err != nil {
			return
		}
		ctx, cancel := context.WithTimeout(n.ctx, requestTime)
		answer, err := n.answer(ctx, c, kind, body)
		cancel()
		status := byte(answerDone)
		switch {
		case errors.Is(err, errNotHere):
			status, answer = answerNotHere, nil
		case err != nil:
			status, answer = answerFailed, []byte(err.Error())
		}
		if writeFrame(c, status, answer) != nil {
			return
		}
	}
}

func (n *Node) answer(ctx context.Context, c *transport.Conn, kind byte, body []byte) ([]byte, error) {
	switch kind {
	case askPropose:
		return index(n.commit(body))
	case askSync:
		return index(n.leaderApplied())
	case askMember:
		return index(0, n.changeMember(body))
	case askApplied:
		return index(n.awaitApplied(ctx, body))
	case askRenew:
		return n.cfg.Identity.Renew(c.ConnectionState().PeerCertificates[0], time.Now())
	}
	return nil, fmt.Errorf("it does not know requests of kind %d: install the same version at all nodes", kind)
}

func index(i uint64, err error) ([]byte, error) {
	return binary.BigEndian.AppendUint64(nil, i), err
}
