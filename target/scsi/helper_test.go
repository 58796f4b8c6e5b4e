package scsi

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/twinlun/twinlun/target/sam"
)

// ram is a Disk in memory that notes what was asked of it. It fails the test's
// expectations loudly: an access outside itself is recorded, never carried out.
type ram struct {
	sync.Mutex
	p       []byte
	fail    error
	outside []string
	calls   []string
}

func newRAM(size int) *ram { return &ram{p: make([]byte, size)} }

func (r *ram) enter(what string, off, n int64) error {
	r.calls = append(r.calls, fmt.Sprintf("%s %d+%d", what, off, n))
	if off < 0 || n < 0 || off > int64(len(r.p)) || n > int64(len(r.p))-off {
		r.outside = append(r.outside, r.calls[len(r.calls)-1])
		return errors.New("outside the disk")
	}
	return r.fail
}

func (r *ram) ReadAt(_ context.Context, p []byte, off int64) error {
	r.Lock()
	defer r.Unlock()
	if err := r.enter("read", off, int64(len(p))); err != nil {
		return err
	}
	copy(p, r.p[off:])
	return nil
}

func (r *ram) WriteAt(_ context.Context, p []byte, off int64, fua bool) error {
	r.Lock()
	defer r.Unlock()
	what := "write"
	if fua {
		what = "write fua"
	}
	if err := r.enter(what, off, int64(len(p))); err != nil {
		return err
	}
	copy(r.p[off:], p)
	return nil
}

func (r *ram) Zero(_ context.Context, off, n int64, fua bool) error {
	r.Lock()
	defer r.Unlock()
	what := "zero"
	if fua {
		what = "zero fua"
	}
	if err := r.enter(what, off, n); err != nil {
		return err
	}
	clear(r.p[off : off+n])
	return nil
}

func (r *ram) Sync(context.Context) error {
	r.Lock()
	defer r.Unlock()
	r.calls = append(r.calls, "sync")
	return r.fail
}

func (r *ram) Size() int64 { return int64(len(r.p)) }

// took returns the calls since the last time.
func (r *ram) took() string {
	r.Lock()
	defer r.Unlock()
	s := strings.Join(r.calls, ", ")
	r.calls = nil
	return s
}

const testName = "iqn.2026-01.io.twinlun:t"

func quietTarget() *Target {
	return NewTarget(Config{Name: testName, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
}

func testLUN(d Disk) LUN {
	return LUN{Disk: d, NAA: [16]byte{0x60, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
		Serial: "SN-1", Vendor: "TWINLUN ", Product: "twinlun", Revision: "0.1"}
}

var testPort = sam.InitiatorPort{Name: "iqn.test:host", ISID: [6]byte{0x80, 0, 0, 0, 0, 1}}

// rig is a target with a LUN 0 on a RAM disk of 64 blocks, and one nexus
// through portal group 2 whose first unit attention is over.
type rig struct {
	t      *testing.T
	disk   *ram
	target *Target
	nexus  sam.Nexus
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, disk: newRAM(64 * 512), target: quietTarget()}
	for i := range r.disk.p {
		r.disk.p[i] = byte(i / 512)
	}
	if err := r.target.AddLUN(0, testLUN(r.disk)); err != nil {
		t.Fatal(err)
	}
	r.nexus = r.target.NewNexus(testPort, 2)
	r.ua("2900")
	return r
}

// unhex reads hex with blanks.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	p, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return p
}

// run sends a command as the transport does.
func run(n sam.Nexus, lun [8]byte, cdb, out []byte, expectIn int) *sam.Command {
	c := &sam.Command{LUN: lun, CDB: cdb, Ctx: context.Background(),
		ExpectIn: uint32(expectIn), ExpectOut: uint32(len(out))}
	if n.Prepare(c) {
		c.Out = out[:min(len(out), int(c.WantOut))]
		c.In = make([]byte, min(c.WantIn, c.ExpectIn))
		n.Execute(c)
	}
	return c
}

// do runs a CDB, given in hex and padded to 16 bytes, on LUN 0.
func (r *rig) do(cdb string, out []byte, expectIn int) *sam.Command {
	r.t.Helper()
	p := unhex(r.t, cdb)
	return run(r.nexus, [8]byte{}, append(p, make([]byte, 16-len(p))...), out, expectIn)
}

// outcome is "good", "met" or the sense: key, code and qualifier, field pointer.
func outcome(c *sam.Command) string {
	switch {
	case c.Status == sam.Good:
		return "good"
	case c.Status == sam.ReservationConflict && len(c.Sense) == 0:
		return "conflict"
	case c.Status == sam.ConditionMet:
		return "met"
	case c.Status != sam.CheckCondition || len(c.Sense) != senseSize:
		return fmt.Sprintf("status %#x, sense %x", c.Status, c.Sense)
	}
	return strings.TrimSuffix(fmt.Sprintf("%x %x %x", c.Sense[2], c.Sense[12:14], c.Sense[15:]), " 000000")
}

func (r *rig) want(c *sam.Command, want string) {
	r.t.Helper()
	if got := outcome(c); got != want {
		r.t.Errorf("CDB %x: outcome %q, want %q", c.CDB, got, want)
	}
}

// ua takes the next unit attention, which must be the given one.
func (r *rig) ua(code string) {
	r.t.Helper()
	r.want(r.do("00", nil, 0), "6 "+code)
}

func (r *rig) wantData(c *sam.Command, want string) {
	r.t.Helper()
	r.want(c, "good")
	if p := unhex(r.t, want); !bytes.Equal(c.In[:c.InLen], p) {
		r.t.Errorf("CDB %x: data\n got %x\nwant %x", c.CDB, c.In[:c.InLen], p)
	}
}
