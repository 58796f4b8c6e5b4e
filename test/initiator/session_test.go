package initiator

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// TestWriteAsAsked: data goes in the pieces and at the offsets that were agreed
// and asked for.
func TestWriteAsAsked(t *testing.T) {
	want := random(40000, 3)
	got := make([]byte, len(want))
	o := serve(t, logged(func(f *fake) {
		cmd, now := f.expect(opSCSICommand)
		if cmd[1] != 0x21 || cmd.u32(20) != 40000 || len(now) != fakeMaxSend {
			f.t.Errorf("flags %#x, length %d, %d bytes of immediate data", cmd[1], cmd.u32(20), len(now))
		}
		copy(got, now)
		take := func(ttt uint32, from, to int) {
			for sn := uint32(0); from < to; sn++ {
				h, data := f.expect(opDataOut)
				last := from+len(data) == to
				if h.u32(atTTT) != ttt || h.u32(atDataSN) != sn || int(h.u32(atOffset)) != from ||
					len(data) == 0 || len(data) > fakeMaxSend || (h[1] == final) != last {
					f.t.Errorf("Data-Out % x with %d bytes, at %d to %d", h, len(data), from, to)
					return
				}
				copy(got[from:], data)
				from += len(data)
			}
		}
		take(noTag, fakeMaxSend, fakeFirst)
		for i, r := range [][2]int{{8192, 9000}, {9000, 25000}, {25000, 40000}} {
			h := pduFor(cmd, opR2T, final)
			h.set32(atTTT, uint32(50+i))
			h.set32(atDataSN, uint32(i))
			h.set32(atOffset, uint32(r[0]))
			h.set32(atResidual, uint32(r[1]-r[0]))
			f.send(h, nil)
		}
		take(50, 8192, 9000)
		take(51, 9000, 25000)
		take(52, 25000, 40000)
		f.respond(cmd, 0, nil)
		f.drain()
	}))
	if _, err := dial(t, o).Command(t.Context(), []byte{cdbWrite16, 15: 0}, want, nil); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("other bytes arrived")
	}
}

func TestLongCDB(t *testing.T) {
	cdb := random(37, 1)
	raw := make(chan []byte, 1)
	o := serve(t, logged(func(f *fake) {
		p := make([]byte, 48+28)
		if _, err := io.ReadFull(f.in.r, p); err != nil {
			f.t.Error(err)
		}
		raw <- p
		h := header(p[:48])
		f.respond(&h, 0, nil)
		f.drain()
	}))
	if _, err := dial(t, o).Command(t.Context(), cdb, nil, nil); err == nil {
		t.Log("answered")
	}
	p := <-raw
	want := append([]byte{0, 22, 1, 0}, cdb[16:]...)
	if p[4] != 7 || !bytes.Equal(p[32:48], cdb[:16]) || !bytes.Equal(p[48:48+25], want) {
		t.Errorf("% x", p)
	}
}

func TestPingIsAnswered(t *testing.T) {
	o := serve(t, logged(func(f *fake) {
		ping := header{0: opNopIn, 1: final, 9: 3}
		ping.set32(atITT, noTag)
		f.send(ping, []byte("no answer wanted")[:0]) // TTT 0 wants one
		h, data := f.expect(opNopOut)
		if h[0] != opNopOut|immediate || h.u32(atITT) != noTag || h.u32(atTTT) != 0 || h[9] != 3 || len(data) != 0 {
			f.t.Errorf("answered by % x, %q", h, data)
		}
		ping.set32(atTTT, noTag)
		f.send(ping, nil) // only tells the window
		ping.set32(atTTT, 99)
		f.send(ping, []byte("payload"))
		if h, data := f.expect(opNopOut); h.u32(atTTT) != 99 || string(data) != "payload" {
			f.t.Errorf("answered by % x, %q", h, data)
		}
	}))
	s := dial(t, o)
	<-s.Done()
	if err := s.Err(); !errors.Is(err, ErrConnectionLost) {
		t.Error(err)
	}
}

// TestGivenUp: a command whose context ends returns at once, is aborted, and its
// slot serves again; late data goes nowhere.
func TestGivenUp(t *testing.T) {
	arrived, cancelled := make(chan struct{}), make(chan struct{})
	o := serve(t, logged(func(f *fake) {
		cmd, _ := f.expect(opSCSICommand)
		close(arrived)
		abort, _ := f.expect(opTaskRequest)
		if abort[1] != final|1 || abort.u32(20) != cmd.u32(atITT) || abort.u32(32) != cmd.u32(atCmdSN) {
			f.t.Errorf("abort % x of % x", abort, cmd)
		}
		<-cancelled
		f.send(pduFor(cmd, opDataIn, final), bytes.Repeat([]byte{9}, 512))
		f.send(pduFor(abort, opTaskResponse, final), nil)
		next, _ := f.expect(opSCSICommand)
		f.respond(next, 0, nil)
		f.drain()
	}))
	o.MaxCommands = 1
	s := dial(t, o)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	_, p, err := readCommand(ctx, s, 512)
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(cancelled)
	if _, err := s.Command(t.Context(), make([]byte, 6), nil, nil); err != nil {
		t.Error(err)
	}
	if p[0] != 0 {
		t.Error("the buffer was written after the command had returned")
	}
}

func TestAbortTask(t *testing.T) {
	o := serve(t, logged(func(f *fake) {
		cmd, _ := f.expect(opSCSICommand)
		abort, _ := f.expect(opTaskRequest)
		if abort.u32(20) != cmd.u32(atITT) {
			f.t.Errorf("abort of %#x", abort.u32(20))
		}
		f.send(pduFor(abort, opTaskResponse, final), nil)
		f.drain()
	}))
	s := dial(t, o)
	sent := make(chan uint32, 1)
	result := make(chan error)
	go func() {
		_, err := s.Do(t.Context(), &Request{CDB: make([]byte, 6), Started: func(tag uint32) { sent <- tag }})
		result <- err
	}()
	tag := <-sent
	for s.cmdSN.Load() == 1 { // until it is on its way
		time.Sleep(time.Millisecond)
	}
	if err := s.AbortTask(t.Context(), tag); err != nil {
		t.Error(err)
	}
	if err := <-result; !errors.Is(err, ErrAborted) {
		t.Error(err)
	}
}

// TestLUNResetEndsTheRest: only the unit's own commands, and only earlier ones.
func TestLUNResetEndsTheRest(t *testing.T) {
	both := make(chan struct{})
	o := serve(t, logged(func(f *fake) {
		a, _ := f.expect(opSCSICommand)
		b, _ := f.expect(opSCSICommand)
		if a[9] != 0 {
			a, b = b, a
		}
		close(both)
		reset, _ := f.expect(opTaskRequest)
		f.send(pduFor(reset, opTaskResponse, final), nil)
		f.expect(opNopOut) // the reset has been dealt with
		f.respond(b, 0, nil)
		f.drain()
	}))
	s := dial(t, o)
	errs := make([]error, 2)
	var wg sync.WaitGroup
	for lun := range errs {
		wg.Go(func() {
			_, errs[lun] = s.Do(t.Context(), &Request{LUN: EncodeLUN(uint16(lun)), CDB: make([]byte, 6)})
		})
	}
	<-both
	if err := s.LUNReset(t.Context()); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go s.Ping(ctx, nil)
	wg.Wait()
	if !errors.Is(errs[0], ErrAborted) || errs[1] != nil {
		t.Errorf("unit 0: %v; unit 1: %v", errs[0], errs[1])
	}
}

// TestWindow: nothing but immediate requests goes out while the window is closed.
func TestWindow(t *testing.T) {
	o := serve(t, func(f *fake) {
		f.window = 1
		f.accept()
		for range 20 {
			cmd, _ := f.expect(opSCSICommand)
			f.window = 0
			ping := header{0: opNopIn, 1: final}
			ping.set32(atITT, noTag)
			f.send(ping, nil)
			f.expect(opNopOut)
			f.window = 1
			f.respond(cmd, 0, nil)
		}
		f.drain()
	})
	s := dial(t, o)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := s.Command(t.Context(), make([]byte, 6), nil, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestWindowWaitEnds(t *testing.T) {
	o := serve(t, func(f *fake) { f.window = 0; f.accept(); f.drain() })
	s := dial(t, o)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := s.Command(ctx, make([]byte, 6), nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	time.AfterFunc(20*time.Millisecond, func() { s.Close() })
	if _, err := s.Command(t.Context(), make([]byte, 6), nil, nil); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

var attention29 = []byte{0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x29, 1, 0, 0, 0, 0}

// TestPatience: what ReadAt sends again, and what not.
func TestPatience(t *testing.T) {
	for name, c := range map[string]struct {
		statuses []byte // for each try; 0x99 is a unit attention
		tries    int
		ok       bool
	}{
		"at once":              {[]byte{0}, 1, true},
		"attention, then good": {[]byte{0x99, 0}, 2, true},
		"attention twice":      {[]byte{0x99, 0x99, 0}, 2, false},
		"busy, full, busy":     {[]byte{StatusBusy, StatusTaskSetFull, StatusBusy, 0}, 4, true},
		"full, attention":      {[]byte{StatusTaskSetFull, 0x99, 0}, 3, true},
		"aborted":              {[]byte{StatusTaskAborted, 0}, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			tries := 0
			o := serve(t, logged(func(f *fake) {
				for cmd, _, ok := f.next(); ok; cmd, _, ok = f.next() {
					status := c.statuses[min(tries, len(c.statuses)-1)]
					tries++
					switch status {
					case 0x99:
						f.respond(cmd, StatusCheckCondition, attention29)
					case 0:
						f.send(pduFor(cmd, opDataIn, final|1), make([]byte, 512))
					default:
						f.respond(cmd, status, nil)
					}
				}
			}))
			s := dial(t, o)
			s.blockSize.Store(512)
			err := s.ReadAt(t.Context(), make([]byte, 512), 0)
			s.Close()
			if (err == nil) != c.ok {
				t.Error(err)
			}
			if tries != c.tries {
				t.Errorf("%d tries", tries)
			}
		})
	}
}

func TestBusyUntilContextEnds(t *testing.T) {
	o := serve(t, logged(func(f *fake) {
		for cmd, _, ok := f.next(); ok; cmd, _, ok = f.next() {
			if cmd.op() == opSCSICommand {
				f.respond(cmd, StatusBusy, nil)
			}
		}
	}))
	s := dial(t, o)
	s.blockSize.Store(512)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := s.ReadAt(ctx, make([]byte, 512), 0)
	var status *StatusError
	if !errors.As(err, &status) && !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestSenseFormats(t *testing.T) {
	for name, sense := range map[string][]byte{
		"fixed":      attention29,
		"descriptor": {0x72, 6, 0x29, 1, 0, 0, 0, 0},
	} {
		if e := senseError(sense); e.Key != 6 || e.ASC != 0x29 || e.ASCQ != 1 {
			t.Errorf("%s: %v", name, e)
		}
	}
	for n := range attention29 { // cut off anywhere
		if e := senseError(attention29[:n]); e.ASC != 0 && n <= 12 {
			t.Errorf("of %d bytes: %v", n, e)
		}
	}
}

func TestOtherEnds(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(f *fake, cmd *header)
		want func(err error) bool
	}{
		"reject": {func(f *fake, cmd *header) {
			f.send(header{0: opReject, 1: final, 2: 9}, cmd[:])
		}, func(err error) bool { var e *RejectError; return errors.As(err, &e) && e.Reason == 9 }},
		"target failure": {func(f *fake, cmd *header) {
			h := pduFor(cmd, opSCSIResponse, final)
			h[2] = 1
			f.send(h, nil)
		}, func(err error) bool { var e *ResponseError; return errors.As(err, &e) && e.Code == 1 }},
		"asynchronous event": {func(f *fake, cmd *header) {
			f.send(header{0: opAsync, 1: final, 36: 2}, nil)
		}, func(err error) bool {
			var e *AsyncError
			return errors.As(err, &e) && errors.Is(err, ErrConnectionLost)
		}},
		"connection closed": {func(f *fake, cmd *header) { f.conn.Close() }, func(err error) bool {
			return errors.Is(err, ErrConnectionLost) && errors.Is(err, io.ErrUnexpectedEOF)
		}},
		"harmless event": {func(f *fake, cmd *header) {
			f.send(header{0: opAsync, 1: final, 36: 0}, make([]byte, 20))
			f.respond(cmd, 0, nil)
		}, func(err error) bool { return err == nil }},
	} {
		t.Run(name, func(t *testing.T) {
			s := dial(t, serve(t, logged(func(f *fake) {
				cmd, _ := f.expect(opSCSICommand)
				c.do(f, cmd)
				f.drain()
			})))
			if _, err := s.Command(t.Context(), make([]byte, 6), nil, nil); !c.want(err) {
				t.Error(err)
			}
		})
	}
}

func TestSilentTargetIsLost(t *testing.T) {
	o := serve(t, logged((*fake).drain))
	o.PingInterval = 10 * time.Millisecond
	s := dial(t, o)
	if _, err := s.Command(t.Context(), make([]byte, 6), nil, nil); !errors.Is(err, errSilent) || !errors.Is(err, ErrConnectionLost) {
		t.Error(err)
	}
}

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

// TestWriteIsRepeated: on a new session with the same ISID, and the caller is told
// when one try is over.
func TestWriteIsRepeated(t *testing.T) {
	var mu sync.Mutex
	var isids, said []string
	say := func(list *[]string, what string) { mu.Lock(); defer mu.Unlock(); *list = append(*list, what) }
	lose := func(f *fake) {
		f.accept()
		say(&isids, fmt.Sprintf("%x", f.login[8:14]))
		f.expect(opSCSICommand)
		say(&said, "lost")
	}
	o := serve(t, lose, lose, func(f *fake) {
		f.accept()
		say(&isids, fmt.Sprintf("%x", f.login[8:14]))
		for cmd, _, ok := f.next(); ok && cmd.op() == opSCSICommand; cmd, _, ok = f.next() {
			say(&said, "done")
			f.respond(cmd, 0, nil)
		}
	})
	r, err := NewResilient(o, 0)
	if err != nil {
		t.Fatal(err)
	}
	err = r.Run(t.Context(), func() { say(&said, "again") }, func(ctx context.Context, s *Session) error {
		s.blockSize.Store(512)
		return s.WriteAt(ctx, make([]byte, 512), 0)
	})
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	if got := fmt.Sprint(said); got != "[lost again lost again done]" {
		t.Error(got)
	}
	if isids[0] != isids[1] || isids[1] != isids[2] || r.Logins() != 3 {
		t.Errorf("%d logins with %v", r.Logins(), isids)
	}
}

// TestNoAnswerIsALoss: a try without an answer takes its session with it.
func TestNoAnswerIsALoss(t *testing.T) {
	o := serve(t, logged((*fake).drain), logged(func(f *fake) {
		cmd, _ := f.expect(opSCSICommand)
		f.respond(cmd, 0, nil)
		f.drain()
	}))
	r, err := NewResilient(o, 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Sync(t.Context()); err != nil || r.Logins() != 2 {
		t.Errorf("%d logins, %v", r.Logins(), err)
	}
}

func TestResilientGivesUp(t *testing.T) {
	refuse := func(class byte) func(*fake) {
		return func(f *fake) {
			req, _ := f.expect(opLoginRequest)
			f.answer(req, 0, class, 1, nil)
		}
	}
	r, err := NewResilient(serve(t, refuse(3), refuse(2)), 0)
	if err != nil {
		t.Fatal(err)
	}
	var refused *LoginError
	if err := r.Sync(t.Context()); !errors.As(err, &refused) || refused.Class != 2 {
		t.Errorf("class 3 passes, class 2 does not: %v", err)
	}
	r.Close()
	if err := r.Sync(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	// Nobody listens: until the context ends.
	r, err = NewResilient(Options{Address: fmt.Sprintf("127.0.0.1:%d", freePort(t)), TargetIQN: fakeName}, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := r.Sync(ctx); err == nil || ctx.Err() == nil {
		t.Error(err)
	}
}

func TestOptionsRefused(t *testing.T) {
	for name, o := range map[string]Options{
		"LUN":         {LUN: 1 << 14},
		"FirstBurst":  {FirstBurstLength: 100},
		"MaxCommands": {MaxCommands: 5000},
		"MaxTransfer": {MaxTransfer: -1},
	} {
		if _, err := Dial(t.Context(), o); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if lun := EncodeLUN(300); lun != [8]byte{0x41, 0x2c} || EncodeLUN(255) != [8]byte{0, 255} {
		t.Errorf("LUN 300: %x", lun)
	}
}

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
