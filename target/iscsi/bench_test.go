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
	"read at hand":  {read10, 0},
	"read":          {read10, 1},
	"write at hand": {write10, 0},
	"write":         {write10, 1},
}

// runCommands has n commands executed by a server of its own, after some more, and
// tells when it begins and ends.
func runCommands(b testing.TB, op byte, lba uint32, depth, n int, begin, end func()) {
	i, close := benchTarget(b)
	conn := i.conn
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
	close()
}

// benchTarget logs in to a server of its own.
func benchTarget(b testing.TB, extra ...string) (i *initiator, close func()) {
	srv, err := New(Config{Targets: []Target{{Name: testIQN, Device: newDisk(4096), Access: Anyone()}}, Log: slog.New(slog.DiscardHandler)})
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
	i = &initiator{t: b, conn: conn, cmdSN: 100}
	i.send(i.loginHeader(stageOperational, stageFullFeature, true), keys(append(extra, hostName, "TargetName="+testIQN)...))
	if _, err := i.tryRecv(); err != nil {
		b.Fatal(err)
	}
	return i, func() {
		conn.Close()
		if err := srv.Shutdown(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLargeWrites has writes of 1 MiB in flight; see BenchmarkCommands.
func BenchmarkLargeWrites(b *testing.B) {
	for _, depth := range []int{1, 8} {
		b.Run(fmt.Sprintf("%d in flight", depth), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(1 << 20)
			runLargeWrites(b, depth, b.N, b.ResetTimer, b.StopTimer)
		})
	}
}

// runLargeWrites is runCommands for writes of 1 MiB, whose data is asked for.
func runLargeWrites(b testing.TB, depth, n int, begin, end func()) {
	const size, segment, warm = 1 << 20, 256 << 10, 50
	i, close := benchTarget(b, "MaxBurstLength=524288", "MaxOutstandingR2T=2", "ImmediateData=No")
	command := i.encode(i.scsi(isWrite, size, write10, 0, size/blockSize), nil, nil)
	data := i.encode(i.dataOut(0, 0, 0, 0, false), nil, make([]byte, segment))
	s := stream{r: newStream(i.conn, 1<<20, 0).r, maxData: 1 << 20}
	sn, done := uint32(100), 0
	write := func(pdu []byte) {
		if _, err := i.conn.Write(pdu); err != nil {
			b.Fatal(err)
		}
	}
	send := func() {
		binary.BigEndian.PutUint32(command[16:], sn)
		binary.BigEndian.PutUint32(command[24:], sn)
		sn++
		write(command)
	}
	answer := func(h *header) { // to an R2T
		for at := uint32(0); at < h.u32(44); at += segment {
			copy(data[16:24], h[16:24])
			binary.BigEndian.PutUint32(data[36:], at/segment)
			binary.BigEndian.PutUint32(data[40:], h.u32(40)+at)
			data[1] = 0
			if at+segment == h.u32(44) {
				data[1] = bitFinal
			}
			write(data)
		}
	}
	for range depth {
		send()
	}
	for done < warm+n {
		if err := s.next(); err != nil {
			b.Fatal(err)
		}
		if s.header.opcode() == opR2T {
			answer(&s.header)
		} else if s.header[3] != 0 {
			b.Fatalf("an answer % x", s.header)
		} else {
			if done++; done == warm {
				begin()
			}
			send()
		}
		if err := s.finish(); err != nil {
			b.Fatal(err)
		}
	}
	end()
	close()
}

// TestNoAllocations counts what commands cost in the steady state.
func TestNoAllocations(t *testing.T) {
	if testing.CoverMode() != "" || raceEnabled {
		t.Skip("instrumented code allocates on its own")
	}
	var before, after runtime.MemStats
	begin, end := func() { runtime.ReadMemStats(&before) }, func() { runtime.ReadMemStats(&after) }
	count := func(name string, depth, n int) {
		// What pools lose to the garbage collector is no cost of a command.
		if got := after.Mallocs - before.Mallocs; got > uint64(n/20) {
			t.Errorf("%s, %d in flight: %d allocations in %d commands", name, depth, got, n)
		}
	}
	for name, c := range benchmarks {
		for _, depth := range []int{1, 32} {
			runCommands(t, c.op, c.lba, depth, 5000, begin, end)
			count(name, depth, 5000)
		}
	}
	for _, depth := range []int{1, 8} {
		runLargeWrites(t, depth, 1000, begin, end)
		count("write of 1 MiB", depth, 1000)
	}
}
