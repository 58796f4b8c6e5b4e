package iscsi

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"testing"
)

// BenchmarkCommands has 32 commands of 4 KiB in flight over loopback. What it
// allocates is what the target does: the initiator reuses everything.
func BenchmarkCommands(b *testing.B) {
	for name, op := range map[string]byte{"read": read10, "write": write10} {
		b.Run(name, func(b *testing.B) { benchmarkCommands(b, op) })
	}
}

func benchmarkCommands(b *testing.B, op byte) {
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
	template := i.scsi(isRead, 4096, op, 0, 8)
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
	b.ReportAllocs()
	b.ResetTimer()
	for range 32 {
		send()
	}
	for range b.N {
		if err := s.next(); err != nil {
			b.Fatal(err)
		}
		if err := s.finish(); err != nil {
			b.Fatal(err)
		}
		send()
	}
	b.StopTimer()
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
	for _, op := range []byte{read10, write10} {
		r := testing.Benchmark(func(b *testing.B) { benchmarkCommands(b, op) })
		if r.AllocsPerOp() > 0 {
			t.Errorf("command %#02x: %d allocations of %d bytes each", op, r.AllocsPerOp(), r.AllocedBytesPerOp())
		}
	}
}
