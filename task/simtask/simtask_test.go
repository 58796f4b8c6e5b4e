package simtask

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinlun/twinlun/task"
)

var ctx = context.Background()

func never() bool { return false }

// play runs a little crowd of tasks and returns the order of what they did.
func play(t *testing.T, seed uint64) (string, uint64) {
	t.Helper()
	s := New(seed)
	defer s.Close()
	g := s.Group("p")
	var order strings.Builder
	sig := g.NewSignal()
	for i := range 5 {
		g.Go(fmt.Sprint("worker", i), func() {
			for range 3 {
				g.Sleep(ctx, time.Duration(s.Rand().IntN(4))*time.Millisecond)
				fmt.Fprint(&order, i)
			}
			sig.Set()
		})
	}
	done := false
	g.Go("last", func() {
		sig.Wait(ctx)
		done = true
	})
	if err := s.Run(time.Second, func() bool { return done }); err != nil {
		t.Fatal(err)
	}
	return order.String(), s.Hash()
}

func TestSameSeedSameRun(t *testing.T) {
	differ := false
	first, _ := play(t, 0)
	for seed := range uint64(20) {
		a, ha := play(t, seed)
		b, hb := play(t, seed)
		if a != b || ha != hb {
			t.Fatalf("seed %d: %s and %s, hashes %x and %x", seed, a, b, ha, hb)
		}
		differ = differ || a != first
	}
	if !differ {
		t.Fatal("every seed gives the same order")
	}
}

func TestTimeIsVirtual(t *testing.T) {
	s := New(1)
	defer s.Close()
	g := s.Group("p")
	var at []time.Duration
	start := g.Now()
	g.Go("sleeper", func() {
		for _, d := range []time.Duration{time.Hour, 0, time.Millisecond} {
			g.Sleep(ctx, d)
			at = append(at, g.Now().Sub(start))
		}
	})
	if err := s.Run(24*time.Hour, func() bool { return len(at) == 3 }); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(at) != "[1h0m0s 1h0m0s 1h0m0.001s]" {
		t.Fatal(at)
	}
}

func TestSignal(t *testing.T) {
	s := New(1)
	defer s.Close()
	g := s.Group("p")
	var got []string
	note := func(f string, a ...any) { got = append(got, fmt.Sprintf(f, a...)) }
	stopped, cancel := context.WithCancelCause(ctx)
	sig := g.NewSignal()
	g.Go("waiter", func() {
		sig.Set()
		sig.Set()
		note("remembered %v", sig.Wait(ctx))
		ok, err := sig.WaitFor(ctx, time.Millisecond)
		note("time up %v %v", ok, err)
		g.Go("setter", func() { sig.Set() })
		ok, err = sig.WaitFor(ctx, time.Hour)
		note("set %v %v", ok, err)
		g.Go("canceller", func() { cancel(errors.New("enough")) })
		note("context %v", sig.Wait(stopped))
		note("sleep %v", g.Sleep(stopped, time.Hour))
	})
	if err := s.Run(time.Second, func() bool { return len(got) == 5 }); err != nil {
		t.Fatal(err)
	}
	want := "[remembered <nil> time up false <nil> set true <nil> context enough sleep enough]"
	if fmt.Sprint(got) != want {
		t.Fatal(got)
	}
}

func TestKill(t *testing.T) {
	s := New(1)
	defer s.Close()
	p, w := s.Group("process"), s.Group("world")
	var got []string
	for _, wait := range []func(task.Runtime){
		func(r task.Runtime) { r.Sleep(ctx, time.Minute) },
		func(r task.Runtime) { r.NewSignal().Wait(ctx) },
	} {
		p.Go("victim", func() {
			defer func() {
				got = append(got, "deferred")
				p.Sleep(ctx, time.Second) // must not outlive the kill
				got = append(got, "never")
			}()
			wait(p)
			got = append(got, "never")
		})
	}
	w.Go("killer", func() {
		w.Sleep(ctx, time.Second)
		p.Kill()
		p.Go("late", func() { got = append(got, "never") })
		w.Sleep(ctx, time.Hour)
		got = append(got, "after")
	})
	if err := s.Run(24*time.Hour, func() bool { return len(got) == 3 }); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got) != "[deferred deferred after]" || p.Alive() || !w.Alive() {
		t.Fatal(got)
	}
}

func TestKillOneself(t *testing.T) {
	s := New(1)
	defer s.Close()
	p := s.Group("process")
	var got []string
	p.Go("suicide", func() {
		p.Kill()
		got = append(got, "still running")
		p.Sleep(ctx, time.Second)
		got = append(got, "never")
	})
	err := s.Run(time.Hour, never)
	if err == nil || !strings.Contains(err.Error(), "deadlock") || len(got) != 1 {
		t.Fatal(err, got)
	}
}

func TestDeadlockIsExplained(t *testing.T) {
	s := New(1)
	defer s.Close()
	g := s.Group("node a")
	g.Go("flusher", func() { g.NewSignal().Wait(ctx) })
	err := s.Run(time.Hour, never)
	if err == nil || !strings.Contains(err.Error(), "node a/flusher #1: signal") {
		t.Fatal(err)
	}
}

func TestPanicEndsTheRun(t *testing.T) {
	s := New(1)
	defer s.Close()
	g := s.Group("node a")
	g.Go("logger", func() { panic("broken invariant") })
	err := s.Run(time.Hour, never)
	if err == nil || !strings.Contains(err.Error(), "panic in node a/logger: broken invariant") {
		t.Fatal(err)
	}
}

func TestLimit(t *testing.T) {
	s := New(1)
	defer s.Close()
	g := s.Group("p")
	g.Go("sleeper", func() { g.Sleep(ctx, time.Hour) })
	if err := s.Run(time.Minute, never); err != nil || s.Elapsed() != time.Minute {
		t.Fatal(err, s.Elapsed())
	}
}

func BenchmarkSwitch(b *testing.B) {
	s := New(1)
	defer s.Close()
	g := s.Group("p")
	n := 0
	for range 10 {
		g.Go("sleeper", func() {
			for {
				g.Sleep(ctx, time.Millisecond)
				n++
			}
		})
	}
	b.ResetTimer()
	if err := s.Run(1<<62, func() bool { return n >= b.N }); err != nil {
		b.Fatal(err)
	}
}

// TestSetTwice: a signal that is set again, for a task that is to run already, does not
// wake it from what it waits for next.
func TestSetTwice(t *testing.T) {
	for seed := range uint64(200) {
		s := New(seed)
		g := s.Group("p")
		first, second, done := g.NewSignal(), g.NewSignal(), false
		set := false
		g.Go("waiter", func() {
			first.Wait(ctx)
			second.Wait(ctx)
			if !set {
				t.Errorf("seed %d: woken although nobody has set the signal", seed)
			}
			done = true
		})
		g.Go("setter", func() {
			g.Sleep(ctx, time.Millisecond)
			first.Set()
			first.Set()
			g.Sleep(ctx, 2*lateness)
			set = true
			second.Set()
		})
		if err := s.Run(time.Second, func() bool { return done }); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		s.Close()
	}
}

// TestPause: nothing of a paused group runs, whatever it waits for; it can be killed.
func TestPause(t *testing.T) {
	s := New(1)
	defer s.Close()
	p, w := s.Group("process"), s.Group("world")
	var got []string
	note := func(what string) { got = append(got, fmt.Sprint(what, " ", s.Elapsed())) }
	sig := p.NewSignal()
	p.Go("sleeper", func() { p.Sleep(ctx, time.Second); note("slept"); p.Sleep(ctx, time.Hour); note("never") })
	p.Go("waiter", func() { sig.Wait(ctx); note("woken") })
	w.Go("world", func() {
		w.Sleep(ctx, time.Millisecond)
		p.Pause()
		p.Go("new", func() { note("new") })
		sig.Set()
		w.Sleep(ctx, time.Minute)
		note("world")
		p.Resume()
		w.Sleep(ctx, time.Minute)
		p.Pause()
		w.Sleep(ctx, 2*time.Hour)
		p.Kill()
		p.Resume()
		w.Sleep(ctx, time.Hour)
		note("end")
	})
	if err := s.Run(24*time.Hour, func() bool { return len(got) == 5 }); err != nil {
		t.Fatal(err)
	}
	slices.Sort(got[1:4]) // these are in any order
	if want := "[world 1m0.001s new 1m0.001s slept 1m0.001s woken 1m0.001s end 3h2m0.001s]"; fmt.Sprint(got) != want {
		t.Fatalf("%s, want %s", got, want)
	}
}
