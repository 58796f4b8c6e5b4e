package initiator

import (
	"context"
	"encoding/binary"
	"net"
	"sync"
	"testing"
	"time"
)

const (
	fakeName     = "iqn.2026-01.test:fake"
	fakeMaxSend  = 4096 // its MaxRecvDataSegmentLength
	fakeFirst    = 8192
	fakeMaxBurst = 16384
)

// fake is one connection to a target that does what a test says.
type fake struct {
	*link
	t      *testing.T
	statSN uint32
	expCmd uint32
	window uint32 // how many commands it takes beyond expCmd
	login  header // the last login request
}

// serve listens, and plays one script per connection, in order. The listener and
// what is left of the connections go with the test.
func serve(t *testing.T, scripts ...func(*fake)) Options {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for _, script := range scripts {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.SetDeadline(time.Now().Add(20 * time.Second)) // a test that hangs, fails
			f := &fake{link: newLink(conn), t: t, statSN: 1000, window: 32}
			f.in.maxData = 1 << 24
			script(f)
			conn.Close()
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return Options{
		Address: l.Addr().String(), TargetIQN: fakeName, PingInterval: -1,
		FirstBurstLength: fakeFirst, MaxBurstLength: fakeMaxBurst,
	}
}

// next reads a PDU; false: the initiator has gone.
func (f *fake) next() (*header, []byte, bool) {
	var h header
	if f.in.header(&h) != nil {
		return nil, nil, false
	}
	data, err := f.in.data()
	if op := h.op(); h[0]&immediate == 0 && (op == opSCSICommand || op == opTextRequest) {
		f.expCmd = h.u32(atCmdSN) + 1
	}
	return &h, data, err == nil
}

// expect reads a PDU that has to be of one kind.
func (f *fake) expect(op byte) (*header, []byte) {
	h, data, ok := f.next()
	if !ok || h.op() != op {
		f.t.Errorf("the initiator sent %v, expected PDU %#02x", h, op)
		return &header{}, nil
	}
	return h, data
}

// send fills in the numbers and writes a PDU.
func (f *fake) send(h header, data []byte) {
	h.set32(atStatSN, f.statSN)
	h.set32(atExpCmd, f.expCmd)
	h.set32(atMaxCmd, f.expCmd+f.window-1)
	counts := h.op() != opR2T && !(h.op() == opNopIn && h.u32(atITT) == noTag) && !(h.op() == opDataIn && h[1]&1 == 0)
	if counts {
		f.statSN++
	}
	f.raw(h, data)
}

// raw writes a PDU as it is. What the initiator does not want to hear is not an
// error of the target.
func (f *fake) raw(h header, data []byte) {
	f.out.pdu(&h, nil, data)
	f.out.w.Flush()
}

// respond ends a command.
func (f *fake) respond(cmd *header, status byte, sense []byte) {
	h := header{0: opSCSIResponse, 1: final, 3: status}
	copy(h[atITT:], cmd[atITT:atITT+4])
	var data []byte
	if sense != nil {
		data = append(binary.BigEndian.AppendUint16(nil, uint16(len(sense))), sense...)
	}
	f.send(h, data)
}

// pdu makes a header for a command's PDU.
func pduFor(cmd *header, op, flags byte) header {
	h := header{0: op, 1: flags}
	copy(h[atITT:], cmd[atITT:atITT+4])
	return h
}

var fakeAnswers = map[string]string{
	"HeaderDigest": "None", "DataDigest": "None", "MaxRecvDataSegmentLength": "4096",
	"DefaultTime2Wait": "2", "DefaultTime2Retain": "0", "ErrorRecoveryLevel": "0",
	"InitialR2T": "No", "ImmediateData": "Yes", "MaxBurstLength": "16384", "FirstBurstLength": "8192",
	"MaxOutstandingR2T": "4", "MaxConnections": "1", "DataPDUInOrder": "Yes", "DataSequenceInOrder": "Yes",
}

// answers makes the text of the operational stage, with changes; "" leaves out.
func answers(changes ...pair) []byte {
	all := map[string]string{}
	for k, v := range fakeAnswers {
		all[k] = v
	}
	for _, c := range changes {
		all[c.key] = c.value
	}
	var keys []pair
	for k, v := range all {
		if v != "" {
			keys = append(keys, pair{k, v})
		}
	}
	return encodeKeys(keys)
}

// answer answers a login request. Flags: transit, goesOn; stages as in the request.
func (f *fake) answer(req *header, flags byte, class, detail byte, text []byte) {
	f.login = *req
	h := header{0: opLoginResponse, 1: flags, 36: class, 37: detail}
	copy(h[8:14], req[8:14])
	copy(h[atITT:], req[atITT:atITT+4])
	if flags&3 == stageFull {
		h[15] = 1 // TSIH
	}
	f.expCmd = req.u32(atCmdSN)
	f.send(h, text)
}

const (
	toOperational = transit | stageSecurity<<2 | stageOperational
	toFull        = transit | stageOperational<<2 | stageFull
)

func (f *fake) security() {
	req, _ := f.expect(opLoginRequest)
	f.answer(req, toOperational, 0, 0, encodeKeys([]pair{{"AuthMethod", "None"}, {"TargetPortalGroupTag", "1"}}))
}

// accept logs the initiator in.
func (f *fake) accept(changes ...pair) {
	f.security()
	req, _ := f.expect(opLoginRequest)
	f.answer(req, toFull, 0, 0, answers(changes...))
	f.in.headerDigest = string(changeOf(changes, "HeaderDigest")) == "CRC32C"
	f.in.dataDigest = string(changeOf(changes, "DataDigest")) == "CRC32C"
	f.out.headerDigest, f.out.dataDigest = f.in.headerDigest, f.in.dataDigest
}

func changeOf(changes []pair, key string) string {
	for _, c := range changes {
		if c.key == key {
			return c.value
		}
	}
	return ""
}

// logged is a script that logs in first.
func logged(script func(*fake)) func(*fake) {
	return func(f *fake) { f.accept(); script(f) }
}

// drain reads until the initiator goes.
func (f *fake) drain() {
	for _, _, ok := f.next(); ok; _, _, ok = f.next() {
	}
}

// readCommand is a raw READ (16) of n bytes.
func readCommand(ctx context.Context, s *Session, n int) (Result, []byte, error) {
	p := make([]byte, n)
	r, err := s.Command(ctx, []byte{cdbRead16, 15: 0}, nil, p)
	return r, p, err
}
