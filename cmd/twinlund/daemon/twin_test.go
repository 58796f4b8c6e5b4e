package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/replication/emulator"
	"github.com/twinlun/twinlun/test/initiator"
)

// lined puts an emulated line between two nodes.
func lined(t *testing.T, cfg [2]*config.Config, s emulator.State) *emulator.Line {
	t.Helper()
	line, err := emulator.Start(emulator.Config{
		Listen: "127.0.0.1:0", Target: cfg[1].Peer.Listen, State: s, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { line.Close() })
	cfg[0].Peer.Address = line.Addr()
	return line
}

// visit opens a session of host name at a node, and takes its unit attention.
func visit(t *testing.T, d *Daemon, name string) *initiator.Session {
	t.Helper()
	s, err := initiator.Dial(t.Context(), initiator.Options{Address: d.ISCSI().String(), TargetIQN: iqn, InitiatorIQN: iqn + "-" + name, LUN: 3})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	wantAttention(t, s, 0x29, 0x00)
	return s
}

// wantAttention takes the next unit attention, which must be the given one.
func wantAttention(t *testing.T, s *initiator.Session, asc, ascq byte) {
	t.Helper()
	err := s.TestUnitReady(t.Context())
	if c := (*initiator.CheckCondition)(nil); !errors.As(err, &c) || c.Key != initiator.SenseUnitAttention || c.ASC != asc || c.ASCQ != ascq {
		t.Errorf("%v, want unit attention %02x/%02x", err, asc, ascq)
	}
}

// awaitServing waits until a node's LUN is joined with the other one's.
func awaitServing(t *testing.T, nodes ...*Daemon) {
	t.Helper()
	for _, d := range nodes {
		await(t, "the sites to join", func() bool { return d.all()[0].replica().Status().Serving })
	}
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for until := time.Now().Add(time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("waited a minute for %s", what)
		}
	}
}

// selectModes is MODE SELECT (6) of one page.
func selectModes(t *testing.T, s *initiator.Session, page ...byte) {
	t.Helper()
	list := append(make([]byte, 4), page...)
	if _, err := s.Command(t.Context(), []byte{0x15, 0x10, 0, 0, byte(len(list)), 0}, list, nil); err != nil {
		t.Errorf("MODE SELECT: %v", err)
	}
}

// pageTAS is the control mode page with TAS set, or not.
func pageTAS(on bool) []byte {
	page := []byte{0x0a, 0x0a, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0}
	if on {
		page[5] = 0x40
	}
	return page
}

// tas tells whether the control mode page has TAS set.
func tas(t *testing.T, s *initiator.Session) bool {
	t.Helper()
	got, err := in(t.Context(), s, "1a080a001000", 16)
	if err != nil || len(got) != 2*16 {
		t.Fatalf("MODE SENSE: %s, %v", got, err)
	}
	return got[18:20] == "40"
}

// TestResetReachesTheOtherNode: the command of a host at b that waits for node a is
// ended, as TAS wants with an answer, by a reset of a host at a; both hosts are told.
func TestResetReachesTheOtherNode(t *testing.T) {
	cfg := nodes(t)
	line := lined(t, cfg, emulator.State{})
	a, b := startNode(t, cfg[0]), startNode(t, cfg[1])
	defer func() { stopNode(t, a); stopNode(t, b) }()
	awaitServing(t, a, b)
	atA, atB := visit(t, a, "one"), visit(t, b, "two")
	selectModes(t, atA, pageTAS(true)...)
	wantAttention(t, atB, 0x2a, 0x01)
	// A write at b to an extent that it does not own waits for a round trip, and the
	// reset for half of one.
	if err := line.Set(emulator.State{Delay: time.Second}); err != nil {
		t.Fatal(err)
	}
	aborted := make(chan error, 1)
	go func() { aborted <- atB.WriteAt(t.Context(), make([]byte, 4096), 0) }()
	await(t, "the write to wait", func() bool { return b.all()[0].replica().Status().Waiting > 0 })
	if err := atA.LUNReset(t.Context()); err != nil {
		t.Error(err)
	}
	err := <-aborted
	if s := (*initiator.StatusError)(nil); !errors.As(err, &s) || s.Status != initiator.StatusTaskAborted {
		t.Errorf("the write ended otherwise than with TASK ABORTED: %v", err)
	}
	wantAttention(t, atA, 0x29, 0x03)
	wantAttention(t, atB, 0x29, 0x03)
}

// TestResetWithoutTheOtherNode: a reset is answered while the line is cut, and while the
// other node is down. Hosts there are told when it is back, and what was set holds.
func TestResetWithoutTheOtherNode(t *testing.T) {
	cfg := nodes(t)
	line := lined(t, cfg, emulator.State{})
	a, b := startNode(t, cfg[0]), startNode(t, cfg[1])
	defer func() { stopNode(t, a); stopNode(t, b) }()
	awaitServing(t, a, b)
	atA, atB := visit(t, a, "one"), visit(t, b, "two")
	if err := line.Set(emulator.State{Cut: emulator.CutBoth}); err != nil {
		t.Fatal(err)
	}
	if err := atA.LUNReset(t.Context()); err != nil { // the link is dead, and does not know it yet
		t.Error(err)
	}
	wantAttention(t, atA, 0x29, 0x03)
	await(t, "the link to go down", func() bool { return !a.all()[0].replica().Status().LinkUp })
	if err := atA.LUNReset(t.Context()); err != nil {
		t.Error(err)
	}
	wantAttention(t, atA, 0x29, 0x03)
	selectModes(t, atA, pageTAS(true)...)
	if err := atB.TestUnitReady(t.Context()); err != nil || tas(t, atB) {
		t.Errorf("the cut line carries: %v", err)
	}
	if err := line.Set(emulator.State{}); err != nil {
		t.Fatal(err)
	}
	awaitServing(t, a, b)
	await(t, "the settings to arrive", func() bool { return tas(t, visit(t, b, "looks")) })
	wantAttention(t, atB, 0x29, 0x03)
	wantAttention(t, atB, 0x2a, 0x01)

	stopNode(t, b)
	if err := atA.LUNReset(t.Context()); err != nil {
		t.Error(err)
	}
	wantAttention(t, atA, 0x29, 0x03)
	selectModes(t, atA, pageTAS(true)...)
	b = startNode(t, cfg[1])
	awaitServing(t, a, b)
	await(t, "the settings to arrive", func() bool { return tas(t, visit(t, b, "looks")) })
}

// TestResetsFromBothNodes: hosts at both reset the LUN again and again, while others read
// and write it: every reset is answered, and afterwards all goes on.
func TestResetsFromBothNodes(t *testing.T) {
	cfg := nodes(t)
	a, b := startNode(t, cfg[0]), startNode(t, cfg[1])
	defer func() { stopNode(t, a); stopNode(t, b) }()
	awaitServing(t, a, b)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var resets, loads []*initiator.Session
	for _, d := range []*Daemon{a, b} {
		for k := range 3 {
			resets = append(resets, visit(t, d, fmt.Sprint("resets", k)))
		}
		loads = append(loads, visit(t, d, "loads"))
	}
	var resetting, loading sync.WaitGroup
	stop := make(chan struct{})
	for _, s := range resets {
		resetting.Go(func() {
			for range 50 {
				if err := s.LUNReset(ctx); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for _, s := range loads {
		loading.Go(func() { t.Logf("%d commands were done", loadUntil(ctx, s, stop)) })
	}
	resetting.Wait()
	close(stop)
	loading.Wait()
	for _, d := range []*Daemon{a, b} {
		use(t, d, func(ctx context.Context, s *initiator.Session) error {
			return errors.Join(s.WriteAt(ctx, make([]byte, 8192), 65536-4096), s.ReadAt(ctx, make([]byte, 8192), 65536-4096))
		})
	}
}

// loadUntil reads and writes, whatever comes of it, and counts what was done. What a
// reset has ended gets no answer, so no command is waited for long.
func loadUntil(ctx context.Context, s *initiator.Session, stop chan struct{}) (done int) {
	do := func(f func(context.Context, []byte, int64) error, off int64) {
		ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		if f(ctx, make([]byte, 4096), off) == nil {
			done++
		}
	}
	for i := int64(0); ; i++ {
		select {
		case <-stop:
			return done
		default:
		}
		do(s.WriteAt, i*7919%4000*4096)
		do(s.ReadAt, i*7919%4000*4096)
	}
}

// TestGrowWhileTwinsTalk: the LUN grows, which closes its replicas, while hosts set and
// reset it at both nodes.
func TestGrowWhileTwinsTalk(t *testing.T) {
	cfg := nodes(t)
	a, b := startNode(t, cfg[0]), startNode(t, cfg[1])
	defer func() { stopNode(t, a); stopNode(t, b) }()
	awaitServing(t, a, b)
	stop := make(chan struct{})
	var talking sync.WaitGroup
	for _, s := range []*initiator.Session{visit(t, a, "talks"), visit(t, b, "talks")} {
		talking.Go(func() { talk(t, s, stop) })
	}
	for size := int64(17 * mib); size < 20*mib; size += mib {
		for i, d := range []*Daemon{a, b} {
			if err := d.Reload(t.Context(), with(cfg[i], sized(size))); err != nil {
				t.Fatal(err)
			}
		}
		for _, d := range []*Daemon{a, b} {
			await(t, "the LUN to grow", func() bool { return d.all()[0].vol.Size() == size })
		}
	}
	close(stop)
	talking.Wait()
	awaitServing(t, a, b)
	selectModes(t, settled(t, a), pageTAS(true)...)
	if !tas(t, settled(t, b)) {
		t.Error("after all that the nodes do not hear each other")
	}
}

// talk sets and resets. A command that the other one's reset has ended gets no answer.
func talk(t *testing.T, s *initiator.Session, stop chan struct{}) {
	for i := 0; ; i++ {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		list := append(make([]byte, 4), pageTAS(i%2 == 0)...)
		s.Command(ctx, []byte{0x15, 0x10, 0, 0, byte(len(list)), 0}, list, nil)
		cancel()
		if err := s.LUNReset(t.Context()); err != nil {
			t.Error(err)
			return
		}
		select {
		case <-stop:
			return
		default:
		}
	}
}

// settled is a session without unit attentions.
func settled(t *testing.T, d *Daemon) *initiator.Session {
	t.Helper()
	s := visit(t, d, "settled")
	await(t, "the last unit attention", func() bool { return s.TestUnitReady(t.Context()) == nil })
	return s
}
