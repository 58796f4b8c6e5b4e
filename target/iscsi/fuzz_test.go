package iscsi

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twinlun/twinlun/target/sam"
)

// FuzzStream cuts anything into PDUs. What comes out is what went in: as much as
// the headers say, from where they say it is.
func FuzzStream(f *testing.F) {
	i := &initiator{digest: true}
	f.Add(true, uint16(5), i.encode(header{0: opNopOut}, []byte{0, 5, 2, 0, 0, 0, 2, 0}, []byte("ping!")))
	i.digest = false
	two := i.encode(header{0: opText}, nil, []byte("A=1"))
	f.Add(false, uint16(1000), append(two, two...))
	f.Add(false, uint16(1), []byte{7: 0xff, 60: 0})
	f.Fuzz(func(t *testing.T, digests bool, step uint16, in []byte) {
		const maxData, maxAHS = 1000, 64
		s := newStream(bytes.NewReader(in), maxData, maxAHS)
		s.checkHdr, s.checkSeg = digests, digests
		for at := 0; ; {
			if s.next() != nil {
				return
			}
			h := s.header
			if !bytes.Equal(h[:], in[at:at+headerSize]) {
				t.Fatalf("header % x at %d", h, at)
			}
			at += headerSize
			if len(s.ahs) != h.ahsLength() || len(s.ahs) > maxAHS || !bytes.Equal(s.ahs, in[at:at+len(s.ahs)]) {
				t.Fatalf("AHS % x at %d", s.ahs, at)
			}
			at += len(s.ahs) + digestSize(digests)
			if s.left != h.dataLength() || s.left > maxData {
				t.Fatalf("%d bytes of %d", s.left, h.dataLength())
			}
			p := make([]byte, min(int(step), s.left))
			if err := s.read(p); err == nil && !bytes.Equal(p, in[at:at+len(p)]) {
				t.Fatalf("data % x at %d", p, at)
			}
			if s.finish() != nil {
				return
			}
			if err := s.finish(); err != nil {
				t.Fatalf("the second time: %v", err)
			}
			n := h.dataLength() + padding(h.dataLength())
			at += n + digestSize(digests && n > 0)
		}
	})
}

func digestSize(there bool) int {
	if there {
		return 4
	}
	return 0
}

// FuzzTransfer has R2Ts and Data-Out of one write in any order: 4 bytes each. What is
// accepted stays inside the command's data, and comes without gaps.
func FuzzTransfer(f *testing.F) {
	f.Add(uint32(5000), uint32(6000), uint16(100), false, []byte{2, 9, 0, 0, 3, 200, 0, 0, 3, 255, 0, 0, 3, 255, 0, 0})
	f.Fuzz(func(t *testing.T, want, expected uint32, immediate uint16, final bool, in []byte) {
		want = min(want, expected)
		p := params{firstBurst: 1024, maxBurst: 4096, maxR2T: 3, immediateData: true}
		var x transfer
		failed := x.begin(want, expected, uint32(immediate), final, &p) != nil
		for tag := uint32(1); len(in) >= 4; in = in[4:] {
			for {
				r, ok := x.ask(tag, &p)
				if !ok {
					break
				}
				if tag++; r.length == 0 || r.length > p.maxBurst || r.offset+r.length > want {
					t.Fatalf("asked for %+v of %d", r, want)
				}
			}
			d := dataOut{final: in[0]&1 > 0, transferTag: uint32(in[2]), offset: uint32(in[3]) << 4, length: uint32(in[1]) << 4, dataSN: uint32(in[3])}
			if in[0]&2 > 0 { // what is due
				d.offset, d.dataSN, d.transferTag = x.next, x.dataSN, noTag
				if x.opened > 0 && !x.unsolicited {
					d.transferTag = x.open[0].transferTag
				}
			}
			waiting, at := x.waiting(), x.next
			failed = x.arrive(d) != nil || failed
			if !failed && (!waiting || d.offset != at || x.next > max(expected, 1024) || x.next > x.asked && !x.unsolicited && x.dataSN > 0) {
				t.Fatalf("took %+v at %d: %+v", d, at, x)
			}
		}
	})
}

// script makes of fuzz input what an initiator sends: chunks of a header and its
// AHS and segment. The first byte of every chunk says what is put right, so that
// the input gets deeper than to the first check: the opcode, the lengths, the
// CmdSN, a task tag that is in use, a transfer tag that was given out, digests.
func (i *initiator) script(in []byte) []byte {
	opcodes := []byte{opSCSI, opDataOut, opTaskMgmt, opText, opNopOut, opLogout, opSCSI | bitImmediate, opDataOut}
	var out []byte
	for len(in) > headerSize {
		fix := in[0]
		var h header
		copy(h[:], in[1:])
		in = in[1+headerSize:]
		if fix&0x80 != 0 {
			out = append(out, h[:]...) // as it came
			continue
		}
		h[0] = opcodes[fix&7]
		a := min(int(h[4]&3)*4, len(in)&^3)
		if h.opcode() != opSCSI {
			a = 0
		}
		ahs := in[:a]
		in = in[a:]
		n := min(int(h[7])<<2, len(in))
		h.put32(16, uint32(fix>>4)&3)
		switch {
		case h.opcode() == opDataOut && fix&8 != 0:
			h.put32(20, uint32(h[23]&7)) // transfer tags count from 1
			h.put32(36, uint32(h[39]&3))
			h.put32(40, uint32(h[43])<<6)
		case h.opcode() == opDataOut:
			h.put32(20, noTag)
			h.put32(36, uint32(h[39]&3))
			h.put32(40, uint32(h[43])<<6)
		case fix&8 != 0 && !h.immediate():
			h.put32(24, i.cmdSN)
			i.cmdSN++
		}
		out = append(out, i.encode(h, ahs, in[:n])...)
		in = in[n:]
	}
	return append(out, in...)
}

// Flags of an attack.
const (
	attackAfterLogin = 1 << iota
	attackDigests
	attackSmall // small bursts and segments
	attackKinds = attackSmall << 1
)

// FuzzConnection lets a whole connection loose on a server. Whatever comes, the
// session and its commands end when the connection does, what the target sends is
// well formed, and nothing of it is what somebody else has left in a buffer.
func FuzzConnection(f *testing.F) {
	seed := make([]byte, 0, 600)
	for k := range byte(8) {
		h := header{1: isWrite, 7: 16, 22: 8, 23: k & 1, 32: write10, 40: 4}
		seed = append(append(append(seed, 8|k|k<<4), h[:]...), make([]byte, 64)...)
	}
	hang := header{1: bitFinal, 32: opHang}
	abort := header{1: bitFinal | byte(sam.AbortTaskSet)}
	aborted := append(append(append([]byte{8}, hang[:]...), append([]byte{8 | 2}, abort[:]...)...), make([]byte, 60)...)
	read := header{1: isRead, 22: 16, 32: read10, 40: 8}
	many := bytes.Repeat(append([]byte{8 | 0x10}, read[:]...), 20)
	for flags := byte(attackAfterLogin); flags < attackKinds; flags += 2 {
		for _, s := range [][]byte{seed, aborted, many} {
			f.Add(flags, s)
		}
	}
	f.Add(byte(0), []byte("GET / HTTP/1.1\r\n\r\n"))
	i := &initiator{}
	f.Add(byte(0), i.encode(i.loginHeader(stageSecurity, stageOperational, true), nil, keys(hostName, "TargetName="+testIQN)))
	f.Fuzz(attack)
}

// TestRandomAttacks does what the fuzzer does, for those that do not run it.
func TestRandomAttacks(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 400 {
		in := make([]byte, rng.IntN(2000))
		for k := range in {
			if in[k] = byte(rng.Uint32()); rng.IntN(3) > 0 {
				in[k] &= 0x0f // small numbers and mostly right ones
			}
		}
		attack(t, byte(rng.IntN(attackKinds))|attackAfterLogin, in)
	}
}

// socketPair is a connection within the process, with the buffers of the kernel.
func socketPair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for k, fd := range fds {
		file := os.NewFile(uintptr(fd), "socketpair")
		if ends[k], err = net.FileConn(file); err != nil {
			t.Fatal(err)
		}
		file.Close()
	}
	return ends[0], ends[1]
}

// attack sends one script, and waits for everything to be over.
func attack(t *testing.T, flags byte, in []byte) {
	d := newDisk(64)
	srv, err := New(Config{
		Targets: []Target{{Name: testIQN, Device: d, Access: Anyone()}}, Log: slog.New(slog.DiscardHandler),
		Limits: Limits{CommandWindow: 8, ShutdownGrace: 1, PingInterval: time.Minute},
	})
	if err != nil {
		t.Fatal(err)
	}
	secret := make([]byte, 16)
	binary.BigEndian.PutUint64(secret, rand.Uint64())
	binary.BigEndian.PutUint64(secret[8:], rand.Uint64())
	srv.spoil(secret)

	ours, theirs := socketPair(t)
	if err := ours.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	srv.start(theirs, nil)
	i := &initiator{t: t, conn: ours, cmdSN: 100}
	if flags&attackAfterLogin != 0 {
		text := []string{"InitialR2T=No", "MaxOutstandingR2T=8"}
		if flags&attackDigests != 0 {
			text = append(text, "HeaderDigest=CRC32C", "DataDigest=CRC32C")
		}
		if flags&attackSmall != 0 {
			text = append(text, "MaxRecvDataSegmentLength=512", "MaxBurstLength=1024", "FirstBurstLength=512")
		}
		i.login(text...)
		in = i.script(in)
	}
	heard := make(chan error, 1)
	go func() { heard <- i.listen(secret) }()
	_, _ = ours.Write(in) // the target may well close the connection before the end
	if err := ours.(*net.UnixConn).CloseWrite(); err != nil {
		t.Log(err)
	}
	if err := <-heard; err != nil {
		t.Error(err)
	}
	ours.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	if d.open() != 0 {
		t.Error("a nexus is left open")
	}
	if bytes.Contains(d.data, secret) {
		t.Error("what was in a buffer was written to the disk")
	}
}

// spoil fills data buffers with what nobody may see.
func (s *Server) spoil(secret []byte) {
	for class := minClass; class <= minClass+4; class++ {
		for range 4 {
			n := 1 << class
			s.buffers.put(&buffer{bytes.Repeat(secret, n/len(secret)), class})
		}
	}
}
