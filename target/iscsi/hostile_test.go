package iscsi

import (
	"bytes"
	"context"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"
)

// TestAnswersNotTaken asks and asks without reading: the target stops reading,
// too, long before it has stored much.
func TestAnswersNotTaken(t *testing.T) {
	r := newRig(t, Limits{WriteTimeout: 200 * time.Millisecond})
	i := r.login("MaxRecvDataSegmentLength=262144")
	h := i.request(bitImmediate | opNopOut)
	h.put32(20, noTag)
	b := i.encode(h, nil, make([]byte, 64<<10))
	sent := 0
	for ; sent < 1<<30; sent += len(b) {
		if _, err := i.conn.Write(b); err != nil {
			break
		}
	}
	if sent > 256<<20 {
		t.Errorf("the target took %d bytes before it gave the connection up", sent)
	}
}

// TestAnswersTakenLate asks for more than the sockets hold before it reads: what
// could not be sent at once comes afterwards, whole and in order.
func TestAnswersTakenLate(t *testing.T) {
	for _, digests := range []string{"None", "CRC32C"} {
		r := newRig(t, Limits{})
		i := r.dial()
		if err := i.conn.(*net.TCPConn).SetReadBuffer(32 << 10); err != nil {
			t.Fatal(err)
		}
		i.login("MaxRecvDataSegmentLength=65535", "HeaderDigest="+digests, "DataDigest="+digests)
		want := pattern(3, 1<<20)
		i.writeThrough(0, want, 0, 0, 65536)
		var asked []header
		for n := range 60 {
			h := i.scsi(isRead, 128<<10, read10, uint32(n), 256)
			i.send(h, nil)
			asked = append(asked, h)
		}
		got := map[uint32][]byte{}
		for done := 0; done < len(asked); {
			p := i.recv(opDataIn)
			if int(p.u32(40)) != len(got[p.tag()]) {
				t.Fatalf("Data-In % x after %d bytes", p.header, len(got[p.tag()]))
			}
			got[p.tag()] = append(got[p.tag()], p.data...)
			if p.flag(bitStatus) {
				done++
			}
		}
		for n, h := range asked {
			if !bytes.Equal(got[h.tag()], want[n*blockSize:n*blockSize+128<<10]) {
				t.Fatalf("read %d got other bytes", n)
			}
		}
	}
}

// TestMemoryOfHostileTraffic compares what is in use before and after many
// sessions that promise data, and do not send it.
func TestMemoryOfHostileTraffic(t *testing.T) {
	r := newRig(t, Limits{})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	i := r.login("InitialR2T=No")
	for range 128 {
		i.send(i.scsi(bitWrite, 1<<20, write10, 0, 2048), nil)
	}
	i.echo()
	runtime.ReadMemStats(&after)
	const bound = 32<<20 + 144*64<<10
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > bound+8<<20 {
		t.Errorf("128 writes without their data take %d bytes", grown)
	}
	i.logout()
}

// TestMemoryOfStrangers: what a connection takes before it is logged in, at both ends
// of it, is little.
func TestMemoryOfStrangers(t *testing.T) {
	const connections = 100
	r := newRig(t, Limits{MaxLogins: connections, MaxLoginsPerHost: connections})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	strangers := make([]*initiator, connections)
	for k := range strangers {
		i := r.dial()
		h := i.loginHeader(stageOperational, 0, false)
		h[1] |= bitContinue
		i.send(h, []byte("InitiatorName"))
		i.recv(opLoginResp) // it has been read
		strangers[k] = i
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > connections*32<<10 {
		t.Errorf("%d bytes for each connection that is not logged in", grown/connections)
	}
	runtime.KeepAlive(strangers)
}

// discover opens a discovery session.
func (i *initiator) discover() *received {
	i.t.Helper()
	i.send(i.loginHeader(stageOperational, stageFullFeature, true), keys(hostName, "SessionType=Discovery"))
	return i.recv(opLoginResp)
}

func (s *Server) strangersLeft() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.strangers.conns)
}

// TestDiscoveriesKeepNobodyOut: discovery sessions that stay count as connections that
// are not logged in, take no session from others, and are ended.
func TestDiscoveriesKeepNobodyOut(t *testing.T) {
	r := newRig(t, Limits{MaxSessions: 1, MaxLogins: 3, MaxLoginsPerHost: 3})
	first := r.dial()
	if got := first.discover(); got.loginStatus() != loginSuccess {
		t.Fatalf("% x", got.header)
	}
	r.login().echo()
	for range 2 {
		r.dial().discover()
	}
	r.dial().closed()
	first.logout()
	for r.srv.strangersLeft() > 2 { // its end is near
		runtime.Gosched()
	}
	r.login().echo()
}

func TestDiscoveryTime(t *testing.T) {
	r := newRig(t, Limits{DiscoveryTime: 50 * time.Millisecond})
	session, i := r.login(), r.dial()
	i.discover()
	i.closed()
	session.echo()
}

func TestBudget(t *testing.T) {
	b := &budget{free: 100}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if !b.try(60) || b.try(60) {
		t.Fatal("60 and 60 of 100")
	}
	var order []int
	var mu sync.Mutex
	var wg sync.WaitGroup
	waiting := func(n int) {
		for {
			b.mu.Lock()
			if len(b.queue) == n {
				b.mu.Unlock()
				return
			}
			b.mu.Unlock()
			runtime.Gosched()
		}
	}
	for k, n := range []int64{90, 10} {
		wg.Go(func() {
			if !b.take(context.Background(), n) {
				t.Error("not granted")
			}
			mu.Lock()
			order = append(order, k)
			mu.Unlock()
			b.give(n)
		})
		waiting(k + 1)
	}
	if b.try(10) {
		t.Error("one who asks later overtakes")
	}
	gone := make(chan bool)
	go func() { gone <- b.take(ctx, 50) }()
	waiting(3)
	cancel()
	if <-gone {
		t.Error("granted after the end")
	}
	b.give(60)
	wg.Wait()
	if b.free != 100 || len(order) != 2 {
		t.Errorf("%d free at the end, order %v", b.free, order)
	}
}
