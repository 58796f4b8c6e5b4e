package transport

import (
	"net"
	"net/netip"
	"slices"
	"sync"
)

// strangers are the connections whose other end has not proven to be a node. When
// there are too many, the oldest one goes, of the host that has most: a node is done
// after two round trips, whoever dawdles is closed first, and a host that opens many
// connections closes its own.
type strangers struct {
	max, perHost int

	mu   sync.Mutex
	list []stranger // oldest first
}

type stranger struct {
	conn net.Conn
	host netip.Addr
}

// add lets a connection in.
func (s *strangers) add(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	host := hostOf(conn.RemoteAddr())
	if s.countLocked(host) >= s.perHost {
		s.evictLocked(host)
	} else if len(s.list) >= s.max {
		s.evictLocked(s.mostLocked())
	}
	s.list = append(s.list, stranger{conn, host})
}

// remove forgets a connection, which is closed, or has a node at its other end. false:
// it was evicted.
func (s *strangers) remove(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(s.list)
	s.list = slices.DeleteFunc(s.list, func(x stranger) bool { return x.conn == conn })
	return len(s.list) < before
}

func (s *strangers) countLocked(host netip.Addr) (n int) {
	for _, x := range s.list {
		if x.host == host {
			n++
		}
	}
	return n
}

// mostLocked is the host with most connections; of equal ones that with the oldest.
func (s *strangers) mostLocked() (host netip.Addr) {
	most := 0
	for _, x := range s.list {
		if n := s.countLocked(x.host); n > most {
			most, host = n, x.host
		}
	}
	return host
}

func (s *strangers) evictLocked(host netip.Addr) {
	i := slices.IndexFunc(s.list, func(x stranger) bool { return x.host == host })
	s.list[i].conn.Close()
	s.list = slices.Delete(s.list, i, i+1)
}

// hostOf is what counts as one host: an IPv4 address, or an IPv6 network of 64 bits,
// of which one host can have all addresses (RFC 4291 section 2.5.4).
func hostOf(a net.Addr) netip.Addr {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{} // no TCP; all of them are one host
	}
	ip := ap.Addr().Unmap().WithZone("")
	if !ip.Is6() {
		return ip
	}
	p, _ := ip.Prefix(64) // fails for longer prefixes only
	return p.Addr()
}
