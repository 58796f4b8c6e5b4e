package task

import (
	"context"
	"errors"
	"testing"
	"time"
)

var errEnough = errors.New("enough")

func TestSignalRemembersOneSet(t *testing.T) {
	sig := System.NewSignal()
	sig.Set()
	sig.Set()
	if err := sig.Wait(context.Background()); err != nil {
		t.Fatal(err)
	}
	if ok, err := sig.WaitFor(context.Background(), 0); ok || err != nil {
		t.Fatal("a second wait returned", ok, err)
	}
}

func TestSignalWakesWaiter(t *testing.T) {
	sig, done := System.NewSignal(), System.NewSignal()
	System.Go("waiter", func() {
		sig.Wait(context.Background())
		done.Set()
	})
	sig.Set()
	if err := done.Wait(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestWaitsEndWithTheContextsCause(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errEnough)
	sig := System.NewSignal()
	if err := sig.Wait(ctx); err != errEnough {
		t.Error("Wait:", err)
	}
	if _, err := sig.WaitFor(ctx, time.Hour); err != errEnough {
		t.Error("WaitFor:", err)
	}
	if err := System.Sleep(ctx, time.Hour); err != errEnough {
		t.Error("Sleep:", err)
	}
}

func TestSleepTakesItsTime(t *testing.T) {
	begin := System.Now()
	if err := System.Sleep(context.Background(), time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if d := System.Now().Sub(begin); d < time.Millisecond {
		t.Fatal("slept for only", d)
	}
}
