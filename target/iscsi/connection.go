package iscsi

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"
)

// connection is a TCP connection until it is logged in. Its goroutine becomes
// the session's reader.
type connection struct {
	srv      *Server
	log      *slog.Logger
	conn     net.Conn
	via      net.Listener  // that has taken it
	received atomic.Uint64 // bytes
	inlet    *inlet
	in       *stream
	writer   *writer
	seq      *sequenceNumbers
}

func newConnection(srv *Server, conn net.Conn, via net.Listener) *connection {
	c := &connection{srv: srv, conn: conn, via: via, seq: &sequenceNumbers{}}
	c.log = srv.log.With("peer", conn.RemoteAddr().String())
	c.inlet = newInlet(conn, &c.received)
	c.in = newLoginStream(c.inlet)
	c.writer = newWriter(conn, srv.cfg.Limits.LoginTimeout, c.seq)
	return c
}

// login logs the connection in, within the time for that, and returns the
// session, which is registered, or why there is none.
func (c *connection) login(l *login) (*session, error) {
	if err := c.conn.SetReadDeadline(time.Now().Add(c.srv.cfg.Limits.LoginTimeout)); err != nil {
		return nil, err
	}
	for {
		s, err := c.loginStep(l)
		if s != nil {
			c.in.grow()
			// If the response could not be sent, the session ends at its first read.
			c.writer.timeout = c.srv.cfg.Limits.WriteTimeout
			return s, c.conn.SetReadDeadline(s.deadline(time.Now()))
		}
		if err != nil {
			return nil, err
		}
	}
}

// loginStep takes one request and answers it; with the last one it returns the
// session.
func (c *connection) loginStep(l *login) (*session, error) {
	q, data, err := c.readLogin(l)
	if err != nil {
		return nil, err
	}
	if !l.started {
		c.writer.statSN = q.expStatSN
	}
	c.seq.exp.Store(q.cmdSN)
	c.seq.max.Store(q.cmdSN + uint32(c.srv.cfg.Limits.CommandWindow) - 1)
	r, text, err := l.step(q, data)
	if err == nil {
		err = c.checkTSIH(l)
	}
	var s *session
	if err == nil && l.stage == stageFullFeature {
		if s, err = c.srv.open(c, l); err == nil {
			r.tsih = s.tsih
		}
	}
	return s, c.respond(r, text, err)
}

// checkTSIH refuses second connections of a session, and sessions that are not
// there, or not the initiator's (RFC 7143 section 6.3.3). Who has not proved itself
// is told nothing of that.
func (c *connection) checkTSIH(l *login) error {
	switch s := c.srv.sessions.get(l.first.tsih); {
	case l.first.tsih == 0 || !l.authenticated():
		return nil
	case s != nil && sameTarget(s.target, l.target) && s.port == l.port():
		if l.first.cid == s.cid {
			return nil // takes the place of the one that there is
		}
		return refuse(loginTooMany, "a session has one connection here")
	}
	return refuse(loginNoSession, "the initiator has no session with TSIH %d", l.first.tsih)
}

// readLogin reads a login request. What else comes before the login is complete is
// answered if a login was begun, and not if it may be anything (RFC 7143 section
// 11.13.5).
func (c *connection) readLogin(l *login) (q loginRequest, data []byte, err error) {
	if err := c.in.next(); err != nil {
		return q, nil, err
	}
	h := &c.in.header
	switch {
	case h.opcode() != opLogin && l.started:
		r := loginResponse{stage: l.stage, isid: l.first.isid, tag: l.first.tag}
		return q, nil, c.respond(r, nil, refuse(loginNoLogin, "PDU %#02x during the login", h.opcode()))
	case h.opcode() != opLogin || !h.immediate():
		return q, nil, fmt.Errorf("PDU %#02x during login: %w", h[0], errFormat)
	}
	data = make([]byte, c.in.left)
	if err := c.in.read(data); err != nil {
		return q, nil, err
	}
	return parseLoginRequest(h), data, c.in.finish()
}

// respond sends a login response. With an err, that is what the response says,
// and it is returned.
func (c *connection) respond(r loginResponse, text []byte, err error) error {
	var e *loginError
	if errors.As(err, &e) {
		r.status, r.transit, text = e.status, false, nil
	} else if err != nil {
		r.status, r.transit, text = loginTargetError, false, nil
	}
	r.put(&c.writer.header)
	c.writer.put(text, true)
	c.writer.flush()
	if err == nil {
		err = c.writer.err
	}
	return err
}
