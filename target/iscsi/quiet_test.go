package iscsi

import (
	"net"
	"net/netip"
	"testing"
	"time"
)

func TestQuiet(t *testing.T) {
	var q quiet
	now := time.Unix(1000, 0)
	one, two := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	said := func(host netip.Addr, n int) (lines int) {
		for range n {
			if _, ok := q.allow(host, now); ok {
				lines++
			}
		}
		return lines
	}
	if n := said(one, 100); n != quietBurst {
		t.Errorf("%d lines of 100 at once", n)
	}
	if n := said(two, 3); n != 3 {
		t.Errorf("%d lines of 3 of another host", n)
	}
	now = now.Add(quietEvery)
	if skipped, ok := q.allow(one, now); !ok || skipped != 100-quietBurst {
		t.Errorf("after a while: %v, with %d left out before", ok, skipped)
	}
	if n := said(one, 5); n != 0 {
		t.Errorf("%d lines more", n)
	}
	now = now.Add(quietBurst * quietEvery)
	if n := said(one, 100); n != quietBurst {
		t.Errorf("%d lines of 100 at once, later", n)
	}
}

// TestQuietManyHosts share an allowance, and are forgotten when they are silent.
func TestQuietManyHosts(t *testing.T) {
	var q quiet
	now := time.Unix(1000, 0)
	said := 0
	host := netip.MustParseAddr("10.0.0.0")
	for range 10 * quietHosts {
		host = host.Next()
		if _, ok := q.allow(host, now); ok {
			said++
		}
	}
	if said != quietHosts+quietBurst || len(q.hosts) != quietHosts {
		t.Errorf("%d lines, %d hosts", said, len(q.hosts))
	}
	now = now.Add(time.Hour)
	if _, ok := q.allow(host, now); !ok || len(q.hosts) != 1 {
		t.Errorf("an hour later: %v, %d hosts", ok, len(q.hosts))
	}
}

// addressed is a connection that came from an address.
type addressed struct {
	net.Conn
	from string
}

func (a *addressed) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(a.from), 1000))
}

func TestStrangers(t *testing.T) {
	s := newStrangers()
	l := &Limits{MaxLogins: 5, MaxLoginsPerHost: 2}
	var in []net.Conn
	for _, c := range []struct {
		from string
		in   bool
	}{
		{"192.0.2.1", true}, {"192.0.2.1", true}, {"192.0.2.1", false}, {"::ffff:192.0.2.1", false},
		{"2001:db8::1", true}, {"2001:db8::ffff:1", true}, {"2001:db8::2", false}, {"2001:db8:0:1::2", true},
		{"192.0.2.2", false}, // five in all
	} {
		conn := &addressed{from: c.from}
		if why := s.add(conn, l); (why == "") != c.in {
			t.Errorf("%s: %q", c.from, why)
		} else if why == "" {
			in = append(in, conn)
		}
	}
	for range 2 {
		s.remove(in[0])
	}
	if why := s.add(&addressed{from: "192.0.2.1"}, l); why != "" {
		t.Errorf("after one has left: %s", why)
	}
	if why := s.add(&addressed{from: "192.0.2.1"}, l); why == "" {
		t.Error("one that leaves makes room for two")
	}
}
