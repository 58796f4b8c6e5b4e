package iscsi

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"
)

const testIQN = "iqn.2024-01.com.example:disk"

// rig is a server with one target on a loopback port.
type rig struct {
	t    *testing.T
	srv  *Server
	disk *disk
	addr string
}

func newRig(t *testing.T, limits Limits, changes ...func(*Config)) *rig {
	t.Helper()
	d := newDisk(4096)
	if limits.ShutdownGrace == 0 {
		limits.ShutdownGrace = 1
	}
	cfg := Config{
		Targets: []Target{{
			Name: testIQN, Alias: "a disk", Device: d, Access: Anyone(),
			Portals: []Portal{{"127.0.0.1:13260", 1}, {"[::1]:13270", 2}},
		}},
		PortalGroup: 1, Limits: limits, Log: slog.New(slog.DiscardHandler),
	}
	for _, change := range changes {
		change(&cfg)
	}
	srv, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, ErrServerClosed) {
			t.Errorf("Serve returned %v", err)
		}
		if n := d.open(); n != 0 {
			t.Errorf("%d nexus are open after shutdown", n)
		}
		if n := len(srv.sessions.all()); n != 0 {
			t.Errorf("%d sessions are left after shutdown", n)
		}
	})
	return &rig{t, srv, d, l.Addr().String()}
}

// target is the rig's target, to be changed and set again.
func (r *rig) target() Target { return *r.srv.directory.Load().byName[testIQN].clone() }

// initiator speaks PDUs, right and wrong ones.
type initiator struct {
	t      testing.TB
	conn   net.Conn
	cmdSN  uint32
	expSN  uint32 // ExpStatSN
	tag    uint32
	tsih   uint16
	isid   [6]byte
	digest bool // both digests
	pongs  bool // answers NOP-Ins of the target, where others take them for PDUs like any
}

// received is a PDU that a target sent.
type received struct {
	header
	data []byte
}

func (r *rig) dial() *initiator {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		r.t.Fatal(err)
	}
	return &initiator{t: r.t, conn: conn, cmdSN: 100, expSN: 7, isid: [6]byte{0x80, 1, 2, 3, 4, 5}}
}

func (i *initiator) write(b []byte) {
	i.t.Helper()
	if _, err := i.conn.Write(b); err != nil {
		i.t.Fatal(err)
	}
}

// encode makes bytes of a PDU.
func (i *initiator) encode(h header, ahs, data []byte) []byte {
	h[4] = byte(len(ahs) / 4)
	h.setDataLength(len(data))
	b := append(append([]byte(nil), h[:]...), ahs...)
	if i.digest {
		b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	}
	padded := append(append([]byte(nil), data...), make([]byte, padding(len(data)))...)
	b = append(b, padded...)
	if i.digest && len(data) > 0 {
		b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(padded, castagnoli))
	}
	return b
}

func (i *initiator) send(h header, data []byte) {
	i.t.Helper()
	i.write(i.encode(h, nil, data))
}

// tryRecv reads a PDU; io.EOF and the like come back as an error.
func (i *initiator) tryRecv() (r *received, err error) {
	r = &received{}
	if _, err := io.ReadFull(i.conn, r.header[:]); err != nil {
		return r, err
	}
	if i.digest {
		i.checkDigest(r.header[:])
	}
	r.data = make([]byte, r.dataLength()+padding(r.dataLength()))
	if _, err := io.ReadFull(i.conn, r.data); err != nil {
		return r, err
	}
	if i.digest && len(r.data) > 0 {
		i.checkDigest(r.data)
	}
	r.data = r.data[:r.dataLength()]
	if i.pongs && r.opcode() == opNopIn && r.u32(20) != noTag {
		i.pong(r)
		return i.tryRecv()
	}
	return r, nil
}

// pong answers a NOP-In.
func (i *initiator) pong(r *received) {
	i.t.Helper()
	h := i.request(bitImmediate | opNopOut)
	h.put32(16, noTag)
	h.put32(20, r.u32(20))
	i.send(h, nil)
}

func (i *initiator) checkDigest(b []byte) {
	var d [4]byte
	if _, err := io.ReadFull(i.conn, d[:]); err != nil {
		i.t.Fatal(err)
	}
	if got := binary.LittleEndian.Uint32(d[:]); got != crc32.Checksum(b, castagnoli) {
		i.t.Fatalf("digest of % x is %08x", b[:min(len(b), 48)], got)
	}
}

func (i *initiator) recv(opcode byte) *received {
	i.t.Helper()
	r, err := i.tryRecv()
	if err != nil {
		i.t.Fatalf("wait for PDU %#02x: %v", opcode, err)
	}
	if r.opcode() != opcode {
		i.t.Fatalf("got PDU %#02x instead of %#02x: % x", r.opcode(), opcode, r.header)
	}
	return r
}

// closed waits for the target to close the connection.
func (i *initiator) closed() {
	i.t.Helper()
	for {
		_, err := i.tryRecv()
		var ne net.Error
		if errors.As(err, &ne) && ne.Timeout() {
			i.t.Fatal("the target did not close the connection")
		}
		if err != nil {
			return
		}
	}
}

// request is a header with the fields that all requests have. It uses a CmdSN
// up, unless it is immediate.
func (i *initiator) request(first byte) (h header) {
	i.tag++
	h[0], h[1] = first, bitFinal
	h.put32(16, i.tag)
	h.put32(24, i.cmdSN)
	h.put32(28, i.expSN)
	if first&bitImmediate == 0 {
		i.cmdSN++
	}
	return h
}

// loginHeader makes a login request.
func (i *initiator) loginHeader(stage, next byte, transit bool) (h header) {
	h[0], h[1] = bitImmediate|opLogin, stage<<2
	if transit {
		h[1] |= bitFinal | next
	}
	copy(h[8:], i.isid[:])
	h.put16(14, i.tsih)
	h.put32(16, 0x10)
	h.put16(20, 1)
	h.put32(24, i.cmdSN)
	h.put32(28, i.expSN)
	return h
}

func keys(pairs ...string) []byte {
	return []byte(strings.Join(pairs, "\x00") + "\x00")
}

// tryLogin goes straight to the operational stage.
func (i *initiator) tryLogin(extra ...string) *received {
	i.t.Helper()
	text := append([]string{"InitiatorName=iqn.2024-01.com.example:host", "TargetName=" + testIQN}, extra...)
	i.send(i.loginHeader(stageOperational, stageFullFeature, true), keys(text...))
	return i.recv(opLoginResp)
}

func (i *initiator) login(extra ...string) *received {
	i.t.Helper()
	r := i.tryLogin(extra...)
	if r.u16(36) != 0 || !r.flag(bitFinal) {
		i.t.Fatalf("login failed: % x", r.header)
	}
	i.tsih = r.u16(14)
	i.digest = bytes.Contains(r.data, []byte("HeaderDigest=CRC32C"))
	return r
}

func (r *rig) login(extra ...string) *initiator {
	r.t.Helper()
	i := r.dial()
	i.login(extra...)
	return i
}

// scsi makes a SCSI command with a CDB of ten bytes.
func (i *initiator) scsi(flags byte, expected uint32, op byte, lba uint32, blocks uint16) header {
	h := i.request(opSCSI)
	h[1] = flags
	h.put32(20, expected)
	h[32] = op
	h.put32(34, lba)
	h.put16(39, blocks)
	return h
}

const (
	read10  = 0x28
	write10 = 0x2a
	isRead  = bitFinal | bitRead
	isWrite = bitFinal | bitWrite
)

// dataOut makes a Data-Out.
func (i *initiator) dataOut(tag, transferTag, dataSN, offset uint32, final bool) (h header) {
	h[0] = opDataOut
	setFlag(&h[1], bitFinal, final)
	h.put32(16, tag)
	h.put32(20, transferTag)
	h.put32(28, i.expSN)
	h.put32(36, dataSN)
	h.put32(40, offset)
	return h
}

// status waits for a SCSI response with the status.
func (i *initiator) status(tag uint32, status byte) *received {
	i.t.Helper()
	r := i.recv(opSCSIResp)
	if r.header[3] != status || r.header[2] != 0 || r.header.tag() != tag {
		i.t.Fatalf("SCSI response % x with data % x, not status %#02x of %d", r.header, r.data, status, tag)
	}
	return r
}

// pattern is data that differs from place to place.
func pattern(seed, n int) []byte {
	b := make([]byte, n)
	for at := range b {
		b[at] = byte(seed + at + at>>8*7)
	}
	return b
}

// echo sends a NOP-Out and waits for its answer: all before it has been read.
func (i *initiator) echo() {
	i.t.Helper()
	h := i.request(bitImmediate | opNopOut)
	h.put32(20, noTag)
	i.send(h, []byte("ping"))
	if r := i.recv(opNopIn); r.tag() != h.tag() || string(r.data) != "ping" {
		i.t.Fatalf("answer to a ping: % x %q", r.header, r.data)
	}
}
