package initiator

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// TestBreaches: whatever a target does against the RFC, the initiator sees it.
func TestBreaches(t *testing.T) {
	dataIn := func(cmd *header, flags byte, sn, off uint32) header {
		h := pduFor(cmd, opDataIn, flags)
		h.set32(atTTT, noTag)
		h.set32(atDataSN, sn)
		h.set32(atOffset, off)
		return h
	}
	r2t := func(cmd *header, sn, off, n uint32) header {
		h := pduFor(cmd, opR2T, final)
		h.set32(atTTT, 7)
		h.set32(atDataSN, sn)
		h.set32(atOffset, off)
		h.set32(atResidual, n)
		return h
	}
	data := make([]byte, 4096)
	for _, c := range []struct {
		name  string
		write bool // else a READ of 8192 bytes; a WRITE has 32768
		do    func(f *fake, cmd *header)
		says  string
	}{
		{"StatSN skips", false, func(f *fake, cmd *header) { f.statSN++; f.respond(cmd, 0, nil) }, "StatSN 1003, expected 1002"},
		{"ExpCmdSN ahead", false, func(f *fake, cmd *header) { f.expCmd += 2; f.respond(cmd, 2, nil) }, "ExpCmdSN"},
		{"task unknown", false, func(f *fake, cmd *header) { cmd[17]++; f.respond(cmd, 0, nil) }, "not in flight"},
		{"task ended twice", false, func(f *fake, cmd *header) { f.respond(cmd, 8, nil); f.respond(cmd, 8, nil) }, "not in flight"},
		{"no data, no residual", false, func(f *fake, cmd *header) { f.respond(cmd, 0, nil) }, "0 bytes received of 8192"},
		{"data out of order", false, func(f *fake, cmd *header) { f.send(dataIn(cmd, final, 0, 4096), data) }, "offset 4096, expected 0"},
		{"data beyond the end", false, func(f *fake, cmd *header) { f.send(dataIn(cmd, final, 0, 0), make([]byte, 8196)) }, "of 8192 bytes expected"},
		{"data for a write", true, func(f *fake, cmd *header) { f.send(dataIn(cmd, final, 0, 0), data) }, "of 0 bytes expected"},
		{"DataSN skips", false, func(f *fake, cmd *header) { f.send(dataIn(cmd, final, 1, 0), data) }, "DataSN 1"},
		{"status without final", false, func(f *fake, cmd *header) { f.send(dataIn(cmd, 1, 0, 0), data) }, "without the final bit"},
		{"end inside a sequence", false, func(f *fake, cmd *header) {
			f.send(dataIn(cmd, 0, 0, 0), data)
			f.send(dataIn(cmd, 0, 1, 4096), data)
			h := pduFor(cmd, opSCSIResponse, final)
			h.set32(atDataSN, 2)
			f.send(h, nil)
		}, "lacks the final bit"},
		{"ExpDataSN wrong", false, func(f *fake, cmd *header) {
			f.send(dataIn(cmd, final, 0, 0), make([]byte, 8192))
			f.respond(cmd, 0, nil)
		}, "ExpDataSN 0 after 1"},
		{"residual wrong", false, func(f *fake, cmd *header) {
			h := dataIn(cmd, final|1|2, 0, 0)
			h.set32(atResidual, 4000)
			f.send(h, data)
		}, "4096 bytes received of 8192 expected, residual 4000"},
		{"both residuals", false, func(f *fake, cmd *header) {
			f.send(pduFor(cmd, opSCSIResponse, final|6), nil)
		}, "both residual"},
		{"sense longer than data", false, func(f *fake, cmd *header) {
			h := pduFor(cmd, opSCSIResponse, final)
			h[3] = 2
			f.send(h, []byte{0, 20, 0x70})
		}, "20 bytes of sense data, 1 there"},
		{"R2T for a read", false, func(f *fake, cmd *header) { f.send(r2t(cmd, 0, 0, 512), nil) }, "R2T for bytes 0 to 512 of 0"},
		{"R2T again for what was sent", true, func(f *fake, cmd *header) { f.send(r2t(cmd, 0, 0, 512), nil) }, "expected from 8192"},
		{"R2TSN skips", true, func(f *fake, cmd *header) { f.send(r2t(cmd, 1, 8192, 512), nil) }, "R2TSN 1"},
		{"R2T for nothing", true, func(f *fake, cmd *header) { f.send(r2t(cmd, 0, 8192, 0), nil) }, "R2T for 0 bytes"},
		{"R2T above MaxBurstLength", true, func(f *fake, cmd *header) { f.send(r2t(cmd, 0, 8192, fakeMaxBurst+1), nil) }, "MaxBurstLength"},
		{"R2T beyond the end", true, func(f *fake, cmd *header) {
			f.send(r2t(cmd, 0, 8192, fakeMaxBurst), nil)
			f.send(r2t(cmd, 1, 8192+fakeMaxBurst, fakeMaxBurst), nil)
		}, "R2T for bytes 24576 to 40960 of 32768"},
		{"R2T of no tag", true, func(f *fake, cmd *header) {
			h := r2t(cmd, 0, 8192, 512)
			h.set32(atTTT, noTag)
			f.send(h, nil)
		}, "reserved transfer tag"},
		{"a request", false, func(f *fake, cmd *header) { f.send(header{0: opTextRequest}, nil) }, "PDU 0x04"},
		{"a login response", false, func(f *fake, cmd *header) { f.send(header{0: opLoginResponse}, nil) }, "PDU 0x23"},
		{"too much data", false, func(f *fake, cmd *header) { f.send(dataIn(cmd, final, 0, 0), make([]byte, 256<<10+1)) }, "we take 262144"},
		{"an empty reject", false, func(f *fake, cmd *header) { f.send(header{0: opReject, 2: 4}, nil) }, "without the header"},
		{"an answer to nothing", false, func(f *fake, cmd *header) { f.send(header{0: opTaskResponse}, nil) }, "not in flight"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := serve(t, logged(func(f *fake) {
				cmd, _ := f.expect(opSCSICommand)
				for sent := 0; c.write && sent < fakeFirst-fakeMaxSend; sent += fakeMaxSend {
					f.expect(opDataOut)
				}
				c.do(f, cmd)
				f.drain()
			}))
			s := dial(t, o)
			var err error
			if c.write {
				_, err = s.Command(t.Context(), []byte{cdbWrite16, 15: 0}, make([]byte, 32768), nil)
			} else {
				_, _, err = readCommand(t.Context(), s, 8192)
			}
			<-s.Done()
			var breach *ProtocolError
			if !errors.As(s.Err(), &breach) || !errors.Is(s.Err(), ErrConnectionLost) || !strings.Contains(breach.What, c.says) {
				t.Errorf("the session ended with %v, the command with %v", s.Err(), err)
			}
		})
	}
}

func TestLongSequenceOfDataIn(t *testing.T) {
	o := serve(t, logged(func(f *fake) {
		cmd, _ := f.expect(opSCSICommand)
		for i := range uint32(5) { // 20 KiB, MaxBurstLength is 16
			h := pduFor(cmd, opDataIn, 0)
			h.set32(atDataSN, i)
			h.set32(atOffset, i*4096)
			f.send(h, make([]byte, 4096))
		}
		f.drain()
	}))
	_, _, err := readCommand(t.Context(), dial(t, o), 32768)
	var breach *ProtocolError
	if !errors.As(err, &breach) || !strings.Contains(breach.What, "sequence of 20480 bytes") {
		t.Error(err)
	}
}

func TestDigests(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(f *fake)
		says  string // "": nothing is wrong
	}{
		"sound":         {func(f *fake) {}, ""},
		"header spoilt": {func(f *fake) { f.out.headerDigest = false }, "header digest"},
		"data spoilt":   {func(f *fake) { f.out.dataDigest = false }, "data digest"},
	} {
		t.Run(name, func(t *testing.T) {
			o := serve(t, func(f *fake) {
				f.accept(pair{"HeaderDigest", "CRC32C"}, pair{"DataDigest", "CRC32C"})
				cmd, _ := f.expect(opSCSICommand)
				c.spoil(f)
				h := pduFor(cmd, opDataIn, final|1)
				f.send(h, bytes.Repeat([]byte{1}, 513)) // with padding
				f.raw(header{}, make([]byte, 64))       // read as the missing digest
				f.drain()
			})
			o.HeaderDigest, o.DataDigest = true, true
			_, _, err := readCommand(t.Context(), dial(t, o), 513)
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Error(err)
			}
		})
	}
}

// TestDigestBytes is the example of RFC 7143 appendix A.4: 32 bytes of zeros.
func TestDigestBytes(t *testing.T) {
	var b bytes.Buffer
	l := newLink(nil)
	l.out.w.Reset(&b)
	l.out.dataDigest = true
	if err := l.out.pdu(&header{}, nil, make([]byte, 32)); err != nil {
		t.Fatal(err)
	}
	l.out.w.Flush()
	if got := b.Bytes()[48+32:]; !bytes.Equal(got, []byte{0xaa, 0x36, 0x91, 0x8a}) {
		t.Errorf("digest % x", got)
	}
}
