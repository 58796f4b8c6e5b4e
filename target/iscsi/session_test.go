package iscsi

import (
	"bytes"
	"testing"
	"time"

	"github.com/twinlun/twinlun/target/sam"
)

// writeThrough writes data at a block in the form that was negotiated: with
// immediate bytes, unsolicited bytes after them in Data-Out of step bytes, and
// the rest as R2Ts ask for it.
func (i *initiator) writeThrough(lba uint32, data []byte, immediate, unsolicited, step int) (r2ts int) {
	i.t.Helper()
	flags := byte(isWrite)
	if unsolicited > 0 {
		flags &^= bitFinal
	}
	h := i.scsi(flags, uint32(len(data)), write10, lba, uint16(len(data)/blockSize))
	i.send(h, data[:immediate])
	i.sendData(h.tag(), noTag, data, immediate, immediate+unsolicited, step)
	for at := immediate + unsolicited; at < len(data); r2ts++ {
		r := i.recv(opR2T)
		if int(r.u32(40)) != at || r.u32(36) != uint32(r2ts) || r.tag() != h.tag() {
			i.t.Fatalf("R2T %d for offset %d: % x", r2ts, at, r.header)
		}
		end := at + int(r.u32(44))
		i.sendData(h.tag(), r.u32(20), data, at, end, step)
		at = end
	}
	i.status(h.tag(), 0)
	return r2ts
}

// sendData sends data[from:to] as one sequence.
func (i *initiator) sendData(tag, transferTag uint32, data []byte, from, to, step int) {
	i.t.Helper()
	for n := uint32(0); from < to; n++ {
		end := min(from+step, to)
		i.send(i.dataOut(tag, transferTag, n, uint32(from), end == to), data[from:end])
		from = end
	}
}

// readBack reads what writeThrough wrote, checks the Data-In and returns their
// number.
func (i *initiator) readBack(lba uint32, want []byte, maxSegment, maxBurst int) (pdus int) {
	i.t.Helper()
	h := i.scsi(isRead, uint32(len(want)), read10, lba, uint16(len(want)/blockSize))
	i.send(h, nil)
	burst := 0
	for at := 0; at < len(want); pdus++ {
		r := i.recv(opDataIn)
		if int(r.u32(40)) != at || r.u32(36) != uint32(pdus) || !bytes.Equal(r.data, want[at:at+len(r.data)]) {
			i.t.Fatalf("Data-In %d for offset %d: % x", pdus, at, r.header)
		}
		at += len(r.data)
		burst += len(r.data)
		last := at == len(want)
		if len(r.data) > maxSegment || burst > maxBurst || r.flag(bitFinal) != (last || burst == maxBurst) || r.flag(bitStatus) != last {
			i.t.Fatalf("Data-In % x, %d bytes into its burst", r.header, burst)
		}
		if r.flag(bitFinal) {
			burst = 0
		}
	}
	return pdus
}

func TestTransferForms(t *testing.T) {
	r := newRig(t, Limits{})
	for _, c := range []struct {
		name                         string
		keys                         []string
		size                         int
		immediate, unsolicited, step int
		r2ts                         int
	}{
		{name: "all immediate", size: 4096, immediate: 4096},
		{name: "immediate and R2T", size: 128 << 10, immediate: 8192, step: 8192, r2ts: 1},
		{name: "only R2T", keys: []string{"ImmediateData=No"}, size: 4096, step: 1000, r2ts: 1},
		{name: "several R2Ts", keys: []string{"MaxBurstLength=1024"}, size: 10240, step: 512, r2ts: 10},
		{name: "several R2Ts at once", keys: []string{"MaxBurstLength=1024", "MaxOutstandingR2T=4"}, size: 10240, immediate: 512, step: 1024, r2ts: 10},
		{name: "unsolicited", keys: []string{"InitialR2T=No", "ImmediateData=No"}, size: 8192, unsolicited: 8192, step: 1024},
		{name: "unsolicited after immediate", keys: []string{"InitialR2T=No"}, size: 8192, immediate: 1024, unsolicited: 7168, step: 3333},
		{name: "everything", keys: []string{"InitialR2T=No", "FirstBurstLength=4096", "MaxBurstLength=8192", "MaxOutstandingR2T=8"}, size: 64 << 10, immediate: 1024, unsolicited: 3072, step: 2048, r2ts: 8},
		{name: "less unsolicited data than could be", keys: []string{"InitialR2T=No"}, size: 8192, immediate: 1024, unsolicited: 1024, step: 1024, r2ts: 1},
		{name: "in odd pieces", keys: []string{"MaxRecvDataSegmentLength=513"}, size: 8192, immediate: 1023, step: 1021, r2ts: 1},
		{name: "digests", keys: []string{"HeaderDigest=CRC32C", "DataDigest=CRC32C", "MaxRecvDataSegmentLength=1021"}, size: 8192, immediate: 1023, step: 1021, r2ts: 1},
		{name: "large", keys: []string{"InitialR2T=No", "FirstBurstLength=65536", "MaxBurstLength=1048576", "MaxRecvDataSegmentLength=262144"}, size: 1 << 20, immediate: 65536, step: 262144, r2ts: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := r.login(c.keys...)
			i.t = t
			data := pattern(len(c.name), c.size)
			if n := i.writeThrough(3, data, c.immediate, c.unsolicited, c.step); n != c.r2ts {
				t.Errorf("%d R2Ts instead of %d", n, c.r2ts)
			}
			i.readBackAsNegotiated(r, data)
			i.logout()
		})
	}
}

// readBackAsNegotiated takes the limits from the server's own side.
func (i *initiator) readBackAsNegotiated(r *rig, data []byte) {
	i.t.Helper()
	s := r.srv.sessions.all()[0]
	segment, burst := int(s.params.maxSend), int(s.params.maxBurst)
	if n := i.readBack(3, data, segment, burst); n < (len(data)+segment-1)/segment {
		i.t.Errorf("%d Data-In", n)
	}
}

// TestSeveralR2TsOutstanding holds the data back until all R2Ts have come.
func TestSeveralR2TsOutstanding(t *testing.T) {
	i := newRig(t, Limits{}).login("ImmediateData=No", "MaxBurstLength=512", "MaxOutstandingR2T=3")
	data := pattern(1, 5*blockSize)
	h := i.scsi(isWrite, uint32(len(data)), write10, 0, 5)
	i.send(h, nil)
	var tags []uint32
	for range 3 {
		tags = append(tags, i.recv(opR2T).u32(20))
	}
	i.echo() // no fourth
	for n := range 5 {
		i.sendData(h.tag(), tags[n], data, n*blockSize, (n+1)*blockSize, 200)
		if n < 2 {
			tags = append(tags, i.recv(opR2T).u32(20))
		}
	}
	i.status(h.tag(), 0)
	i.readBack(0, data, 8192, 512)
}

func TestResiduals(t *testing.T) {
	i := newRig(t, Limits{}).login()
	for _, c := range []struct {
		name     string
		flags    byte
		op       byte
		expected uint32
		blocks   uint16
		bits     byte
		residual uint32
		data     int // that the initiator gets
	}{
		{"read, as expected", isRead, read10, 1024, 2, 0, 0, 1024},
		{"read, more expected", isRead, read10, 2048, 2, bitUnderflow, 1024, 1024},
		{"read, less expected", isRead, read10, 512, 2, bitOverflow, 512, 512},
		{"read, nothing expected", isRead, read10, 0, 2, bitOverflow, 1024, 0},
		{"read of nothing", isRead, read10, 512, 0, bitUnderflow, 512, 0},
		{"write, more expected", isWrite, write10, 2048, 2, bitUnderflow, 1024, 0},
		{"write, less expected", isWrite, write10, 512, 2, bitOverflow, 512, 0},
		{"no data", bitFinal, 0, 0, 0, 0, 0, 0},
	} {
		h := i.scsi(c.flags, c.expected, c.op, 0, c.blocks)
		var data []byte
		if c.flags == isWrite {
			data = make([]byte, c.expected)
		}
		i.send(h, data)
		got, err := i.tryRecv()
		if err != nil {
			t.Fatal(err)
		}
		want := byte(opSCSIResp)
		if c.data > 0 {
			want = opDataIn
		}
		if got.opcode() != want || got.header[1]&(bitOverflow|bitUnderflow) != c.bits || got.u32(44) != c.residual || len(got.data) != c.data || got.header[3] != 0 {
			t.Errorf("%s: % x with %d bytes", c.name, got.header, len(got.data))
		}
	}
}

func TestSenseData(t *testing.T) {
	i := newRig(t, Limits{}).login()
	h := i.scsi(isRead, 512, 0xff, 0, 1)
	i.send(h, nil)
	r := i.status(h.tag(), byte(sam.CheckCondition))
	if want := append([]byte{0, 18}, newSense(5, 0x20, 0)...); !bytes.Equal(r.data, want) || r.u32(44) != 512 {
		t.Errorf("% x % x", r.header, r.data)
	}
	h = i.scsi(isRead, 512, read10, 0, 1)
	h[9] = 7 // a LUN that is not there
	i.send(h, nil)
	i.status(h.tag(), byte(sam.CheckCondition))
}

// sensed waits for CHECK CONDITION with the sense data.
func (i *initiator) sensed(tag uint32, want sense) {
	i.t.Helper()
	if r := i.status(tag, byte(sam.CheckCondition)); !bytes.Equal(r.data[2:], want) {
		i.t.Fatalf("sense data % x, not % x", r.data, want)
	}
}

// TestWriteFails has writes whose data is wrong. The answer comes only when all
// data has come that was under way, and nothing is written.
func TestWriteFails(t *testing.T) {
	r := newRig(t, Limits{})
	data := bytes.Repeat([]byte{0xee}, 2048)
	for _, c := range []struct {
		name   string
		keys   []string
		script func(i *initiator) (tag uint32)
		want   sense
	}{
		{"refused by the device, with unsolicited data", []string{"InitialR2T=No"}, func(i *initiator) uint32 {
			h := i.scsi(bitWrite, 2048, write10, 1<<30, 4)
			i.send(h, data[:512])
			i.echo()
			i.sendData(h.tag(), noTag, data, 512, 2048, 512)
			return h.tag()
		}, newSense(5, 0x21, 0)},
		{"immediate data that was not agreed upon", []string{"ImmediateData=No"}, func(i *initiator) uint32 {
			h := i.scsi(isWrite, 2048, write10, 0, 4)
			i.send(h, data)
			return h.tag()
		}, senseUnexpectedData},
		{"unsolicited data that was not agreed upon", nil, func(i *initiator) uint32 {
			h := i.scsi(bitWrite, 2048, write10, 0, 4)
			i.send(h, data[:512])
			i.echo()
			i.sendData(h.tag(), noTag, data, 512, 2048, 512)
			return h.tag()
		}, senseUnexpectedData},
		{"more immediate data than FirstBurstLength", []string{"FirstBurstLength=512"}, func(i *initiator) uint32 {
			h := i.scsi(isWrite, 2048, write10, 0, 4)
			i.send(h, data)
			return h.tag()
		}, senseWrongAmount},
		{"more immediate data than expected", nil, func(i *initiator) uint32 {
			h := i.scsi(isWrite, 512, write10, 0, 4)
			i.send(h, data)
			return h.tag()
		}, senseWrongAmount},
		{"DataSN", []string{"InitialR2T=No"}, func(i *initiator) uint32 {
			h := i.scsi(bitWrite, 2048, write10, 0, 4)
			i.send(h, nil)
			i.send(i.dataOut(h.tag(), noTag, 1, 0, false), data[:512])
			i.echo()
			i.send(i.dataOut(h.tag(), noTag, 2, 512, true), data[512:])
			return h.tag()
		}, senseWrongAmount},
		{"buffer offset", []string{"InitialR2T=No"}, func(i *initiator) uint32 {
			h := i.scsi(bitWrite, 2048, write10, 0, 4)
			i.send(h, nil)
			i.send(i.dataOut(h.tag(), noTag, 0, 512, true), data[:512])
			return h.tag()
		}, senseWrongAmount},
		{"buffer offset far out", []string{"ImmediateData=No"}, func(i *initiator) uint32 {
			h := i.scsi(isWrite, 2048, write10, 0, 4)
			i.send(h, nil)
			i.send(i.dataOut(h.tag(), i.recv(opR2T).u32(20), 0, 0xfffffff0, true), data[:512])
			return h.tag()
		}, senseWrongAmount},
		{"more than was asked for", []string{"ImmediateData=No"}, func(i *initiator) uint32 {
			h := i.scsi(isWrite, 2048, write10, 0, 2)
			i.send(h, nil)
			i.send(i.dataOut(h.tag(), i.recv(opR2T).u32(20), 0, 0, true), data[:1025])
			return h.tag()
		}, senseWrongAmount},
		{"less than was asked for", []string{"ImmediateData=No"}, func(i *initiator) uint32 {
			h := i.scsi(isWrite, 2048, write10, 0, 4)
			i.send(h, nil)
			i.send(i.dataOut(h.tag(), i.recv(opR2T).u32(20), 0, 0, true), data[:1024])
			return h.tag()
		}, senseWrongAmount},
		{"another transfer tag", []string{"ImmediateData=No"}, func(i *initiator) uint32 {
			h := i.scsi(isWrite, 2048, write10, 0, 4)
			i.send(h, nil)
			i.send(i.dataOut(h.tag(), i.recv(opR2T).u32(20)+1, 0, 0, true), data)
			return h.tag()
		}, senseUnexpectedData},
		{"bidirectional", nil, func(i *initiator) uint32 {
			h := i.scsi(isWrite|isRead, 2048, write10, 0, 4)
			i.write(i.encode(h, []byte{0, 5, 2, 0, 0, 0, 2, 0}, data[:512]))
			return h.tag()
		}, senseBadUnit},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := r.login(c.keys...)
			i.t = t
			i.sensed(c.script(i), c.want)
			i.echo()
			i.readBack(0, make([]byte, 2048), 8192, 1<<20)
			i.logout()
		})
	}
}

// TestDamagedData has a wrong data digest in all that can have data: it is
// rejected, counts as received, and does nothing (RFC 7143 section 7.8).
func TestDamagedData(t *testing.T) {
	r := newRig(t, Limits{})
	i := r.login("HeaderDigest=CRC32C", "DataDigest=CRC32C", "InitialR2T=No")
	damaged := func(h header, data []byte) header {
		b := i.encode(h, nil, data)
		b[len(b)-1] ^= 1
		i.write(b)
		i.rejected(rejectDataDigest, h)
		return h
	}
	h := damaged(i.scsi(isWrite, 512, write10, 0, 1), pattern(0, 512))
	i.sensed(h.tag(), senseDataDigest)

	write := i.scsi(bitWrite, 1024, write10, 0, 2)
	i.send(write, pattern(0, 512))
	damaged(i.dataOut(write.tag(), noTag, 0, 512, true), pattern(0, 512))
	i.sensed(write.tag(), senseDataDigest)

	write = i.scsi(isWrite, 1024, write10, 0, 2)
	i.send(write, nil)
	tag := i.recv(opR2T).u32(20)
	damaged(i.dataOut(write.tag(), tag, 0, 0, false), pattern(0, 512)) // and the rest is waited for
	i.echo()
	i.send(i.dataOut(write.tag(), tag, 1, 512, true), pattern(0, 512))
	i.sensed(write.tag(), senseDataDigest)

	damaged(i.dataOut(0x777, noTag, 0, 0, true), []byte("of a command that is not there"))
	i.readBack(0, make([]byte, 1024), 8192, 1<<20)
	for _, op := range []byte{bitImmediate | opNopOut, opNopOut, opText, opLogout, opTaskMgmt} {
		damaged(i.request(op), []byte("SendTargets=All\x00"))
	}
	i.echo()
}

// TestDamagedHeader ends the session: nobody knows where the next PDU begins.
func TestDamagedHeader(t *testing.T) {
	i := newRig(t, Limits{}).login("HeaderDigest=CRC32C")
	b := i.encode(i.request(bitImmediate|opNopOut), nil, []byte("ping"))
	b[headerSize] ^= 1
	i.write(b)
	i.closed()
}

func TestCommandOrder(t *testing.T) {
	i := newRig(t, Limits{CommandWindow: 4}).login()
	ask := func() header { return i.scsi(bitFinal, 0, 0, 0, 0) }
	h := ask()
	i.send(h, nil)
	if r := i.status(h.tag(), 0); r.u32(28) != i.cmdSN || r.u32(32) != i.cmdSN+3 {
		t.Fatalf("window % x after CmdSN %d", r.header, i.cmdSN-1)
	}
	i.send(h, nil) // the same CmdSN again, and one past the window: both ignored
	h = ask()
	h.put32(24, i.cmdSN+3)
	i.send(h, nil)
	i.cmdSN--
	i.echo()
	h = ask()
	h[0] |= bitImmediate // does not count
	i.cmdSN--
	i.send(h, nil)
	i.status(h.tag(), 0)
	h = ask()
	i.send(h, nil)
	i.status(h.tag(), 0)
	h = ask()
	h.put32(24, i.cmdSN) // a gap that nothing will fill
	i.send(h, nil)
	i.closed()
}

// TestWindow fills the window with commands that hang: it closes, and opens
// again as they are aborted. Meanwhile, immediate requests go through.
func TestWindow(t *testing.T) {
	r := newRig(t, Limits{CommandWindow: 4})
	i := r.login()
	var hung []header
	for range 4 {
		h := i.scsi(bitFinal, 0, opHang, 0, 0)
		i.send(h, nil)
		<-r.disk.hung
		hung = append(hung, h)
	}
	late := i.scsi(bitFinal, 0, 0, 0, 0)
	i.send(late, nil) // ignored
	i.cmdSN--
	i.echo()
	got := i.manage(sam.AbortTask, hung[0], tmfComplete)
	if got.u32(28) != i.cmdSN || got.u32(32) != i.cmdSN {
		t.Fatalf("window % x, not one place at %d", got.header, i.cmdSN)
	}
	i.cmdSN++
	i.send(late, nil)
	i.status(late.tag(), 0)
}

// TestImmediateLimit hangs as many immediate commands as may be.
func TestImmediateLimit(t *testing.T) {
	r := newRig(t, Limits{CommandWindow: 1})
	i := r.login()
	hang := func() header {
		h := i.scsi(bitFinal, 0, opHang, 0, 0)
		h[0] |= bitImmediate
		i.cmdSN--
		i.send(h, nil)
		return h
	}
	for range immediateLimit {
		hang()
		<-r.disk.hung
	}
	i.rejected(rejectTooManyImm, hang())
}

func TestTagInUse(t *testing.T) {
	r := newRig(t, Limits{})
	i := r.login()
	h := i.scsi(bitFinal, 0, opHang, 0, 0)
	i.send(h, nil)
	<-r.disk.hung
	h.put32(24, i.cmdSN)
	i.cmdSN++
	i.send(h, nil)
	i.rejected(rejectTaskInFlight, h)
	i.echo()
}

// TestSlowCommandsHoldNobodyUp has more hanging commands than processors, and
// others that pass them.
func TestSlowCommandsHoldNobodyUp(t *testing.T) {
	r := newRig(t, Limits{})
	i := r.login()
	for range 100 {
		i.send(i.scsi(bitFinal, 0, opHang, 0, 0), nil)
		<-r.disk.hung
	}
	i.writeThrough(1, pattern(2, 4096), 4096, 0, 0)
	i.readBack(1, pattern(2, 4096), 8192, 1<<20)
}

func TestUnsupportedPDUs(t *testing.T) {
	i := newRig(t, Limits{}).login()
	for opcode, why := range map[byte]rejectReason{
		opSNACK: rejectSNACK, 0x1c: rejectUnsupported, opReject: rejectUnsupported, opLogin | bitImmediate: rejectProtocol,
	} {
		h := i.request(opcode | bitImmediate)
		i.send(h, nil)
		i.rejected(why, h)
	}
	i.send(i.dataOut(0x777, noTag, 0, 0, true), []byte("of a command that is not there"))
	i.echo()
}

func TestPingData(t *testing.T) {
	i := newRig(t, Limits{}).login("MaxRecvDataSegmentLength=512")
	h := i.request(opNopOut) // not immediate
	h.put32(20, noTag)
	i.send(h, pattern(0, 1000))
	if r := i.recv(opNopIn); !bytes.Equal(r.data, pattern(0, 512)) || r.u32(20) != noTag || r.u32(28) != i.cmdSN {
		t.Errorf("% x with %d bytes", r.header, len(r.data))
	}
	h = i.request(bitImmediate | opNopOut) // wants no answer
	h.put32(16, noTag)
	i.send(h, nil)
	i.echo()
}

func TestPingOfTheTarget(t *testing.T) {
	r := newRig(t, Limits{PingInterval: 20 * time.Millisecond, PingTimeout: 10 * time.Second})
	i := r.login()
	for range 3 {
		got := i.recv(opNopIn)
		if got.tag() != noTag || got.u32(20) == noTag {
			t.Fatalf("% x", got.header)
		}
		h := i.request(bitImmediate | opNopOut)
		h.put32(16, noTag)
		h.put32(20, got.u32(20))
		i.send(h, nil)
	}
}

func TestDeadInitiator(t *testing.T) {
	r := newRig(t, Limits{PingInterval: 20 * time.Millisecond, PingTimeout: 20 * time.Millisecond})
	i := r.login()
	i.send(i.scsi(bitFinal, 0, opHang, 0, 0), nil)
	i.closed()
	<-r.disk.freed
}

// TestConnectionLost ends a session in the middle of a write; nothing of it may
// be carried out or stay.
func TestConnectionLost(t *testing.T) {
	r := newRig(t, Limits{})
	i := r.login()
	h := i.scsi(isWrite, 4096, write10, 0, 8)
	b := i.encode(h, nil, bytes.Repeat([]byte{1}, 4096))
	i.write(b[:1000])
	s := r.srv.sessions.all()[0]
	i.conn.Close()
	<-s.ended
	r.login().readBack(0, make([]byte, 4096), 8192, 1<<20)
}

// TestLargeTransfersShareMemory has writes that need more memory than a session
// may take: their R2Ts come as the memory does.
func TestLargeTransfersShareMemory(t *testing.T) {
	r := newRig(t, Limits{SessionMemory: maxTransfer})
	s := func() *session { return r.srv.sessions.all()[0] }
	i := r.login("MaxBurstLength=1048576", "MaxRecvDataSegmentLength=262144")
	const size, n = 1 << 20, 20
	tags := map[uint32]int{}
	for k := range n {
		h := i.scsi(isWrite, size, write10, 0, size/blockSize)
		i.send(h, pattern(k, 512))
		tags[h.tag()] = k
	}
	answers, lowest := 0, int64(maxTransfer)
	for answers < n {
		r, err := i.tryRecv()
		if err != nil {
			t.Fatal(err)
		}
		switch r.opcode() {
		case opR2T:
			i.sendData(r.tag(), r.u32(20), pattern(tags[r.tag()], size), 512, size, 256<<10)
		case opSCSIResp:
			if answers++; r.header[3] != 0 {
				t.Fatalf("% x % x", r.header, r.data)
			}
		default:
			t.Fatalf("% x", r.header)
		}
		b := &s().budget
		b.mu.Lock()
		lowest = min(lowest, b.free)
		b.mu.Unlock()
	}
	if lowest < 0 || lowest == maxTransfer {
		t.Errorf("%d bytes were left of the session's memory", lowest)
	}
	for range n { // reads share it, too
		i.send(i.scsi(isRead, size, read10, 0, size/blockSize), nil)
	}
	for range n {
		for at := 0; at < size; at += 256 << 10 {
			i.recv(opDataIn)
		}
	}
}

func TestFormatErrorsEndTheSession(t *testing.T) {
	r := newRig(t, Limits{})
	for name, script := range map[string]func(i *initiator){
		"data in a read": func(i *initiator) { i.send(i.scsi(isRead, 512, read10, 0, 1), []byte("what?")) },
		"AHS in a ping": func(i *initiator) {
			i.write(i.encode(i.request(bitImmediate|opNopOut), []byte{0, 5, 2, 0, 0, 0, 0, 0}, nil))
		},
		"broken AHS": func(i *initiator) {
			i.write(i.encode(i.scsi(isRead, 512, read10, 0, 1), []byte{0xff, 0xff, 1, 0}, nil))
		},
		"segment too long": func(i *initiator) {
			h := i.request(bitImmediate | opNopOut)
			b := i.encode(h, nil, nil)
			b[5] = 0x7f
			i.write(b)
		},
	} {
		i := r.login()
		script(i)
		i.closed()
		t.Log(name)
	}
}

func TestExtendedCDB(t *testing.T) {
	i := newRig(t, Limits{}).login()
	h := i.scsi(isRead, 512, read10, 0, 1)
	i.write(i.encode(h, append([]byte{0, 17, 1, 0}, make([]byte, 16)...), nil))
	if r := i.recv(opDataIn); !r.flag(bitStatus) {
		t.Errorf("% x", r.header)
	}
}

func TestTransferIsPure(t *testing.T) {
	p := params{firstBurst: 1024, maxBurst: 1000, maxR2T: 2}
	var x transfer
	if wrong := x.begin(2500, 3000, 0, false, &p); wrong != nil || !x.waiting() || x.lacks() {
		t.Fatalf("%x, %+v", wrong, x)
	}
	if _, ok := x.ask(1, &p); ok {
		t.Fatal("asked while unsolicited data comes")
	}
	if wrong := x.arrive(dataOut{final: true, transferTag: noTag, length: 500}); wrong != nil {
		t.Fatalf("%x", wrong)
	}
	for k, want := range []readyToTransfer{{transferTag: 1, offset: 500, length: 1000}, {transferTag: 2, r2tSN: 1, offset: 1500, length: 1000}} {
		if r, ok := x.ask(uint32(k+1), &p); !ok || r != want {
			t.Fatalf("%+v, not %+v", r, want)
		}
	}
	if _, ok := x.ask(3, &p); ok || x.lacks() {
		t.Fatal("asked for too much")
	}
	for k, d := range []dataOut{{transferTag: 1, offset: 500, length: 600}, {transferTag: 1, dataSN: 1, offset: 1100, length: 400, final: true}, {transferTag: 2, offset: 1500, length: 1000, final: true}} {
		if !x.waiting() {
			t.Fatalf("not waiting before %d", k)
		}
		if wrong := x.arrive(d); wrong != nil {
			t.Fatalf("%d: %x", k, wrong)
		}
	}
	if x.waiting() || x.lacks() || x.next != 2500 {
		t.Fatalf("%+v", x)
	}
}
