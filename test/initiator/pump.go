package initiator

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"syscall"
	"time"
)

// Pump is a session for benchmarks: one goroutine sends commands of one kind and
// takes their answers with as few system calls as it can, so that what is measured
// is the target, and not the initiator. Data that is read is thrown away unseen.
// Numbers, lengths and statuses are checked like a Session's.
//
// A Pump is not for concurrent use. It speaks to its target while Run runs, and only
// then: pings of the target are answered late.
type Pump struct {
	opts   Options
	params Params
	lun    [8]byte
	fd     int
	close  func() error

	in  []byte // received; in[at:end] is not used yet
	at  int
	end int

	out     []byte // PDUs to be sent …
	payload []byte // the data of every write

	cmdSN, maxCmdSN uint32
	expStatSN       uint32
	free            []uint16 // slots, which are task tags
	slots           []pumped
}

// pumped is a command in flight.
type pumped struct {
	live bool
	got  int // bytes of Data-In
}

// Work is what a Pump does in one Run.
type Work struct {
	Write bool
	Size  int          // bytes of a command, at most 8 MiB; blocks have 512 bytes
	Depth int          // commands in flight, 1 to 1024
	Next  func() int64 // the offset of the next command, in bytes
	// Commands are sent until one of these; what is in flight is waited for.
	Count int64     // of commands; 0: no limit
	Until time.Time // zero: no limit
}

// more tells whether another command is to be sent.
func (w *Work) more(sent int64) bool {
	return (w.Count == 0 || sent < w.Count) && (w.Until.IsZero() || time.Now().Before(w.Until))
}

const (
	// pumpSilence is how long a target may be silent.
	pumpSilence = time.Minute
	pumpDepth   = 1024
	// pumpBuffer holds what one system call receives.
	pumpBuffer = 1 << 20
	// pumpSmall is the size up to which data is sent together with other PDUs.
	pumpSmall = 64 << 10
)

// NewPump logs in. Unit attentions that wait for the new session are taken away.
func NewPump(ctx context.Context, o Options) (*Pump, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	if o.HeaderDigest || o.DataDigest {
		return nil, fmt.Errorf("initiator: a pump has no digests")
	}
	l, err := connect(ctx, &o)
	if err != nil {
		return nil, err
	}
	lg := &login{link: l, opts: &o, isid: o.ISID, cmdSN: o.FirstCmdSN}
	params, err := lg.run(ctx)
	if err == nil && l.in.r.Buffered() > 0 {
		err = protocolError("a PDU right after the login")
	}
	if err != nil {
		l.conn.Close()
		return nil, fmt.Errorf("session with %s at %s: %w", o.TargetIQN, o.Address, err)
	}
	p := &Pump{
		opts: o, params: params, lun: EncodeLUN(o.LUN), in: make([]byte, pumpBuffer),
		cmdSN: lg.cmdSN, maxCmdSN: lg.maxCmdSN, expStatSN: lg.expStatSN,
		slots: make([]pumped, pumpDepth),
	}
	if err := p.takeSocket(l.conn); err != nil {
		return nil, err
	}
	return p, p.settle()
}

// takeSocket turns the connection into a blocking socket: waiting in the kernel
// costs less than by way of the runtime's poller.
func (p *Pump) takeSocket(conn net.Conn) error {
	defer conn.Close() // File is a copy
	f, err := conn.(*net.TCPConn).File()
	if err != nil {
		return err
	}
	p.fd, p.close = int(f.Fd()), f.Close
	limit := syscall.NsecToTimeval(int64(pumpSilence))
	for _, option := range []int{syscall.SO_RCVTIMEO, syscall.SO_SNDTIMEO} {
		if err := syscall.SetsockoptTimeval(p.fd, syscall.SOL_SOCKET, option, &limit); err != nil {
			f.Close()
			return fmt.Errorf("set a time limit of a socket: %w", err)
		}
	}
	return nil
}

// Params tells what the login has agreed upon.
func (p *Pump) Params() Params { return p.params }

// Close cuts the connection.
func (p *Pump) Close() error { return p.close() }

// settle sends TEST UNIT READY until no unit attention is left.
func (p *Pump) settle() error {
	const most = 8
	for range most {
		p.free = append(p.free[:0], 0)
		p.command([16]byte{}, 0, 0)
		if err := p.flush(); err != nil {
			return err
		}
		if good, err := p.answerToReady(); good || err != nil {
			return err
		}
	}
	return fmt.Errorf("the unit is not ready after %d commands", most)
}

func (p *Pump) answerToReady() (good bool, err error) {
	h, err := p.header()
	if err != nil {
		return false, err
	}
	if h.op() != opSCSIResponse {
		return false, protocolError("PDU %#02x for TEST UNIT READY", h.op())
	}
	return h[3] == StatusGood, p.skip(h)
}

// Run does work, and returns how many commands it was. After an error the pump can
// only be closed. It returns at latest when the target has been silent for a minute.
func (p *Pump) Run(w Work) (n int64, err error) {
	if w.Size < 512 || w.Size > 8<<20 || w.Depth < 1 || w.Depth > pumpDepth {
		return 0, fmt.Errorf("initiator: %d commands of %d bytes are no work for a pump", w.Depth, w.Size)
	}
	if len(p.payload) < w.Size {
		p.payload = make([]byte, w.Size)
		rand.Read(p.payload) // never fails; zeros could be taken for a hole
	}
	p.free = p.free[:0]
	for i := range w.Depth {
		p.free = append(p.free, uint16(i))
	}
	for sent := int64(0); ; {
		for ; len(p.free) > 0 && int32(p.maxCmdSN-p.cmdSN) >= 0 && w.more(sent); sent++ {
			if err := p.start(&w); err != nil {
				return n, err
			}
		}
		if err := p.flush(); err != nil {
			return n, err
		}
		if len(p.free) == w.Depth {
			return n, nil
		}
		done, err := p.answers(&w)
		if n += done; err != nil {
			return n, err
		}
	}
}

// start puts one command among the PDUs to be sent, with its unsolicited data.
func (p *Pump) start(w *Work) error {
	off := w.Next()
	var cdb [16]byte
	cdb[0] = cdbRead16
	if w.Write {
		cdb[0] = cdbWrite16
	}
	binary.BigEndian.PutUint64(cdb[2:], uint64(off/512))
	binary.BigEndian.PutUint32(cdb[10:], uint32(w.Size/512))
	if !w.Write {
		p.command(cdb, 0x40, w.Size)
		return nil
	}
	now, unsolicited := p.unsolicited(w.Size)
	tag := p.commandWith(cdb, 0x20, w.Size, now, now == unsolicited)
	if err := p.data(0, now); err != nil || now == unsolicited {
		return err
	}
	return p.dataOut(tag, noTag, now, unsolicited)
}

// unsolicited tells how much of a write goes with the command, and how much goes
// without being asked for.
func (p *Pump) unsolicited(size int) (now, all int) {
	if !p.params.InitialR2T {
		all = min(size, p.params.FirstBurst)
	}
	if p.params.ImmediateData {
		now = min(size, p.params.FirstBurst, p.params.MaxSend)
	}
	return now, max(now, all)
}

// command is commandWith for commands that send nothing.
func (p *Pump) command(cdb [16]byte, flags byte, length int) {
	p.commandWith(cdb, flags, length, 0, true)
}

// commandWith puts a command's header among the PDUs to be sent; now bytes of data
// have to follow.
func (p *Pump) commandWith(cdb [16]byte, flags byte, length, now int, last bool) (tag uint32) {
	slot := p.free[len(p.free)-1]
	p.free = p.free[:len(p.free)-1]
	p.slots[slot] = pumped{live: true}
	h := header{0: opSCSICommand, 1: flags | 1}
	if last {
		h[1] |= final
	}
	copy(h[atLUN:], p.lun[:])
	h.set32(atITT, uint32(slot))
	h.set32(20, uint32(length))
	h.set32(atCmdSN, p.cmdSN)
	h.set32(atExpStat, p.expStatSN)
	copy(h[32:], cdb[:])
	h.setDataLen(now)
	p.cmdSN++
	p.out = append(p.out, h[:]...)
	return uint32(slot)
}

// dataOut sends payload[at:end], of the transfer ttt.
func (p *Pump) dataOut(tag, ttt uint32, at, end int) error {
	for sn := uint32(0); at < end; sn++ {
		n := min(end-at, p.params.MaxSend)
		h := header{0: opDataOut}
		if at+n == end {
			h[1] = final
		}
		copy(h[atLUN:], p.lun[:])
		h.set32(atITT, tag)
		h.set32(atTTT, ttt)
		h.set32(atExpStat, p.expStatSN)
		h.set32(atDataSN, sn)
		h.set32(atOffset, uint32(at))
		h.setDataLen(n)
		p.out = append(p.out, h[:]...)
		if err := p.data(at, n); err != nil {
			return err
		}
		at += n
	}
	return nil
}

// data puts n bytes of the payload behind the PDU's header: small ones as a copy,
// large ones straight from where they lie, together with all that waits before.
func (p *Pump) data(at, n int) error {
	if n <= pumpSmall {
		p.out = append(p.out, p.payload[at:at+n]...)
		if len(p.out) < pumpBuffer {
			return nil
		}
		return p.flush()
	}
	err := writeBoth(p.fd, p.out, p.payload[at:at+n])
	p.out = p.out[:0]
	return err
}

func (p *Pump) flush() error {
	if len(p.out) == 0 {
		return nil
	}
	err := writeBoth(p.fd, p.out, nil)
	p.out = p.out[:0]
	return err
}

// answers waits for PDUs of the target, and takes all that are there.
func (p *Pump) answers(w *Work) (done int64, err error) {
	for {
		h, err := p.header()
		if err != nil {
			return done, err
		}
		ended, err := p.answer(h, w)
		if err != nil {
			return done, err
		}
		done += ended
		if p.end-p.at < len(header{}) {
			return done, nil
		}
	}
}

// answer takes one PDU; 1: a command has ended.
func (p *Pump) answer(h *header, w *Work) (int64, error) {
	op, tag := h.op(), h.u32(atITT)
	if op == opNopIn && tag == noTag {
		p.pong(h)
		return 0, p.skip(h)
	}
	if int(tag) >= w.Depth || !p.slots[tag].live {
		return 0, protocolError("PDU %#02x for task %#x", op, tag)
	}
	slot := &p.slots[tag]
	switch {
	case op == opDataIn && !w.Write:
		slot.got += h.dataLen()
		if h[1]&1 == 0 {
			return 0, p.skip(h)
		}
	case op == opR2T && w.Write:
		return 0, p.asked(h, w)
	case op != opSCSIResponse:
		return 0, protocolError("PDU %#02x", op)
	}
	if h[3] != StatusGood || op == opSCSIResponse && h[2] != 0 || h[1]&6 != 0 || !w.Write && slot.got != w.Size {
		return 0, fmt.Errorf("a command ended with status %#02x, response %d, flags %#02x, after %d bytes", h[3], h[2], h[1], slot.got)
	}
	slot.live = false
	p.free = append(p.free, uint16(tag))
	return 1, p.skip(h)
}

// asked sends what an R2T asks for.
func (p *Pump) asked(h *header, w *Work) error {
	at, n := int(h.u32(atOffset)), int(h.u32(atResidual))
	if n == 0 || n > p.params.MaxBurst || at+n > w.Size {
		return protocolError("R2T for %d bytes at %d of %d", n, at, w.Size)
	}
	return p.dataOut(h.u32(atITT), h.u32(atTTT), at, at+n)
}

// pong answers a ping that wants it.
func (p *Pump) pong(ping *header) {
	if ping.u32(atTTT) == noTag {
		return
	}
	h := header{0: opNopOut | immediate, 1: final}
	copy(h[atLUN:], ping[atLUN:atLUN+8])
	h.set32(atITT, noTag)
	h.set32(atTTT, ping.u32(atTTT))
	h.set32(atCmdSN, p.cmdSN)
	h.set32(atExpStat, p.expStatSN)
	p.out = append(p.out, h[:]...)
}

// header receives the next PDU's header, and checks its numbers.
func (p *Pump) header() (*header, error) {
	if err := p.receive(len(header{})); err != nil {
		return nil, err
	}
	h := (*header)(p.in[p.at:])
	p.at += len(h)
	if h[4] != 0 || h.dataLen() > p.opts.MaxRecvDataSegmentLength {
		return nil, protocolError("PDU %#02x with %d words of AHS and %d bytes of data", h.op(), h[4], h.dataLen())
	}
	if most := h.u32(atMaxCmd); int32(most-p.maxCmdSN) > 0 {
		p.maxCmdSN = most
	}
	op := h.op()
	if op == opR2T || op == opDataIn && h[1]&1 == 0 || op == opNopIn && h.u32(atITT) == noTag {
		return h, nil
	}
	if got := h.u32(atStatSN); got != p.expStatSN {
		return nil, protocolError("PDU %#02x with StatSN %d, expected %d", op, got, p.expStatSN)
	}
	p.expStatSN++
	return h, nil
}

// skip throws the data of a PDU away. The header is not to be used afterwards.
func (p *Pump) skip(h *header) error {
	n := h.dataLen()
	n += padding(n)
	for n > p.end-p.at {
		n -= p.end - p.at
		p.at, p.end = 0, 0
		if err := p.receive(1); err != nil {
			return err
		}
	}
	p.at += n
	return nil
}

// receive waits until n bytes are there.
func (p *Pump) receive(n int) error {
	if p.at == p.end {
		p.at, p.end = 0, 0
	} else if p.at+n > len(p.in) {
		p.end = copy(p.in, p.in[p.at:p.end])
		p.at = 0
	}
	for p.end-p.at < n {
		got, err := syscall.Read(p.fd, p.in[p.end:])
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return fmt.Errorf("%w: no answer for %v", ErrConnectionLost, pumpSilence)
		case err != nil:
			return fmt.Errorf("%w: %w", ErrConnectionLost, err)
		case got == 0:
			return fmt.Errorf("%w: the target has closed it", ErrConnectionLost)
		}
		p.end += got
	}
	return nil
}
