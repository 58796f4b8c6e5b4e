package initiator

import (
	"bytes"
	"context"
	"errors"
	"io"
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
