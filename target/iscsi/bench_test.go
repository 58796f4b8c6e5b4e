package iscsi

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"testing"
)

// BenchmarkCommands has commands of 4 KiB in flight over loopback. What it
// allocates is what the target does: the initiator reuses everything.
func BenchmarkCommands(b *testing.B) {
	for name, c := range benchmarks {
		for _, depth := range []int{1, 32} {
			b.Run(fmt.Sprintf("%s, %d in flight", name, depth), func(b *testing.B) {
				b.ReportAllocs()
				runCommands(b, c.op, c.lba, depth, b.N, b.ResetTimer, b.StopTimer)
			})
		}
	}
}

var benchmarks = map[string]struct {
	op  byte
	lba uint32
}{
	"read at hand": {read10, 0},
	"read":         {read10, 1},
	"write":        {write10, 0},
}

// runCommands has n commands executed by a server of its own, after some more, and
// tells when it begins and ends.
func runCommands(b testing.TB, op byte, lba uint32, depth, n int, begin, end func()) {
	srv, err := New(Config{Targets: []Target{{Name: testIQN, Device: newDisk(64), Access: Anyone()}}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go srv.Serve(l)
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	i := &initiator{t: b, conn: conn, cmdSN: 100}
	i.send(i.loginHeader(stageOperational, stageFullFeature, true), keys(hostName, "TargetName="+testIQN))
	if _, err := i.tryRecv(); err != nil {
		b.Fatal(err)
	}
	template := i.scsi(isRead, 4096, op, lba, 8)
	if op == write10 {
		template[1] = isWrite
	}
	pdu := i.encode(template, nil, make([]byte, 4096*int(op-read10)/2))
	s := stream{r: newStream(conn, 1<<20, 0).r, maxData: 1 << 20}
	cmdSN := uint32(100)
	send := func() {
		binary.BigEndian.PutUint32(pdu[16:], cmdSN)
		binary.BigEndian.PutUint32(pdu[24:], cmdSN)
		cmdSN++
		if _, err := conn.Write(pdu); err != nil {
			b.Fatal(err)
		}
	}
	take := func() {
		if err := s.next(); err != nil {
			b.Fatal(err)
		}
		if err := s.finish(); err != nil {
			b.Fatal(err)
		}
	}
	for range depth {
		send()
	}
	for k := range 2000 + n {
		if k == 2000 {
			begin()
		}
		take()
		send()
	}
	end()
	conn.Close()
	if err := srv.Shutdown(context.Background()); err != nil {
		b.Fatal(err)
	}
}

// TestNoAllocations counts what commands cost in the steady state.
func TestNoAllocations(t *testing.T) {
	if testing.CoverMode() != "" || raceEnabled {
		t.Skip("instrumented code allocates on its own")
	}
	const n = 5000
	for name, c := range benchmarks {
		for _, depth := range []int{1, 32} {
			var before, after runtime.MemStats
			runCommands(t, c.op, c.lba, depth, n, func() { runtime.ReadMemStats(&before) }, func() { runtime.ReadMemStats(&after) })
			// What pools lose to the garbage collector is no cost of a command.
			if got := after.Mallocs - before.Mallocs; got > n/20 {
				t.Errorf("%s, %d in flight: %d allocations in %d commands", name, depth, got, n)
			}
		}
	}
}
