package iscsi

import (
	"io"
	"net"
	"time"
)

// Bounds of how a refused connection lingers: for a round trip to a host far away; for
// what that may have sent before it knew; and few at a time. More are closed at once.
const (
	lingerTime     = time.Second
	lingerBytes    = 64 << 10
	maxLingers     = 16
	maxHostLingers = 4
)

// linger lets an initiator that was refused take the reason: if a connection is closed
// while there is something to be read, the system resets it, and what was sent before may
// be lost. It takes no place from connections that may still log in.
func (s *Server) linger(conn net.Conn) {
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok || !s.mayLinger(conn) {
		return
	}
	defer s.lingered(conn)
	if half.CloseWrite() != nil || conn.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, conn, lingerBytes)
}

func (s *Server) mayLinger(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.strangers.remove(conn)
	limits := Limits{MaxLogins: maxLingers, MaxLoginsPerHost: maxHostLingers}
	return !s.closing && s.refused.add(conn, &limits) == ""
}

func (s *Server) lingered(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused.remove(conn)
}
