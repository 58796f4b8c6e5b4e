package transport

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/twinlun/twinlun/cluster/identity"
)

// Config says who this node is, and whom it talks to.
type Config struct {
	Node *identity.Node
	// Allowed is the catalog's word on a node that has proven its name and key: nil, or
	// why it must not be talked to. It does not block, and may be called from any
	// goroutine. Recheck is called when it has changed its mind.
	Allowed func(identity.Peer) error
	// Addresses are a node's, host:port; all are tried.
	Addresses func(node string) []string
	// Join answers a request to join; the error is for the log. nil: nobody can join
	// here.
	Join   func(ctx context.Context, request []byte) (answer []byte, err error)
	Limits Limits
	Log    *slog.Logger // nil: slog.Default()
}

// Limits bound what those can make this node spend that have not proven who they are.
// Zero values stand for the defaults.
type Limits struct {
	Strangers int           // connections without a proven node at the other end; 0: 64
	PerHost   int           // of these, from one IPv4 address or IPv6 /64; 0: 16
	Handshake time.Duration // from the connection to its proof; also when dialing; 0: 5 s
	Bytes     int           // that may come until then; 0: 16 KiB, three times what nodes send
	Joins     int           // requests to join at a time; 0: 4
	JoinTime  time.Duration // for one; 0: 15 s
}

func (l Limits) complete() Limits {
	setDefault(&l.Strangers, 64)
	setDefault(&l.PerHost, 16)
	setDefault(&l.Handshake, 5*time.Second)
	setDefault(&l.Bytes, 16<<10)
	setDefault(&l.Joins, 4)
	setDefault(&l.JoinTime, 15*time.Second)
	return l
}

func setDefault[T comparable](v *T, def T) {
	if *v == *new(T) {
		*v = def
	}
}

// Port is this node's end of all connections with other nodes.
type Port struct {
	// Fixed by New.
	cfg       Config
	log       refusals
	strangers *strangers
	joins     chan struct{} // a place for each request to join
	ctx       context.Context
	cancel    context.CancelFunc
	running   sync.WaitGroup // serve and greet

	mu struct {
		sync.Mutex
		closed    bool
		sockets   []net.Listener
		listeners map[listenKey]*Listener
		conns     map[*Conn]struct{}
	}
}

// New makes a port that listens nowhere yet.
func New(cfg Config) *Port {
	cfg.Limits = cfg.Limits.complete()
	setDefault(&cfg.Log, slog.Default())
	p := &Port{
		cfg:       cfg,
		strangers: &strangers{max: cfg.Limits.Strangers, perHost: cfg.Limits.PerHost},
		joins:     make(chan struct{}, cfg.Limits.Joins),
	}
	p.log.Logger = cfg.Log.With("node", cfg.Node.Name())
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.mu.listeners, p.mu.conns = map[listenKey]*Listener{}, map[*Conn]struct{}{}
	return p
}

// Serve takes connections from a TCP listener, until the port or the listener is
// closed, and returns why. It may be called for several listeners.
func (p *Port) Serve(ln net.Listener) error {
	p.mu.Lock()
	if p.mu.closed {
		p.mu.Unlock()
		return errors.Join(net.ErrClosed, ln.Close())
	}
	p.mu.sockets = append(p.mu.sockets, ln)
	p.running.Add(1)
	p.mu.Unlock()
	defer p.running.Done()
	for {
		conn, err := ln.Accept()
		switch {
		case err == nil:
			p.strangers.add(conn)
			p.running.Go(func() { p.greet(conn) })
		case errors.Is(err, net.ErrClosed):
			return err
		default: // out of descriptors or memory: passes
			p.log.refused("no connection can be taken", err)
			p.pause(acceptPause)
		}
	}
}

// acceptPause keeps a node that has no descriptors left from using up a processor.
const acceptPause = 50 * time.Millisecond

func (p *Port) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-p.ctx.Done():
	}
}

// Addr is where the port listens; nil: nowhere.
func (p *Port) Addr() net.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.mu.sockets) == 0 {
		return nil
	}
	return p.mu.sockets[0].Addr()
}

// Recheck closes the connections with nodes that Allowed no longer allows. It is
// called after the list of nodes has changed: a connection that is being made
// meanwhile is looked at again before anybody gets it.
func (p *Port) Recheck() {
	for _, c := range p.conns() {
		if err := p.cfg.Allowed(c.peer); err != nil {
			p.log.Warn("a connection is closed", "peer", c.peer, "protocol", c.protocol, "reason", err)
			c.Close()
		}
	}
}

func (p *Port) conns() []*Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]*Conn, 0, len(p.mu.conns))
	for c := range p.mu.conns {
		all = append(all, c)
	}
	return all
}

// enter takes in a connection whose handshake is over, so that Recheck sees it, and
// then asks once more whether the node is allowed: it may have been removed since.
func (p *Port) enter(c *Conn) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed {
		return net.ErrClosed
	}
	if err := p.cfg.Allowed(c.peer); err != nil {
		return refusedPeer(c.peer, err)
	}
	p.mu.conns[c] = struct{}{}
	return nil
}

func (p *Port) leave(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.mu.conns, c)
}

// Close ends everything: no goroutine of the port is left, and no connection.
func (p *Port) Close() error {
	p.mu.Lock()
	p.mu.closed = true
	sockets, listeners := p.mu.sockets, make([]*Listener, 0, len(p.mu.listeners))
	for _, l := range p.mu.listeners {
		listeners = append(listeners, l)
	}
	p.mu.Unlock()
	p.cancel()
	var errs []error
	for _, ln := range sockets {
		if err := ln.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	for _, l := range listeners {
		l.Close()
	}
	for _, c := range p.conns() {
		c.Close()
	}
	p.running.Wait()
	return errors.Join(errs...)
}
