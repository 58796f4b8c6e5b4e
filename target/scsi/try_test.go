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
		{"WRITE", "2a 00 00000002 00 0001 00", false, "write 1024+512"},
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
			x.In, x.Out = make([]byte, x.WantIn), make([]byte, x.WantOut)
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
		})
	}
}

// TestTryExecuteLeavesErrors has reads that fail; Execute says how.
func TestTryExecuteLeavesErrors(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(r *rig)
		sense string // key, code
	}{
		{"the medium fails", func(r *rig) { r.disk.fail = errors.New("no medium") }, "03 1100"},
		{"the unit is removed", func(r *rig) { _ = r.target.RemoveLUN(1) }, "05 2500"},
		{"another has its number", func(r *rig) {
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
			copy(x.CDB, unhex(t, "28 00 00000002 00 0001 00"))
			if !n.Prepare(x) {
				t.Fatalf("refused: % x", x.Sense)
			}
			x.In = make([]byte, x.WantIn)
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
	copy(x.CDB, unhex(t, "28 00 00000002 00 0008 00"))
	buf := make([]byte, 4096)
	if got := testing.AllocsPerRun(1000, func() {
		if !n.Prepare(x) {
			panic("refused")
		}
		x.In = buf
		if !n.(sam.Trier).TryExecute(x) {
			panic("not done")
		}
	}); got != 0 {
		t.Error(got, "allocations")
	}
}

// ReadNow makes huge a NowReader.
func (huge) ReadNow([]byte, int64) (bool, error) { return true, nil }

// TestTryExecuteKeepsReservations has another initiator reserve the unit after a
// read was prepared.
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
		x.In = make([]byte, x.WantIn)
		return x
	}
	n := r.target.NewNexus(sam.InitiatorPort{Name: "iqn.test:other"}, 1)
	x := command(n, "28 00 00000002 00 0001 00")
	r.nexus.Execute(command(r.nexus, "16 00 00 00 00 00"))
	if n.(sam.Trier).TryExecute(x) {
		t.Fatal("done at once")
	}
	if n.Execute(x); x.Status != sam.ReservationConflict {
		t.Errorf("status %#02x", x.Status)
	}
}
