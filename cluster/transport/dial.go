package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// nextAddress is how long an address may be silent before the next one is tried
// beside it (as RFC 8305 section 5 has it).
const nextAddress = 250 * time.Millisecond

// ErrRefused: the other node does not talk to this one.
var ErrRefused = errors.New("it refuses this node: it was removed from the cluster or given up, its certificate has ended, or the clocks of the two are far apart; the log of that node says which")

// Dial opens a connection with a node. It returns one that the other node has
// accepted, too. All of the node's addresses are tried, the first that answers is
// taken.
func (p *Port) Dial(ctx context.Context, node string, protocol Protocol) (*Conn, error) {
	addresses := p.cfg.Addresses(node)
	c, err := race(ctx, addresses, func(ctx context.Context, address string) (*Conn, error) {
		return p.dial(ctx, node, address, protocol)
	})
	if err != nil {
		return nil, fmt.Errorf("connect with node %s: %w", node, err)
	}
	return c, nil
}

// dialed is what became of one address.
type dialed struct {
	conn *Conn
	err  error
}

// race tries addresses one after the other, without waiting for one that is silent.
func race(ctx context.Context, addresses []string, dial func(context.Context, string) (*Conn, error)) (*Conn, error) {
	if len(addresses) == 0 {
		return nil, errors.New("it has no address")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan dialed)
	start := func(address string) {
		c, err := dial(ctx, address)
		select {
		case results <- dialed{c, err}:
		case <-ctx.Done():
			if err == nil {
				c.Close() // another one was faster
			}
		}
	}
	var errs []error
	next := time.NewTimer(0)
	defer next.Stop()
	for started := 0; ; {
		select {
		case <-next.C:
			if started < len(addresses) {
				go start(addresses[started])
				started++
				next.Reset(nextAddress)
			}
		case r := <-results:
			if r.err == nil {
				return r.conn, nil
			}
			if errs = append(errs, r.err); len(errs) == len(addresses) {
				return nil, errors.Join(errs...)
			}
			next.Reset(0)
		case <-ctx.Done():
			return nil, errors.Join(append(errs, context.Cause(ctx))...)
		}
	}
}

// dial opens a connection with one address.
func (p *Port) dial(ctx context.Context, node, address string, protocol Protocol) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Limits.Handshake)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	c, err := p.shake(conn, node, protocol)
	if err == nil && !stop() {
		err = context.Cause(ctx)
	}
	if err == nil {
		err = p.enter(c)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("%s at %s: %w", protocol, address, errors.Join(err, context.Cause(ctx)))
	}
	return c, nil
}

// shake proves both ends to each other, and waits for the welcome. The caller limits
// its time.
func (p *Port) shake(conn net.Conn, node string, protocol Protocol) (*Conn, error) {
	s := newSocket(conn, p.cfg.Limits.Bytes)
	c := tls.Client(s, p.dialConfig(node, protocol))
	if err := c.Handshake(); err != nil {
		return nil, fmt.Errorf("handshake: %w", explained(err))
	}
	peer, err := p.proven(c.ConnectionState())
	if err != nil {
		return nil, err
	}
	if got := c.ConnectionState().NegotiatedProtocol; got != string(protocol) {
		return nil, fmt.Errorf("it speaks %q instead: install the same version at all nodes", got)
	}
	var first [1]byte
	if _, err := c.Read(first[:]); err != nil {
		return nil, explained(err)
	}
	if first[0] != welcome {
		return nil, fmt.Errorf("it says %#x instead of welcome", first[0])
	}
	return newConn(c, s, peer, protocol, p.leave), nil
}

func (p *Port) dialConfig(node string, protocol Protocol) *tls.Config {
	c := p.baseConfig()
	c.NextProtos = []string{string(protocol)}
	c.ServerName = p.cfg.Node.Cluster().ServerName(node)
	c.RootCAs = p.cfg.Node.Roots()
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return p.cfg.Node.Certificate(), nil
	}
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		_, err := p.proven(cs)
		return err
	}
	return c
}

// explained adds what an operator can do about the other node's refusal, of which TLS
// says only a word.
func explained(err error) error {
	if remote := new(net.OpError); errors.As(err, &remote) && remote.Op == "remote error" {
		return fmt.Errorf("%w (%w)", ErrRefused, err)
	}
	if errors.Is(err, io.EOF) {
		return errors.New("it has closed the connection: it is not ready for this, or too busy")
	}
	return err
}
