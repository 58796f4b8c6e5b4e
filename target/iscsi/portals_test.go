package iscsi

import (
	"net"
	"net/netip"
	"testing"
)

// TestPortalReached: what an initiator that has reached us at an address is told of a
// portal.
func TestPortalReached(t *testing.T) {
	const v4, v6 = "192.0.2.1", "2001:db8::1"
	for _, c := range []struct{ portal, local, want string }{
		{"198.51.100.7:3260", v4, "198.51.100.7:3260"},
		{"198.51.100.7:3260", v6, "198.51.100.7:3260"},
		{"[2001:DB8:0::7]:3260", v4, "[2001:db8::7]:3260"},
		{"[::1]:13260", v4, ""},
		{"127.0.0.2:13260", v6, ""},
		{"[::1]:13260", "127.0.0.1", "[::1]:13260"},
		{"127.0.0.2:13260", "::1", "127.0.0.2:13260"},
		{"127.0.0.2:13260", "", "127.0.0.2:13260"},
		{"disks.example.com:3260", v6, "disks.example.com:3260"},
		{"0.0.0.0:3260", v4, "192.0.2.1:3260"},
		{"0.0.0.0:3260", v6, ""},
		{"[::]:3260", v6, "[2001:db8::1]:3260"},
		{"[::]:3260", v4, "192.0.2.1:3260"},
		{":3260", v4, "192.0.2.1:3260"},
		{":3260", v6, "[2001:db8::1]:3260"},
		{":3260", "", ""},
	} {
		p := Portal{c.portal, 1}
		if err := p.check(); err != nil {
			t.Error(err)
		}
		local, _ := netip.ParseAddr(c.local)
		if got, ok := p.reached(local); got != c.want && ok || ok != (c.want != "") {
			t.Errorf("%s reached at %s: %q, %v, not %q", c.portal, c.local, got, ok, c.want)
		}
	}
	for _, bad := range []string{"", "192.0.2.1", "::1:3260", "[::1]", "a,b:3260", "a b:3260", "192.0.2.1:iscsi", "192.0.2.1:65536", "[fe80::1%eth0]:3260"} {
		if err := (&Portal{Address: bad}).check(); err == nil {
			t.Errorf("portal %q is let through", bad)
		}
	}
}

func TestAppendTarget(t *testing.T) {
	target := &Target{Name: testIQN, Portals: []Portal{{":3260", 1}, {"192.0.2.1:3260", 1}, {"192.0.2.1:3260", 2}, {"[::1]:3260", 2}, {"[2001:db8::1]:3260", 2}}}
	want := keys("TargetName="+testIQN, "TargetAddress=192.0.2.1:3260,1", "TargetAddress=192.0.2.1:3260,2", "TargetAddress=[2001:db8::1]:3260,2")
	if got := appendTarget(nil, target, netip.MustParseAddr("192.0.2.1")); string(got) != string(want) {
		t.Errorf("%q", got)
	}
}

// TestReachedOverIPv6 discovers by way of both kinds of addresses what listens on all
// of them.
func TestReachedOverIPv6(t *testing.T) {
	r := newRig(t, Limits{}, func(c *Config) { c.Targets[0].Portals = []Portal{{"[::]:3260", 7}} })
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("there is no IPv6 here: ", err)
	}
	served := make(chan error, 1)
	go func() { served <- r.srv.Serve(l) }()
	for address, want := range map[string]string{r.addr: "127.0.0.1:3260,7", l.Addr().String(): "[::1]:3260,7"} {
		r.addr = address
		i := r.dial()
		i.isid[5] = byte(len(want))
		i.login()
		if got := i.text(keys("SendTargets=")); string(got) != string(keys("TargetName="+testIQN, "TargetAddress="+want)) {
			t.Errorf("by way of %s: %q", address, got)
		}
		i.logout()
	}
	l.Close()
	<-served
}
