package iscsi

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

func (p *Portal) check() error {
	host, port, err := net.SplitHostPort(p.Address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil || strings.ContainsAny(host, ", \x00") || strings.Contains(host, "%") || len(p.Address) > maxValue-len(",65535") {
		return fmt.Errorf("portal %q is no address; use host:port, or [host]:port with an IPv6 address", p.Address)
	}
	return nil
}

// reached gives the portal the address that an initiator is to be told (RFC 7143
// section 13.8), when it has reached us at local. False: none; a portal on all
// addresses of one kind is not where an initiator of the other kind gets through, and a
// loopback address not where one gets that came from outside: it would try in vain until
// it gives up, and that for each of them.
func (p *Portal) reached(local netip.Addr) (string, bool) {
	host, port, err := net.SplitHostPort(p.Address)
	if err != nil {
		return "", false // check has looked at it
	}
	a, err := netip.ParseAddr(host)
	switch {
	case host == "" || err == nil && a.IsUnspecified() && a.Is6():
		return net.JoinHostPort(local.String(), port), local.IsValid()
	case err == nil && a.IsUnspecified():
		return net.JoinHostPort(local.String(), port), local.Is4()
	case err == nil && a.IsLoopback() && local.IsValid() && !local.IsLoopback():
		return "", false
	case err == nil:
		return net.JoinHostPort(a.String(), port), true
	}
	return p.Address, true // a name
}

// appendTarget appends a target's name and portals as SendTargets reports them (RFC
// 7143 appendix C), each address once.
func appendTarget(out []byte, t *Target, local netip.Addr) []byte {
	out = appendPair(out, "TargetName", t.Name)
	told := make(map[string]bool, len(t.Portals))
	for i := range t.Portals {
		address, ok := t.Portals[i].reached(local)
		if value := address + "," + strconv.Itoa(int(t.Portals[i].Group)); ok && !told[value] {
			told[value] = true
			out = appendPair(out, "TargetAddress", value)
		}
	}
	return out
}

// localAddress is the address that an initiator has reached; invalid: it is none of
// IP. A zone means something to this machine only, and is left out.
func localAddress(conn net.Conn) netip.Addr {
	if a, ok := conn.LocalAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// remoteAddress is the same of the initiator.
func remoteAddress(conn net.Conn) netip.Addr {
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}
