package iscsi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

const hostName = "InitiatorName=iqn.2024-01.com.example:host"

func TestLoginThroughBothStages(t *testing.T) {
	i := newRig(t, Limits{}).dial()
	i.send(i.loginHeader(stageSecurity, stageOperational, true),
		keys(hostName, "TargetName="+testIQN, "SessionType=Normal", "AuthMethod=CHAP,None"))
	r := i.recv(opLoginResp)
	want := keys("TargetAlias=a disk", "TargetPortalGroupTag=1", "AuthMethod=None")
	if !bytes.Equal(r.data, want) || r.header[1] != bitFinal|stageOperational || r.u16(36) != 0 || r.u32(24) != i.expSN {
		t.Fatalf("security: % x %q", r.header, r.data)
	}
	i.send(i.loginHeader(stageOperational, stageFullFeature, false), keys("HeaderDigest=None", "Foo=1"))
	r = i.recv(opLoginResp)
	if want := keys("HeaderDigest=None", "Foo=NotUnderstood", "MaxRecvDataSegmentLength=262144"); !bytes.Equal(r.data, want) || r.flag(bitFinal) || r.u16(14) != 0 {
		t.Fatalf("operational: % x %q", r.header, r.data)
	}
	i.send(i.loginHeader(stageOperational, stageFullFeature, true), nil)
	r = i.recv(opLoginResp)
	if r.header[1] != bitFinal|stageOperational<<2|stageFullFeature || r.u16(14) == 0 || len(r.data) != 0 {
		t.Fatalf("transit: % x %q", r.header, r.data)
	}
	if r.u32(28) != i.cmdSN || r.u32(32) != i.cmdSN+127 {
		t.Fatalf("command window from %d to %d", r.u32(28), r.u32(32))
	}
	i.echo()
}

func TestLoginFromSecurityStraightOn(t *testing.T) {
	i := newRig(t, Limits{}).dial()
	i.send(i.loginHeader(stageSecurity, stageFullFeature, true), keys(hostName, "TargetName="+testIQN))
	if r := i.recv(opLoginResp); r.u16(36) != 0 || r.header[1] != bitFinal|stageFullFeature {
		t.Fatalf("% x", r.header)
	}
	i.echo()
}

func TestLoginTextInPieces(t *testing.T) {
	i := newRig(t, Limits{}).dial()
	text := keys(hostName, "TargetName="+testIQN, "InitialR2T=No")
	h := i.loginHeader(stageOperational, 0, false)
	h[1] |= bitContinue
	for _, piece := range [][]byte{text[:10], text[10:60]} {
		i.send(h, piece)
		if r := i.recv(opLoginResp); r.flag(bitFinal) || len(r.data) != 0 || r.u16(36) != 0 {
			t.Fatalf("answer to a piece: % x %q", r.header, r.data)
		}
	}
	i.send(i.loginHeader(stageOperational, stageFullFeature, true), text[60:])
	if r := i.recv(opLoginResp); !bytes.Contains(r.data, []byte("InitialR2T=No\x00")) || !r.flag(bitFinal) {
		t.Fatalf("% x %q", r.header, r.data)
	}
	i.echo()
}

// TestLoginRefused has a status for everything that can be wrong.
func TestLoginRefused(t *testing.T) {
	r := newRig(t, Limits{})
	session := r.login()
	target := "TargetName=" + testIQN
	full := keys(hostName, target)
	for _, c := range []struct {
		name   string
		change func(h *header)
		secure bool // in the security stage
		text   []byte
		want   loginStatus
	}{
		{name: "no InitiatorName", text: keys(target), want: loginMissing},
		{name: "empty InitiatorName", text: keys("InitiatorName=", target), want: loginMissing},
		{name: "bad InitiatorName", text: keys("InitiatorName=host", target), want: loginInitiatorError},
		{name: "no TargetName", text: keys(hostName), want: loginMissing},
		{name: "another TargetName", text: keys(hostName, target+"x"), want: loginNotFound},
		{name: "unknown session type", text: keys(hostName, target, "SessionType=Fun"), want: loginBadType},
		{name: "no method in common", secure: true, text: keys(hostName, target, "AuthMethod=CHAP,SRP"), want: loginAuthFailure},
		{name: "AuthMethod too late", text: keys(hostName, target, "AuthMethod=None"), want: loginInitiatorError},
		{name: "operational key too early", secure: true, text: keys(hostName, target, "InitialR2T=No"), want: loginInitiatorError},
		{name: "malformed text", text: []byte("InitiatorName"), want: loginInitiatorError},
		{name: "key twice", text: keys(hostName, hostName), want: loginInitiatorError},
		{name: "version", text: full, change: func(h *header) { h[2], h[3] = 1, 1 }, want: loginVersion},
		{name: "reserved stage", text: full, change: func(h *header) { h[1] = bitFinal | 2<<2 | 3 }, want: loginInitiatorError},
		{name: "full feature stage", text: full, change: func(h *header) { h[1] = bitFinal | 3<<2 | 3 }, want: loginInitiatorError},
		{name: "transit to the same stage", text: full, change: func(h *header) { h[1] = bitFinal | 1<<2 | 1 }, want: loginInitiatorError},
		{name: "transit to the reserved stage", text: full, change: func(h *header) { h[1] = bitFinal | 1<<2 | 2 }, want: loginInitiatorError},
		{name: "T and C", text: full, change: func(h *header) { h[1] |= bitContinue }, want: loginInitiatorError},
		{name: "no such session", text: full, change: func(h *header) { h.put16(14, session.tsih+1) }, want: loginNoSession},
		{name: "second connection", text: full, change: func(h *header) { h.put16(14, session.tsih); h[13] = 5; h.put16(20, 2) }, want: loginTooMany},
		{name: "TSIH of another session", text: full, change: func(h *header) { h.put16(14, session.tsih) }, want: loginNoSession},
	} {
		i := r.dial()
		i.isid[5] = 77
		h := i.loginHeader(stageOperational, stageFullFeature, true)
		if c.secure {
			h = i.loginHeader(stageSecurity, stageOperational, true)
		}
		if c.change != nil {
			c.change(&h)
		}
		i.send(h, c.text)
		got := i.recv(opLoginResp)
		if loginStatus(got.u16(36)) != c.want || got.flag(bitFinal) || len(got.data) > 0 {
			t.Errorf("%s: % x %q, not status %#04x", c.name, got.header, got.data, uint16(c.want))
		}
		i.closed()
	}
	session.echo()
}

// TestLoginBounds: a login that does not come to an end, or wants too much.
func TestLoginBounds(t *testing.T) {
	r := newRig(t, Limits{})
	many := make([]string, maxKeys)
	for k := range many {
		many[k] = fmt.Sprintf("X-key%d=1", k)
	}
	for name, c := range map[string]struct {
		flags    byte // beside the stage
		text     []byte
		accepted int // requests, before the one that is refused
	}{
		"never on":            {0, nil, maxLoginRequests - 1},
		"pieces of nothing":   {bitContinue, nil, maxLoginRequests - 1},
		"text without an end": {bitContinue, bytes.Repeat([]byte{'A'}, 8192), maxText / 8192},
		"many keys":           {0, keys(many[:maxKeys-1]...), 0}, // beside the two names
		"many keys in one":    {0, keys(append(many, "Z=1")...), 0},
	} {
		i := r.dial()
		i.send(i.loginHeader(stageOperational, 0, false), keys(hostName, "TargetName="+testIQN))
		i.recv(opLoginResp)
		h := i.loginHeader(stageOperational, 0, false)
		h[1] |= c.flags
		for range c.accepted {
			i.send(h, c.text)
			if got := i.recv(opLoginResp); got.loginStatus() != loginSuccess {
				t.Fatalf("%s: % x", name, got.header)
			}
		}
		i.send(h, c.text)
		if got := i.recv(opLoginResp); got.loginStatus() != loginInitiatorError {
			t.Errorf("%s: % x", name, got.header)
		}
		i.closed()
	}
}

func TestLoginChangesItsMind(t *testing.T) {
	r := newRig(t, Limits{})
	for name, change := range map[string]func(*header){
		"ISID":     func(h *header) { h[8]++ },
		"TSIH":     func(h *header) { h.put16(14, 9) },
		"CID":      func(h *header) { h.put16(20, 9) },
		"task tag": func(h *header) { h.put32(16, 9) },
		"stage":    func(h *header) { h[1] = 0 },
	} {
		i := r.dial()
		i.send(i.loginHeader(stageOperational, 0, false), keys(hostName, "TargetName="+testIQN))
		i.recv(opLoginResp)
		h := i.loginHeader(stageOperational, stageFullFeature, true)
		change(&h)
		i.send(h, nil)
		if got := i.recv(opLoginResp); loginStatus(got.u16(36)) != loginInitiatorError {
			t.Errorf("%s: % x", name, got.header)
		}
		i.closed()
	}
}

func TestLoginKeyInTwoRequests(t *testing.T) {
	i := newRig(t, Limits{}).dial()
	i.send(i.loginHeader(stageOperational, 0, false), keys(hostName, "TargetName="+testIQN, "InitialR2T=No"))
	i.recv(opLoginResp)
	i.send(i.loginHeader(stageOperational, stageFullFeature, true), keys("InitialR2T=Yes"))
	if got := i.recv(opLoginResp); loginStatus(got.u16(36)) != loginInitiatorError {
		t.Errorf("% x", got.header)
	}
}

// TestNotALogin sends what is no login at all: the connection is closed.
func TestNotALogin(t *testing.T) {
	r := newRig(t, Limits{})
	for name, b := range map[string][]byte{
		"HTTP":         []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n.............."),
		"SCSI command": append([]byte{0x01, 0x80}, make([]byte, 46)...),
		"large login":  append([]byte{0x43, 0x87, 0, 0, 0, 0xff, 0xff, 0xff}, make([]byte, 40)...),
		"AHS in login": append([]byte{0x43, 0x87, 0, 0, 1, 0, 0, 0}, make([]byte, 44)...),
	} {
		i := r.dial()
		i.write(b)
		i.closed()
		t.Log(name)
	}
	r.login().echo()
}

// TestCommandDuringLogin: who has begun a login is told what is wrong.
func TestCommandDuringLogin(t *testing.T) {
	i := newRig(t, Limits{}).dial()
	i.send(i.loginHeader(stageOperational, 0, false), keys(hostName, "TargetName="+testIQN))
	i.recv(opLoginResp)
	i.send(i.scsi(isRead, 512, read10, 0, 1), nil)
	if got := i.recv(opLoginResp); got.loginStatus() != loginNoLogin || got.tag() != 0x10 {
		t.Errorf("% x", got.header)
	}
	i.closed()
}

func TestLoginTimeout(t *testing.T) {
	r := newRig(t, Limits{LoginTimeout: 50 * time.Millisecond})
	i := r.dial()
	i.write([]byte{0x43})
	i.closed()
}

func TestTooManyLogins(t *testing.T) {
	r := newRig(t, Limits{MaxLogins: 2, MaxLoginsPerHost: 2})
	a, b := r.dial(), r.dial()
	for _, i := range []*initiator{a, b} { // both are known to the server now
		i.send(i.loginHeader(stageOperational, 0, false), keys(hostName, "TargetName="+testIQN))
		i.recv(opLoginResp)
	}
	r.dial().closed()
	a.send(a.loginHeader(stageOperational, stageFullFeature, true), nil)
	a.recv(opLoginResp)
	a.echo()
	r.login().echo() // with the name of the first, whose session it replaces
	a.closed()
}

// TestTooManyLoginsOfOneHost: connections that say nothing do not keep others out,
// and an initiator gets in when they have gone.
func TestTooManyLoginsOfOneHost(t *testing.T) {
	r := newRig(t, Limits{MaxLoginsPerHost: 2})
	first := r.login()
	for range 2 {
		i := r.dial()
		i.send(i.loginHeader(stageOperational, 0, false), keys(hostName, "TargetName="+testIQN))
		i.recv(opLoginResp)
	}
	r.dial().closed()
	first.echo()
}

func TestTooManySessions(t *testing.T) {
	r := newRig(t, Limits{MaxSessions: 1})
	a := r.login()
	b := r.dial()
	b.isid[5]++
	if got := b.tryLogin(); loginStatus(got.u16(36)) != loginResources {
		t.Fatalf("% x", got.header)
	}
	a.echo()
}

// TestReinstatement logs an initiator in again: its old session and commands
// end before the new one begins.
func TestReinstatement(t *testing.T) {
	r := newRig(t, Limits{})
	a := r.login()
	h := a.scsi(bitFinal, 0, opHang, 0, 0)
	a.send(h, nil)
	<-r.disk.hung
	b := r.login()
	if len(r.disk.freed) != 1 || r.disk.open() != 1 {
		t.Fatalf("%d commands ended, %d nexus open", len(r.disk.freed), r.disk.open())
	}
	a.closed()
	if b.tsih == a.tsih {
		t.Errorf("TSIH %d again", b.tsih)
	}
	c := r.dial()
	c.isid[0]++ // another session of the same initiator
	c.login()
	b.echo()
	c.echo()
	if r.disk.open() != 2 {
		t.Errorf("%d nexus open", r.disk.open())
	}
}

// TestConnectionReinstatement logs in again with the TSIH and CID that it has: the
// session keeps its TSIH and what it has agreed upon, and its commands end.
func TestConnectionReinstatement(t *testing.T) {
	r := newRig(t, Limits{})
	a := r.login("InitialR2T=No", "MaxBurstLength=4096", "FirstBurstLength=1024", "HeaderDigest=CRC32C")
	a.send(a.scsi(bitFinal, 0, opHang, 0, 0), nil)
	<-r.disk.hung
	b := r.dial()
	b.tsih, b.cmdSN = a.tsih, 5000
	if got := b.login("MaxRecvDataSegmentLength=512"); b.tsih != a.tsih || got.u32(28) != 5000 || len(r.disk.freed) != 1 {
		t.Fatalf("%d commands ended: % x", len(r.disk.freed), got.header)
	}
	a.closed()
	if n := b.writeThrough(3, pattern(1, 8192), 512, 512, 512); n != 2 {
		t.Errorf("%d R2Ts", n)
	}
	b.readBack(3, pattern(1, 8192), 512, 4096)
	if r.disk.open() != 1 {
		t.Errorf("%d nexus open", r.disk.open())
	}
	tsih := b.tsih
	b.logout()
	<-r.ended(tsih)
	c := r.dial()
	c.tsih = tsih
	if got := c.tryLogin(); loginStatus(got.u16(36)) != loginNoSession {
		t.Errorf("to a session that has ended: % x", got.header)
	}
}

// ended is closed when no session has the TSIH any more.
func (r *rig) ended(tsih uint16) <-chan struct{} {
	if s := r.srv.sessions.get(tsih); s != nil {
		return s.ended
	}
	done := make(chan struct{})
	close(done)
	return done
}

func TestDiscovery(t *testing.T) {
	i := newRig(t, Limits{}).dial()
	i.send(i.loginHeader(stageOperational, stageFullFeature, true), keys(hostName, "SessionType=Discovery", "MaxBurstLength=1024", "MaxRecvDataSegmentLength=512"))
	if r := i.recv(opLoginResp); !bytes.Equal(r.data, keys("MaxBurstLength=Irrelevant", "MaxRecvDataSegmentLength=262144")) {
		t.Fatalf("% x %q", r.header, r.data)
	}
	all := keys("TargetName="+testIQN, "TargetAddress=127.0.0.1:13260,1", "TargetAddress=[::1]:13270,2")
	for value, want := range map[string][]byte{
		"All": all, testIQN: all, "": keys("SendTargets=Reject"), "iqn.2024-01.com.example:other": {},
	} {
		if got := i.text(keys("SendTargets=" + value)); !bytes.Equal(got, want) {
			t.Errorf("SendTargets=%s: %q", value, got)
		}
	}
	h := i.scsi(isRead, 512, read10, 0, 1)
	i.send(h, nil)
	i.rejected(rejectProtocol, h)
	i.logout()
}

// text makes a text request of one PDU and puts the answer's pieces together.
func (i *initiator) text(text []byte) (answer []byte) {
	i.t.Helper()
	tag := uint32(noTag)
	for {
		h := i.request(opText)
		h.put32(20, tag)
		i.send(h, text)
		r := i.recv(opTextResp)
		answer = append(answer, r.data...)
		if r.flag(bitFinal) {
			return answer
		}
		tag, text = r.u32(20), nil
		if tag == noTag || !r.flag(bitContinue) {
			i.t.Fatalf("text response % x", r.header)
		}
	}
}

func (i *initiator) rejected(why rejectReason, h header) {
	i.t.Helper()
	r := i.recv(opReject)
	copy(h[5:8], r.data[5:8]) // send put the length in
	if rejectReason(r.header[2]) != why || !bytes.Equal(r.data, h[:]) {
		i.t.Fatalf("reject % x % x, not for reason %#02x of % x", r.header, r.data, why, h)
	}
}

func (i *initiator) logout() {
	i.t.Helper()
	h := i.request(bitImmediate | opLogout)
	h[1] |= logoutSession
	i.send(h, nil)
	if r := i.recv(opLogoutResp); r.header[2] != logoutDone || r.tag() != h.tag() {
		i.t.Fatalf("logout response % x", r.header)
	}
	i.closed()
}

// TestTextInPieces has both sides' texts longer than a PDU.
func TestTextInPieces(t *testing.T) {
	r := newRig(t, Limits{})
	target := r.target()
	for n := range 40 {
		target.Portals = append(target.Portals, Portal{"198.51.100.77:3260", uint16(n + 3)})
	}
	if err := r.srv.SetTargets(t.Context(), []Target{target}, Auth{}); err != nil {
		t.Fatal(err)
	}
	i := r.login("MaxRecvDataSegmentLength=512")
	h := i.request(opText)
	h[1] = bitContinue
	h.put32(20, noTag)
	i.send(h, []byte("SendTar"))
	got := i.recv(opTextResp)
	if got.flag(bitFinal) || got.u32(20) == noTag || len(got.data) > 0 {
		t.Fatalf("% x %q", got.header, got.data)
	}
	h = i.request(opText)
	h.put32(20, got.u32(20))
	i.send(h, []byte("gets=\x00"))
	var answer []byte
	for {
		got = i.recv(opTextResp)
		answer = append(answer, got.data...)
		if got.flag(bitFinal) {
			break
		}
		h = i.request(opText)
		h.put32(20, got.u32(20))
		i.send(h, nil)
	}
	if want := appendTarget(nil, &target, netip.Addr{}); !bytes.Equal(answer, want) || len(want) < 1024 {
		t.Fatalf("%q, not %q", answer, want)
	}
	h.put32(24, i.cmdSN) // with a tag of the exchange that is over
	i.cmdSN++
	i.send(h, nil)
	i.rejected(rejectProtocol, h)
}

// TestManyTargets: an answer of many PDUs, as long as the initiator takes them.
func TestManyTargets(t *testing.T) {
	r := newRig(t, Limits{})
	var targets []Target
	var want []byte
	for n := range 500 {
		target := r.target()
		target.Name = fmt.Sprintf("%s-%d", testIQN, n)
		targets = append(targets, target)
		want = appendTarget(want, &target, netip.Addr{})
	}
	if err := r.srv.SetTargets(t.Context(), targets, Auth{}); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{512, 8192, 65536} {
		i := r.dial()
		i.send(i.loginHeader(stageOperational, stageFullFeature, true), keys(hostName, "SessionType=Discovery", fmt.Sprint("MaxRecvDataSegmentLength=", size)))
		i.recv(opLoginResp)
		if got := i.text(keys("SendTargets=All")); !bytes.Equal(got, want) {
			t.Errorf("by %d bytes: %d bytes, not %d", size, len(got), len(want))
		}
		i.logout()
	}
}

// TestTextRejected: what breaks the rules of a text exchange ends it, and a new one
// can begin.
func TestTextRejected(t *testing.T) {
	i := newRig(t, Limits{}).login("MaxRecvDataSegmentLength=512")
	ask := func(flags byte, transferTag uint32, text []byte) header {
		h := i.request(opText)
		h[1] = flags
		h.put32(20, transferTag)
		i.send(h, text)
		return h
	}
	long := make([]string, 40)
	for k := range long {
		long[k] = fmt.Sprintf("X-a-key-that-nobody-knows-%d=1", k)
	}
	for name, c := range map[string]struct {
		first  []byte // starts an exchange that stays open; nil: none
		cont   bool
		flags  byte
		next   []byte
		change uint32 // of the transfer tag
	}{
		"F and C at once":           {flags: bitFinal | bitContinue, next: keys("A=1")},
		"a tag that was never made": {flags: bitFinal, change: 77, next: keys("A=1")},
		"another tag":               {first: []byte("Send"), cont: true, flags: bitFinal, change: 1, next: []byte("Targets=\x00")},
		"keys before the answer":    {first: keys(long...), flags: bitFinal, next: keys("B=1")},
		"no end of text":            {first: make([]byte, 8<<10), cont: true, flags: bitFinal, next: make([]byte, 8<<10+4)},
		"a long text at once":       {flags: bitFinal, next: make([]byte, maxText+4)},
		"nonsense":                  {flags: bitFinal, next: []byte("=\x00")},
	} {
		tag := uint32(noTag)
		if c.first != nil {
			flags := byte(bitFinal)
			if c.cont {
				flags = bitContinue
			}
			ask(flags, tag, c.first)
			got := i.recv(opTextResp)
			if tag = got.u32(20); got.flag(bitFinal) || tag == noTag {
				t.Fatalf("%s: % x", name, got.header)
			}
		}
		if c.change != 0 {
			tag += c.change
		}
		h := ask(c.flags, tag, c.next)
		i.rejected(rejectProtocol, h)
		if got := i.text(keys("SendTargets=")); !bytes.Contains(got, []byte("TargetName="+testIQN)) {
			t.Errorf("%s: afterwards %q", name, got)
		}
	}
	i.echo()
}

func TestTextNegotiation(t *testing.T) {
	i := newRig(t, Limits{}).login()
	for _, c := range []struct{ in, want string }{
		{"MaxRecvDataSegmentLength=1024\x00", ""},
		{"MaxRecvDataSegmentLength=1\x00", "MaxRecvDataSegmentLength=Reject\x00"},
		{"MaxBurstLength=1024\x00", "MaxBurstLength=Reject\x00"},
		{"X-what=ever\x00", "X-what=NotUnderstood\x00"},
		{"SendTargets=All\x00", "SendTargets=Reject\x00"},
	} {
		if got := i.text([]byte(c.in)); string(got) != c.want {
			t.Errorf("%q: %q, not %q", c.in, got, c.want)
		}
	}
	h := i.scsi(isRead, 2048, read10, 0, 4)
	i.send(h, nil)
	for range 2 { // cut at the new length
		if r := i.recv(opDataIn); len(r.data) != 1024 {
			t.Errorf("Data-In of %d bytes", len(r.data))
		}
	}
	h = i.request(opText)
	h.put32(20, noTag)
	i.send(h, []byte("no text"))
	i.rejected(rejectProtocol, h)
	i.echo()
}

func TestLogoutRefused(t *testing.T) {
	i := newRig(t, Limits{}).login()
	for _, c := range []struct{ reason, cid, want byte }{
		{logoutRecovery, 1, logoutNoRecovery}, {logoutConnection, 9, logoutNoCID},
	} {
		h := i.request(bitImmediate | opLogout)
		h[1] |= c.reason
		h[21] = c.cid
		i.send(h, nil)
		if r := i.recv(opLogoutResp); r.header[2] != c.want {
			t.Errorf("reason %d: % x", c.reason, r.header)
		}
	}
	h := i.request(opLogout)
	h[1] |= 9
	i.send(h, nil)
	i.rejected(rejectInvalidField, h)
	h = i.request(opLogout)
	h[1] |= logoutConnection
	h[21] = 1
	i.send(h, nil)
	if r := i.recv(opLogoutResp); r.header[2] != logoutDone {
		t.Errorf("% x", r.header)
	}
	i.closed()
}

func TestShutdownAsksForLogout(t *testing.T) {
	r := newRig(t, Limits{ShutdownGrace: 15 * time.Second})
	i := r.login()
	done := make(chan error, 1)
	go func() { done <- r.srv.Shutdown(context.Background()) }()
	if got := i.recv(opAsync); got.header[36] != asyncLogout || got.u16(42) != 15 {
		t.Errorf("% x", got.header)
	}
	i.logout()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestConfigRefused(t *testing.T) {
	good := func() Config {
		return Config{Targets: []Target{{Name: testIQN, Device: newDisk(1)}}, Log: slog.New(slog.DiscardHandler)}
	}
	if _, err := New(good()); err != nil {
		t.Fatal(err)
	}
	for want, spoil := range map[string]func(*Config){
		"iSCSI name":        func(c *Config) { c.Targets[0].Name = "disk" },
		"twice":             func(c *Config) { c.Targets = append(c.Targets, c.Targets[0]) },
		"no device":         func(c *Config) { c.Targets[0].Device = nil },
		"alias":             func(c *Config) { c.Targets[0].Alias = strings.Repeat("a", 256) },
		"portal":            func(c *Config) { c.Targets[0].Portals = []Portal{{"nowhere", 1}} },
		"twice in the list": func(c *Config) { c.Targets[0].Access = append(Anyone(), Anyone()...) },
		"discovery":         func(c *Config) { c.Discovery.Initiator.User = "me" },
		"MaxLoginsPerHost":  func(c *Config) { c.Limits.MaxLoginsPerHost = 33 },
		"FirstBurstLength":  func(c *Config) { c.Limits.FirstBurstLength = 512 },
		"SessionMemory":     func(c *Config) { c.Limits.SessionMemory = 1 },
		"CommandWindow":     func(c *Config) { c.Limits.CommandWindow = -1 },
		"PingTimeout":       func(c *Config) { c.Limits.PingTimeout = -1 },
	} {
		c := good()
		spoil(&c)
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// badListener fails as a listener does whose interface went away.
type badListener struct{ net.Listener }

func (badListener) Accept() (net.Conn, error) { return nil, io.ErrUnexpectedEOF }

func TestServeBadListener(t *testing.T) {
	r := newRig(t, Limits{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.srv.Serve(badListener{l}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Serve: %v", err)
	}
	r.login().echo()
}
