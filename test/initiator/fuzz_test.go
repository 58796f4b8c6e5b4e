package initiator

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"
)

// fuzzConn is a connection from which a fuzzer's bytes are read.
type fuzzConn struct {
	net.Conn
	r io.Reader
}

func (c fuzzConn) Read(p []byte) (int, error)  { return c.r.Read(p) }
func (c fuzzConn) Write(p []byte) (int, error) { return len(p), nil }
func (c fuzzConn) Close() error                { return nil }

// FuzzSession has a session with a read and a write in flight receive anything.
func FuzzSession(f *testing.F) {
	seed := func(h header, data []byte) []byte {
		h.setDataLen(len(data))
		return append(append(h[:], data...), make([]byte, padding(len(data)))...)
	}
	numbered := func(op, flags byte, tag uint32) header {
		h := header{0: op, 1: flags}
		h.set32(atITT, tag)
		h.set32(atStatSN, 1)
		h.set32(atExpCmd, 1)
		h.set32(atMaxCmd, 40)
		return h
	}
	in := numbered(opDataIn, final|1, 1<<16)
	f.Add(seed(in, make([]byte, 512)), false)
	r2t := numbered(opR2T, final, 1<<16|1)
	r2t.set32(atResidual, 512)
	f.Add(append(seed(r2t, nil), seed(numbered(opSCSIResponse, final, 1<<16|1), nil)...), false)
	check := numbered(opSCSIResponse, final, 1<<16)
	check[3] = StatusCheckCondition
	f.Add(seed(check, append([]byte{0, 18}, attention29...)), false)
	f.Add(seed(numbered(opNopIn, final, noTag), []byte("ping")), false)
	f.Add(seed(numbered(opReject, final, noTag), make([]byte, 48)), false)
	f.Add(seed(numbered(opAsync, final, noTag), nil), true)
	f.Fuzz(func(t *testing.T, stream []byte, digests bool) {
		o := Options{MaxCommands: 4, MaxRecvDataSegmentLength: 4096}
		if err := o.complete(); err != nil {
			t.Fatal(err)
		}
		l := newLink(fuzzConn{r: bytes.NewReader(stream)})
		l.in.maxData, l.in.headerDigest, l.in.dataDigest = 4096, digests, digests
		p := Params{MaxBurst: 4096, FirstBurst: 512, MaxSend: 512, MaxOutstandingR2T: 1, InitialR2T: true}
		s := newSession(l, o, p, &login{cmdSN: 1, expStatSN: 1, maxCmdSN: 10})
		s.cmdSN.Store(3)
		for i, in := range [][]byte{make([]byte, 512), nil} {
			task := <-s.free
			task.prepare(s.lun, in, 512*i)
			task.sent = true
		}
		s.receive() // in this goroutine: it ends with the bytes
		if s.Err() == nil {
			t.Error("the session outlived its connection")
		}
	})
}

func FuzzParseKeys(f *testing.F) {
	f.Add(answers())
	f.Add([]byte("a=b"))
	f.Add([]byte("=\x00"))
	f.Add(binary.BigEndian.AppendUint64(nil, 1))
	f.Fuzz(func(t *testing.T, text []byte) {
		keys, err := parseKeys(text)
		if err == nil && !bytes.Equal(encodeKeys(keys), text) {
			t.Errorf("%q was read as %v", text, keys)
		}
	})
}
