package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/twinlun/twinlun/cluster/identity"
)

// welcome is the first byte of an accepted connection, from the node that accepts. In
// TLS 1.3 the dialer is done before the other one has looked at its certificate.
const welcome = 'W'

// baseConfig is what both ends want.
func (p *Port) baseConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// Another handshake is worth nothing here, and a ticket outlives a removal.
		SessionTicketsDisabled: true,
		// The other choice makes small records after every pause, for browsers.
		DynamicRecordSizingDisabled: true,
	}
}

// greetConfig is for whoever connects: nodes with their certificate, or somebody who
// wants to join.
func (p *Port) greetConfig() *tls.Config {
	c := p.baseConfig()
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		switch {
		case len(hello.SupportedProtos) == 0:
			return nil, errors.New("no protocol is asked for: this is no twinlun node")
		case isJoin(hello.SupportedProtos):
			return p.joinConfig(), nil
		}
		return p.nodeConfig(), nil
	}
	return c
}

func (p *Port) nodeConfig() *tls.Config {
	c := p.baseConfig()
	c.NextProtos = between
	c.Certificates = []tls.Certificate{*p.cfg.Node.Certificate()}
	c.ClientAuth = tls.RequireAndVerifyClientCert
	c.ClientCAs = p.cfg.Node.Roots()
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		_, err := p.proven(cs)
		return err
	}
	return c
}

func (p *Port) joinConfig() *tls.Config {
	c := p.baseConfig()
	c.NextProtos = []string{string(Join)}
	c.Certificates = []tls.Certificate{*p.cfg.Node.Certificate()}
	return c
}

// proven says who is at the other end. crypto/tls has checked the chain before.
func (p *Port) proven(cs tls.ConnectionState) (peer identity.Peer, err error) {
	if len(cs.PeerCertificates) == 0 || len(cs.VerifiedChains) == 0 {
		return peer, errors.New("the other end has shown no certificate")
	}
	if peer, err = p.cfg.Node.PeerOf(cs.PeerCertificates[0]); err != nil {
		return peer, err
	}
	if peer.Node == p.cfg.Node.Name() {
		return peer, fmt.Errorf("the other end is %s, too: two nodes have one identity, or a node is talking to itself", peer.Node)
	}
	if err := p.cfg.Allowed(peer); err != nil {
		return peer, refusedPeer(peer, err)
	}
	return peer, nil
}

func refusedPeer(peer identity.Peer, err error) error {
	return fmt.Errorf("node %v is not talked to: %w", peer, err)
}

// greet takes in one connection: one goroutine of Serve's each.
func (p *Port) greet(conn net.Conn) {
	err := p.greetAs(conn)
	if err != nil {
		conn.Close()
		p.log.refused("a connection was refused", fmt.Errorf("from %v: %w", conn.RemoteAddr(), err))
	}
}

func (p *Port) greetAs(conn net.Conn) error {
	defer p.strangers.remove(conn)
	conn.SetDeadline(time.Now().Add(p.cfg.Limits.Handshake))
	s := newSocket(conn, p.cfg.Limits.Bytes)
	c := tls.Server(s, p.greetConfig())
	if err := c.HandshakeContext(p.ctx); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	protocol := Protocol(c.ConnectionState().NegotiatedProtocol)
	if protocol == Join {
		return p.serveJoin(c)
	}
	peer, err := p.proven(c.ConnectionState())
	if err != nil {
		return err
	}
	if !p.strangers.remove(conn) {
		return errors.New("too many connections of its kind are in their handshake")
	}
	return p.admit(newConn(c, s, peer, protocol, p.leave))
}

// admit tells a node that it is welcome, and gives its connection to whoever listens.
func (p *Port) admit(c *Conn) (err error) {
	nobody := fmt.Errorf("%s from %v: nobody takes it now", c.protocol, c.peer)
	if !p.wanted(c) {
		return nobody
	}
	if err := p.enter(c); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	if _, err := c.Write([]byte{welcome}); err != nil {
		return fmt.Errorf("welcome %v: %w", c.peer, err)
	}
	c.SetDeadline(time.Time{})
	if !p.deliver(c) {
		return nobody
	}
	return nil
}

// refusals keeps strangers from filling the log.
type refusals struct {
	*slog.Logger

	mu   sync.Mutex
	last time.Time // of the last warning
}

// refusalsEvery is how often somebody who is refused is worth a warning.
const refusalsEvery = 30 * time.Second

func (r *refusals) refused(text string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	level := slog.LevelDebug
	if now := time.Now(); r.last.IsZero() || now.Sub(r.last) >= refusalsEvery {
		r.last, level = now, slog.LevelWarn
	}
	r.Log(context.Background(), level, text, "error", err)
}
