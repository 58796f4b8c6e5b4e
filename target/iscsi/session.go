package iscsi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/twinlun/twinlun/target/sam"
)

// session is a session with its one connection. The goroutine that logged it in
// is its reader: it owns what stands under that heading, starts and ends
// everything else.
type session struct {
	srv    *Server
	log    *slog.Logger
	conn   net.Conn
	params params // fixed after login
	target *Target
	via    net.Listener // through which the initiator has come
	nexus  sam.Nexus    // nil in a discovery session
	trier  sam.Trier    // the nexus, or nil
	port   sam.InitiatorPort
	user   string // of CHAP; "": it was not asked for
	tsih   uint16
	cid    uint16
	broken chan error      // gets why there is nothing more to read
	ended  chan struct{}   // closed when nothing of the session is left
	ctx    context.Context // ends when the session begins to end
	cancel context.CancelFunc

	// Owned by the reader.
	inlet *inlet
	in    *stream
	text  exchange
	next  *command // to be executed after the present PDU
	taken int      // bytes, since it was the reader's turn to send

	// Shared, each with its own rules.
	seq     *sequenceNumbers
	tasks   tasks
	budget  budget
	queue   *queue
	workers workers
	loan    loan
	writer  *writer
	ping    pinger
	nextTag atomic.Uint32          // target transfer tags
	killed  atomic.Pointer[string] // why the server ended it
}

// errLogout ends a session in order.
var errLogout = errors.New("the initiator logged out")

func newSession(srv *Server, c *connection, l *login) *session {
	limit := srv.cfg.Limits.CommandWindow + immediateLimit
	s := &session{
		srv: srv, conn: c.conn, inlet: c.inlet, in: c.in, writer: c.writer, seq: c.seq, ping: pinger{received: &c.received},
		params: l.params, target: l.target, via: l.via, cid: l.first.cid,
		port: l.port(), user: l.user(),
		broken: make(chan error, 1), ended: make(chan struct{}), queue: newQueue(),
		tasks:   tasks{byTag: make(map[uint32]*command, limit)},
		budget:  budget{free: srv.cfg.Limits.SessionMemory},
		workers: workers{jobs: make(chan job), limit: limit + 1},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.log = c.log.With("initiator", l.initiator)
	return s
}

// openNexus opens the session's I_T nexus.
func (s *session) openNexus(portalGroup uint16) {
	s.nexus = s.target.Device.NewNexus(s.port, portalGroup)
	s.trier, _ = s.nexus.(sam.Trier)
	if u, ok := s.nexus.(sam.TaskUser); ok {
		u.UseTasks(nexusTasks{s})
	}
}

// run is the session's life after its login.
func (s *session) run() {
	s.in.maxData, s.in.maxAHS = int(s.srv.cfg.Limits.MaxRecvDataSegmentLength), maxAHS
	s.in.checkHdr, s.in.checkSeg = s.params.headerDigest, s.params.dataDigest
	s.writer.addHdr, s.writer.addSeg = s.params.headerDigest, s.params.dataDigest
	s.writer.maxSend.Store(s.params.maxSend)
	written := make(chan struct{})
	go func() {
		s.writer.run(s.queue)
		close(written)
	}()
	s.inlet.queue, s.inlet.writer = s.queue, s.writer
	s.ping.start(s)
	s.loan.start(s)
	s.workers.submit((*reading)(s))
	err := <-s.broken
	s.finish(err, written)
	s.report(err)
}

// reading is the job of a session's reader.
type reading session

// run takes one PDU after the other, until one ends the session, or somebody else
// does that.
func (r *reading) run() {
	s := (*session)(r)
	s.queue.attend(true)
	for {
		if err := s.read(); err != nil {
			s.queue.attend(false)
			s.broken <- err
			return
		}
		if c := s.next; c != nil {
			s.next = nil
			if !s.dispatch(c) {
				return
			}
		}
	}
}

// dispatch has a command executed that may take long. A small write is executed here.
// Another one that is the last that has come is, too, while another worker goes on
// reading: so the command need not wait until that has woken up. False: the caller is
// not the reader any more.
func (s *session) dispatch(c *command) (reader bool) {
	if s.lendable(c) {
		if reader, done := s.lend(c); done {
			return reader
		}
	}
	if s.in.buffered() {
		s.workers.submit(c)
		return true
	}
	s.queue.attend(false)
	s.workers.submit((*reading)(s))
	s.writer.sendNow(s.queue, true)
	c.run()
	return false
}

// read takes one PDU.
func (s *session) read() error {
	if err := s.in.next(); err != nil {
		return err
	}
	s.taken += s.in.left
	if s.queue.due() || s.taken >= turnTaken {
		s.taken = 0
		s.writer.sendNow(s.queue, true)
	}
	err := s.handle()
	if errors.Is(err, errDataDigest) {
		s.reject(rejectDataDigest, slotNone)
		return nil
	}
	if err != nil {
		return err
	}
	if err := s.in.finish(); !errors.Is(err, errDataDigest) {
		return err
	}
	return nil // of what was refused, or ignored, anyhow
}

// finish ends what belongs to the session, commands first, and waits for it.
func (s *session) finish(cause error, written <-chan struct{}) {
	if cause != errLogout {
		s.conn.Close() // else the writer has still to send the answer
	}
	s.cancel()
	s.abortAll()
	s.workers.stop()
	s.queue.close()
	<-written
	s.ping.stop()
	s.conn.Close()
	if s.nexus != nil {
		s.nexus.Close()
	}
	s.srv.sessions.remove(s)
	close(s.ended)
}

func (s *session) report(err error) {
	switch why := s.killed.Load(); {
	case why != nil:
		s.log.Log(context.Background(), s.level(), "iscsi: session ended", "why", *why)
	case s.discovery(), errors.Is(err, errLogout), errors.Is(err, io.EOF):
		s.log.Log(context.Background(), s.level(), "iscsi: session ended", "why", err)
	default:
		s.log.Warn("iscsi: session broken off", "err", err)
	}
}

// kill ends the session from outside; ended tells when that is done.
func (s *session) kill(why string) {
	s.killed.CompareAndSwap(nil, &why)
	s.conn.Close()
}

// handle takes the PDU whose header was read. What it leaves of the data segment
// is thrown away. An error ends the session.
func (s *session) handle() error {
	h := &s.in.header
	if len(s.in.ahs) > 0 && h.opcode() != opSCSI {
		return fmt.Errorf("PDU %#02x with an AHS: %w", h.opcode(), errFormat)
	}
	if s.discovery() && (h.opcode() == opSCSI || h.opcode() == opTaskMgmt || h.opcode() == opDataOut) {
		s.reject(rejectProtocol, slotNone)
		return nil
	}
	switch h.opcode() {
	case opDataOut:
		return s.handleDataOut()
	case opSNACK:
		s.reject(rejectSNACK, slotNone) // error recovery level 0 knows none
	case opLogin:
		s.reject(rejectProtocol, slotNone)
	case opSCSI, opNopOut, opTaskMgmt, opText, opLogout:
		return s.handleRequest()
	default:
		s.reject(rejectUnsupported, slotNone)
	}
	return nil
}

// handleRequest takes a PDU that has a CmdSN. One whose data is damaged counts as
// received, and is rejected (RFC 7143 section 7.8).
func (s *session) handleRequest() error {
	h := &s.in.header
	if h.opcode() == opNopOut && h.tag() == noTag {
		return s.checkSegment() // an answer to a NOP-In, or a sign of life
	}
	sl, err := s.admit(h)
	if err != nil || sl == slotNone {
		return err
	}
	if err = s.handleAdmitted(sl); errors.Is(err, errDataDigest) {
		s.reject(rejectDataDigest, sl)
		return nil
	}
	return err
}

func (s *session) handleAdmitted(sl slot) error {
	switch s.in.header.opcode() {
	case opSCSI:
		return s.handleSCSI(sl)
	case opTaskMgmt:
		return s.handleTaskRequest(sl)
	case opText:
		return s.handleText(sl)
	case opLogout:
		return s.handleLogout(sl)
	default:
		return s.handleNopOut(sl)
	}
}

// admit looks at a request's CmdSN (RFC 7143 section 4.2.2.1) and returns what
// the request takes up; slotNone: it is to be ignored.
//
// A connection keeps the order, and error recovery level 0 sends nothing twice:
// a request that leaves numbers out will never be followed by those. So there is
// nothing to put into order, and the session is broken.
func (s *session) admit(h *header) (slot, error) {
	if h.immediate() {
		if s.seq.immediates.Add(1) > immediateLimit {
			s.reject(rejectTooManyImm, slotImmediate)
			return slotNone, nil
		}
		return slotImmediate, nil
	}
	cmdSN, exp, last := h.u32(24), s.seq.exp.Load(), s.seq.max.Load()
	switch {
	case before(cmdSN, exp), before(last, cmdSN):
		s.log.Debug("iscsi: request outside of the command window ignored", "cmdsn", cmdSN, "expected", exp, "max", last)
		return slotNone, nil
	case cmdSN != exp:
		return slotNone, fmt.Errorf("CmdSN %d came where %d was expected: %w", cmdSN, exp, errFormat)
	}
	s.seq.exp.Add(1)
	return slotWindow, nil
}

// reject refuses the present PDU.
func (s *session) reject(why rejectReason, sl slot) {
	n := &note{slot: sl, status: true, data: append([]byte(nil), s.in.header[:]...)}
	r := reject{why}
	r.put(&n.header)
	s.log.Debug("iscsi: PDU rejected", "opcode", s.in.header.opcode(), "reason", why)
	s.queue.push(n, true)
}

// answer sends an answer that uses up a StatSN.
func (s *session) answer(p interface{ put(*header) }, data []byte, sl slot) {
	n := &note{slot: sl, status: true, data: data}
	p.put(&n.header)
	s.queue.push(n, true)
}

// checkSegment throws the segment of a PDU away that is no SCSI data, and checks
// it: nothing is done for a PDU that is damaged.
func (s *session) checkSegment() error { return s.in.finish() }

// segment reads the whole data segment into memory of its own.
func (s *session) segment() ([]byte, error) {
	data := make([]byte, s.in.left)
	if err := s.in.read(data); err != nil {
		return nil, err
	}
	return data, s.in.finish()
}

// handleNopOut sends the ping data back.
func (s *session) handleNopOut(sl slot) error {
	q := parseNopOut(&s.in.header)
	data, err := s.segment()
	if err != nil {
		return err
	}
	data = data[:min(len(data), int(s.writer.maxSend.Load()))]
	s.answer(&nopIn{lun: q.lun, tag: q.tag, transferTag: noTag}, data, sl)
	return nil
}

// handleLogout ends all commands, answers and ends the session. With one
// connection, closing that is closing the session (RFC 7143 section 11.14).
func (s *session) handleLogout(sl slot) error {
	q := parseLogoutRequest(&s.in.header)
	if err := s.checkSegment(); err != nil {
		return err
	}
	r := logoutResponse{tag: q.tag, response: logoutDone, time2Wait: 2}
	switch {
	case q.reason == logoutRecovery:
		r.response = logoutNoRecovery
	case q.reason > logoutRecovery:
		s.reject(rejectInvalidField, sl)
		return nil
	case q.reason == logoutConnection && q.cid != s.cid:
		r.response = logoutNoCID
	}
	if r.response == logoutDone {
		s.abortAll()
	}
	s.answer(&r, nil, sl)
	if r.response == logoutDone {
		return errLogout
	}
	return nil
}

// announce asks the initiator to log out (RFC 7143 section 11.9.1).
func (s *session) announce(within time.Duration) {
	s.answer(&asyncMessage{event: asyncLogout, parameter3: uint16(within / time.Second)}, nil, slotNone)
}
