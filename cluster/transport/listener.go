package transport

import (
	"fmt"
	"net"
	"sync"
)

// backlog is how many connections may wait for a Listener's Accept: those of a link
// with all its streams, several times.
const backlog = 64

// Listener gives the connections of some protocols, from one node or from all. It is
// a net.Listener whose connections are each a *Conn.
type Listener struct {
	port  *Port
	keys  []listenKey
	queue chan *Conn
	done  chan struct{}
	once  sync.Once
}

// listenKey is what a Listener is for.
type listenKey struct {
	protocol Protocol
	node     string // "": all that have none of their own
}

// Listen takes what comes from a node ("": from all nodes) in these protocols.
func (p *Port) Listen(node string, protocols ...Protocol) (*Listener, error) {
	l := &Listener{port: p, queue: make(chan *Conn, backlog), done: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, protocol := range protocols {
		key := listenKey{protocol, node}
		if p.mu.listeners[key] != nil {
			return nil, fmt.Errorf("transport: somebody listens already for %s from node %q", protocol, node)
		}
		l.keys = append(l.keys, key)
	}
	if p.mu.closed {
		return nil, fmt.Errorf("transport: listen for %v: %w", protocols, net.ErrClosed)
	}
	for _, key := range l.keys {
		p.mu.listeners[key] = l
	}
	return l, nil
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, fmt.Errorf("transport: accept: %w", net.ErrClosed)
	}
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return l.port.Addr() }

// Close ends Accept, and closes what waits for it.
func (l *Listener) Close() error {
	l.once.Do(func() {
		l.port.forget(l)
		close(l.done)
		for {
			select {
			case c := <-l.queue:
				c.Close()
			default:
				return
			}
		}
	})
	return nil
}

// forget lets no more connections come to a listener.
func (p *Port) forget(l *Listener) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, key := range l.keys {
		if p.mu.listeners[key] == l {
			delete(p.mu.listeners, key)
		}
	}
}

// listenerLocked is who takes a connection; nil: nobody.
func (p *Port) listenerLocked(c *Conn) *Listener {
	if l := p.mu.listeners[listenKey{c.protocol, c.peer.Node}]; l != nil {
		return l
	}
	return p.mu.listeners[listenKey{c.protocol, ""}]
}

// wanted tells whether somebody takes a connection, if it comes now.
func (p *Port) wanted(c *Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.listenerLocked(c) != nil
}

// deliver gives a connection to whoever listens for it. false: nobody does, or too
// many wait. It holds the lock that forget takes: nothing comes after Close has
// emptied the queue.
func (p *Port) deliver(c *Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.listenerLocked(c)
	if l == nil {
		return false
	}
	select {
	case l.queue <- c:
		return true
	default:
		return false
	}
}
