package initiator

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestLogins(t *testing.T) {
	plain := func(flags, class, detail byte, text []byte) func(*fake) {
		return func(f *fake) {
			f.security()
			req, _ := f.expect(opLoginRequest)
			f.answer(req, flags, class, detail, text)
			f.drain()
		}
	}
	breach := func(err error) bool { var e *ProtocolError; return errors.As(err, &e) }
	for name, c := range map[string]struct {
		script func(*fake)
		want   func(error) bool
	}{
		"answers in two PDUs": {func(f *fake) {
			f.security()
			req, _ := f.expect(opLoginRequest)
			text := answers()
			f.answer(req, goesOn|stageOperational<<2, 0, 0, text[:77])
			more, empty := f.expect(opLoginRequest)
			if len(empty) != 0 {
				f.t.Errorf("text %q before the answer was complete", empty)
			}
			f.answer(more, toFull, 0, 0, text[77:])
			f.drain()
		}, func(err error) bool { return err == nil }},
		"a key of its own": {func(f *fake) {
			f.security()
			req, _ := f.expect(opLoginRequest)
			f.answer(req, stageOperational<<2, 0, 0, answers(pair{"X-com.example.foo", "1"}))
			more, text := f.expect(opLoginRequest)
			if string(text) != "X-com.example.foo=NotUnderstood\x00" {
				f.t.Errorf("answered by %q", text)
			}
			f.answer(more, toFull, 0, 0, nil)
			f.drain()
		}, func(err error) bool { return err == nil }},
		"moved": {func(f *fake) {
			req, _ := f.expect(opLoginRequest)
			f.answer(req, 0, 1, 1, encodeKeys([]pair{{"TargetAddress", "10.0.0.1:3260"}}))
		}, func(err error) bool {
			var e *LoginError
			return errors.As(err, &e) && e.Class == 1 && e.TargetAddress == "10.0.0.1:3260"
		}},
		"not found": {plain(0, 2, 3, nil), func(err error) bool {
			var e *LoginError
			return errors.As(err, &e) && e.Class == 2 && e.Detail == 3
		}},
		"hangs up":                {func(f *fake) { f.expect(opLoginRequest) }, func(err error) bool { return err != nil }},
		"never ends":              {func(f *fake) { f.endless() }, breach},
		"to another stage":        {plain(transit|stageOperational<<2, 0, 0, answers()), breach},
		"in another stage":        {plain(toOperational, 0, 0, answers()), breach},
		"no answer to a proposal": {plain(toFull, 0, 0, answers(pair{"MaxBurstLength", ""})), breach},
		"more than proposed":      {plain(toFull, 0, 0, answers(pair{"MaxBurstLength", "16385"})), breach},
		"bursts upside down":      {plain(toFull, 0, 0, answers(pair{"MaxBurstLength", "4096"})), breach},
		"digest not proposed":     {plain(toFull, 0, 0, answers(pair{"DataDigest", "CRC32C"})), breach},
		"not a number":            {plain(toFull, 0, 0, answers(pair{"FirstBurstLength", "lots"})), breach},
		"answered twice":          {plain(toFull, 0, 0, append(answers(), answers()...)), breach},
		"no NUL at the end":       {plain(toFull, 0, 0, []byte("MaxBurstLength=512")), breach},
		"maybe":                   {plain(toFull, 0, 0, answers(pair{"ImmediateData", "Maybe"})), breach},
		"too small a segment":     {plain(toFull, 0, 0, answers(pair{"MaxRecvDataSegmentLength", "511"})), breach},
		"a PDU of 8 KiB and more": {plain(toFull, 0, 0, make([]byte, 8193)), breach},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Dial(t.Context(), serve(t, c.script))
			if err == nil {
				s.Close()
			}
			if !c.want(err) {
				t.Error(err)
			}
		})
	}
}

// endless answers every login request with "not yet".
func (f *fake) endless() {
	for req, _, ok := f.next(); ok; req, _, ok = f.next() {
		f.answer(req, stageSecurity<<2, 0, 0, nil)
	}
}

func TestDialEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := Dial(ctx, serve(t, (*fake).drain))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestDiscoverInPieces(t *testing.T) {
	o := serve(t, func(f *fake) {
		f.security()
		req, _ := f.expect(opLoginRequest)
		f.answer(req, toFull, 0, 0, encodeKeys([]pair{{"HeaderDigest", "None"}, {"DataDigest", "None"}, {"ErrorRecoveryLevel", "0"}}))
		text := "TargetName=iqn.a\x00TargetAddress=1.2.3.4:3260,1\x00TargetAddress=[::1]:3260,2\x00TargetName=iqn.b\x00"
		ask, what := f.expect(opTextRequest)
		if string(what) != "SendTargets=All\x00" {
			f.t.Errorf("asked %q", what)
		}
		h := pduFor(ask, opTextResponse, goesOn)
		h.set32(atTTT, 5)
		f.send(h, []byte(text[:40]))
		more, _ := f.expect(opTextRequest)
		if more.u32(atTTT) != 5 {
			f.t.Errorf("asked for more with tag %d", more.u32(atTTT))
		}
		h = pduFor(more, opTextResponse, final)
		h.set32(atTTT, noTag)
		f.send(h, []byte(text[40:]))
		f.drain()
	})
	got, err := o.Discover(t.Context())
	if want := "[{iqn.a [1.2.3.4:3260,1 [::1]:3260,2]} {iqn.b []}]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("%v, %v", got, err)
	}
}
