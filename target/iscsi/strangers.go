package iscsi

import (
	"net"
	"net/netip"
)

// strangers are the connections that are not logged in. The server's lock guards
// them.
type strangers struct {
	conns  map[net.Conn]netip.Addr
	byHost map[netip.Addr]int
}

func newStrangers() strangers {
	return strangers{conns: map[net.Conn]netip.Addr{}, byHost: map[netip.Addr]int{}}
}

// hostOf is what counts as one host: an IPv4 address, or an IPv6 network of 64 bits,
// of which one host can have all addresses (RFC 4291 section 2.5.4).
func hostOf(a netip.Addr) netip.Addr {
	if !a.Is6() {
		return a
	}
	p, _ := a.Prefix(64) // fails for longer prefixes only
	return p.Addr()
}

// add lets a connection in, or says why not.
func (s *strangers) add(conn net.Conn, l *Limits) (refused string) {
	host := hostOf(remoteAddress(conn))
	switch {
	case len(s.conns) >= l.MaxLogins:
		return "too many connections are not logged in"
	case s.byHost[host] >= l.MaxLoginsPerHost:
		return "too many connections of this host are not logged in"
	}
	s.conns[conn] = host
	s.byHost[host]++
	return ""
}

// remove forgets a connection that has logged in, or is closed. Again, it does
// nothing.
func (s *strangers) remove(conn net.Conn) {
	host, ok := s.conns[conn]
	if !ok {
		return
	}
	delete(s.conns, conn)
	if s.byHost[host]--; s.byHost[host] == 0 {
		delete(s.byHost, host)
	}
}
