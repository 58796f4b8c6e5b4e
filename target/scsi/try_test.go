package scsi

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/twinlun/twinlun/target/sam"
)

// cache is a ram of which the first blocks are at hand.
type cache struct {
	*ram
	hand int64 // bytes
}

func (d cache) ReadNow(p []byte, off int64) (bool, error) {
	d.Lock()
	defer d.Unlock()
	if off+int64(len(p)) > d.hand {
		clear(p)
		return false, nil
	}
	if err := d.enter("now", off, int64(len(p))); err != nil {
		return false, err
	}
	copy(p, d.p[off:])
	return true, nil
}

func (d cache) WriteNow(p []byte, off int64) (bool, error) {
	d.Lock()
	defer d.Unlock()
	if off+int64(len(p)) > d.hand {
		return false, nil
	}
	if err := d.enter("write now", off, int64(len(p))); err != nil {
		return true, err
	}
	copy(d.p[off:], p)
	return true, nil
}

func TestTryExecute(t *testing.T) {
	for _, c := range []struct {
		name, cdb string
		try       bool
		calls     string
	}{
		{"READ (6) at hand", "08 00 00 02 03 00", true, "now 1024+1536"},
		{"READ (10) at hand", "28 00 00000002 00 0003 00", true, "now 1024+1536"},
		{"READ (10) with DPO", "28 10 00000002 00 0003 00", true, "now 1024+1536"},
		{"READ (12) at hand", "a8 00 00000002 00000003 00 00", true, "now 1024+1536"},
		{"READ (16) at hand", "88 00 0000000000000002 00000003 00 00", true, "now 1024+1536"},
		{"nothing to read", "28 00 00000002 00 0000 00", true, ""},
		{"READ not at hand", "28 00 00000006 00 0004 00", false, "read 3072+2048"},
		{"READ with FUA", "28 08 00000002 00 0003 00", false, "read 1024+1536, sync"},
		{"WRITE (6) at hand", "0a 00 00 02 03 00", true, "write now 1024+1536"},
		{"WRITE (10) at hand", "2a 00 00000002 00 0003 00", true, "write now 1024+1536"},
		{"WRITE (10) with DPO", "2a 10 00000002 00 0003 00", true, "write now 1024+1536"},
		{"WRITE (12) at hand", "aa 00 00000002 00000003 00 00", true, "write now 1024+1536"},
		{"WRITE (16) at hand", "8a 00 0000000000000002 00000003 00 00", true, "write now 1024+1536"},
		{"nothing to write", "2a 00 00000002 00 0000 00", true, ""},
		{"WRITE not at hand", "2a 00 00000006 00 0004 00", false, "write 3072+2048"},
		{"WRITE with FUA", "2a 08 00000002 00 0003 00", false, "write fua 1024+1536"},
		{"WRITE AND VERIFY", "2e 00 00000002 00 0003 00", false, "write fua 1024+1536, read 1024+1536"},
		{"TEST UNIT READY", "00 00 00 00 00 00", false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			if err := r.target.AddLUN(1, testLUN(cache{r.disk, 4096})); err != nil {
				t.Fatal(err)
			}
			n := r.target.NewNexus(sam.InitiatorPort{Name: "iqn.test:other"}, 1)
			x := &sam.Command{LUN: [8]byte{0, 1}, Ctx: context.Background(), CDB: make([]byte, 16)}
			n.Prepare(x) // POWER ON
			copy(x.CDB, unhex(t, c.cdb))
			if !n.Prepare(x) {
				t.Fatalf("refused: % x", x.Sense)
			}
			x.In, x.Out = make([]byte, x.WantIn), bytes.Repeat([]byte{7}, int(x.WantOut))
			if done := n.(sam.Trier).TryExecute(x); done != c.try {
				t.Fatalf("done at once: %v", done)
			}
			if !c.try {
				n.Execute(x)
			}
			if calls := r.disk.took(); calls != c.calls {
				t.Errorf("the disk was asked for %q, not %q", calls, c.calls)
			}
			if x.Status != sam.Good || int(x.InLen) != len(x.In) || x.Needed != x.WantIn+x.WantOut {
				t.Errorf("status %d, %d bytes of %d, needed %d", x.Status, x.InLen, len(x.In), x.Needed)
			}
			if from := r.disk.p[1024:]; c.try && !bytes.Equal(x.In, from[:len(x.In)]) {
				t.Error("other bytes")
			}
			if at := r.disk.p[1024:]; c.try && !bytes.Equal(x.Out, at[:len(x.Out)]) {
				t.Error("other bytes were written")
			}
		})
	}
}

// TestTryExecuteWriteThrough: without a write cache, a write ends with a flush, which
// takes its time.
func TestTryExecuteWriteThrough(t *testing.T) {
	r := newRig(t)
	if err := r.target.AddLUN(1, testLUN(cache{r.disk, 4096})); err != nil {
		t.Fatal(err)
	}
	n := r.target.NewNexus(sam.InitiatorPort{Name: "iqn.test:other"}, 1)
	x := &sam.Command{LUN: [8]byte{0, 1}, Ctx: context.Background(), CDB: unhex(t, "2a 00 00000002 00 0001 00")}
	n.Prepare(x) // POWER ON
	if !n.Prepare(x) {
		t.Fatalf("refused: % x", x.Sense)
	}
	r.target.luns[1].writeThrough.Store(true)
	if x.Out = make([]byte, x.WantOut); n.(sam.Trier).TryExecute(x) {
		t.Error("done at once")
	}
}

// TestTryExecuteShortWrite has less data than the CDB says.
func TestTryExecuteShortWrite(t *testing.T) {
	r := newRig(t)
	if err := r.target.AddLUN(1, testLUN(cache{r.disk, 4096})); err != nil {
		t.Fatal(err)
	}
	n := r.target.NewNexus(sam.InitiatorPort{Name: "iqn.test:other"}, 1)
	x := &sam.Command{LUN: [8]byte{0, 1}, Ctx: context.Background(), CDB: unhex(t, "2a 00 00000002 00 0003 00")}
	n.Prepare(x) // POWER ON
	if !n.Prepare(x) {
		t.Fatalf("refused: % x", x.Sense)
	}
	if x.Out = make([]byte, 1100); !n.(sam.Trier).TryExecute(x) {
		t.Fatal("not done")
	}
	if calls := r.disk.took(); calls != "write now 1024+1024" || x.Needed != 1536 {
		t.Errorf("the disk was asked for %q, needed %d", calls, x.Needed)
	}
}

// TestTryExecuteLeavesErrors has reads and writes that fail; Execute says how.
func TestTryExecuteLeavesErrors(t *testing.T) {
	const read, write = "28 00 00000002 00 0001 00", "2a 00 00000002 00 0001 00"
	for _, c := range []struct {
		name  string
		cdb   string
		spoil func(r *rig)
		sense string // key, code
	}{
		{"the medium fails to read", read, func(r *rig) { r.disk.fail = errors.New("no medium") }, "03 1100"},
		{"the medium fails to write", write, func(r *rig) { r.disk.fail = errors.New("no medium") }, "03 0c00"},
		{"the unit is removed", read, func(r *rig) { _ = r.target.RemoveLUN(1) }, "05 2500"},
		{"the unit is removed before a write", write, func(r *rig) { _ = r.target.RemoveLUN(1) }, "05 2500"},
		{"another has its number", read, func(r *rig) {
			_ = r.target.RemoveLUN(1)
			_ = r.target.AddLUN(1, testLUN(cache{r.disk, 4096}))
		}, "05 2500"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			if err := r.target.AddLUN(1, testLUN(cache{r.disk, 4096})); err != nil {
				t.Fatal(err)
			}
			n := r.target.NewNexus(sam.InitiatorPort{Name: "iqn.test:other"}, 1)
			x := &sam.Command{LUN: [8]byte{0, 1}, Ctx: context.Background(), CDB: make([]byte, 16)}
			n.Prepare(x)
			copy(x.CDB, unhex(t, c.cdb))
			if !n.Prepare(x) {
				t.Fatalf("refused: % x", x.Sense)
			}
			x.In, x.Out = make([]byte, x.WantIn), make([]byte, x.WantOut)
			c.spoil(r)
			if n.(sam.Trier).TryExecute(x) {
				t.Fatal("done at once")
			}
			n.Execute(x)
			want := unhex(t, c.sense)
			if x.Status != sam.CheckCondition || x.InLen != 0 || x.Sense[2] != want[0] || !bytes.Equal(x.Sense[12:14], want[1:]) {
				t.Errorf("status %d, sense % x", x.Status, x.Sense)
			}
		})
	}
}

func TestTryExecuteAllocatesNothing(t *testing.T) {
	r := newRig(t)
	if err := r.target.AddLUN(1, testLUN(huge{})); err != nil {
		t.Fatal(err)
	}
	n := r.target.NewNexus(sam.InitiatorPort{Name: "iqn.test:other"}, 1)
	x := &sam.Command{LUN: [8]byte{0, 1}, Ctx: context.Background(), CDB: make([]byte, 16)}
	n.Prepare(x)
	buf := make([]byte, 4096)
	for _, cdb := range []string{"28 00 00000002 00 0008 00", "2a 00 00000002 00 0008 00"} {
		copy(x.CDB, unhex(t, cdb))
		if got := testing.AllocsPerRun(1000, func() {
			if !n.Prepare(x) {
				panic("refused")
			}
			x.In, x.Out = buf[:x.WantIn], buf[:x.WantOut]
			if !n.(sam.Trier).TryExecute(x) {
				panic("not done")
			}
		}); got != 0 {
			t.Error(cdb, got, "allocations")
		}
	}
}

// ReadNow makes huge a NowReader.
func (huge) ReadNow([]byte, int64) (bool, error) { return true, nil }

// WriteNow makes huge a NowWriter.
func (huge) WriteNow([]byte, int64) (bool, error) { return true, nil }

// TestTryExecuteKeepsReservations has another initiator reserve the unit after a
// command was prepared.
func TestTryExecuteKeepsReservations(t *testing.T) {
	r := newRig(t)
	if err := r.target.AddLUN(1, testLUN(cache{r.disk, 4096})); err != nil {
		t.Fatal(err)
	}
	command := func(n sam.Nexus, cdb string) *sam.Command {
		x := &sam.Command{LUN: [8]byte{0, 1}, Ctx: context.Background(), CDB: unhex(t, cdb)}
		for !n.Prepare(x) {
			if x.Status != sam.CheckCondition || x.Sense[2] != 6 {
				t.Fatalf("refused: % x", x.Sense)
			}
		}
		x.In, x.Out = make([]byte, x.WantIn), make([]byte, x.WantOut)
		return x
	}
	n := r.target.NewNexus(sam.InitiatorPort{Name: "iqn.test:other"}, 1)
	both := []*sam.Command{command(n, "28 00 00000002 00 0001 00"), command(n, "2a 00 00000002 00 0001 00")}
	r.nexus.Execute(command(r.nexus, "16 00 00 00 00 00"))
	for _, x := range both {
		if n.(sam.Trier).TryExecute(x) {
			t.Fatal("done at once")
		}
		if n.Execute(x); x.Status != sam.ReservationConflict {
			t.Errorf("status %#02x", x.Status)
		}
	}
	if calls := r.disk.took(); calls != "" {
		t.Errorf("the disk was asked for %q", calls)
	}
}

// TestTryExecuteTellsOfLapsedWrites: a write that is done, and must not be done again,
// does not get to Execute.
func TestTryExecuteTellsOfLapsedWrites(t *testing.T) {
	r := newRig(t)
	if err := r.target.AddLUN(1, testLUN(lapses{cache{r.disk, 4096}})); err != nil {
		t.Fatal(err)
	}
	n := r.target.NewNexus(sam.InitiatorPort{Name: "iqn.test:other"}, 1)
	x := &sam.Command{LUN: [8]byte{0, 1}, Ctx: context.Background(), CDB: unhex(t, "2a 00 00000002 00 0001 00")}
	n.Prepare(x) // POWER ON
	if !n.Prepare(x) {
		t.Fatalf("refused: % x", x.Sense)
	}
	x.Out = make([]byte, x.WantOut)
	if !n.(sam.Trier).TryExecute(x) || x.Status != sam.CheckCondition || x.Sense[2] != 2 || x.Sense[12] != 4 || x.Sense[13] != 1 {
		t.Errorf("status %v, sense % x", x.Status, x.Sense)
	}
}

// lapses is a cache whose writes are done, and cannot be answered.
type lapses struct{ cache }

func (l lapses) WriteNow(p []byte, off int64) (bool, error) {
	ok, _ := l.cache.WriteNow(p, off)
	return ok, fails(true)
}
