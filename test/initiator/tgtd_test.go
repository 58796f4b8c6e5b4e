package initiator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twinlun/twinlun/test/history"
)

const (
	tgtName = "iqn.2000-01.org.example:disk"
	tgtSize = 64 << 20
)

// reference is a running tgtd.
type reference struct {
	t       testing.TB
	address string
	control string
}

func (r reference) try(args string) ([]byte, error) {
	return exec.Command("tgtadm", strings.Fields("-C "+r.control+" --lld iscsi "+args)...).CombinedOutput()
}

func (r reference) adm(args string) {
	r.t.Helper()
	if out, err := r.try(args); err != nil {
		r.t.Fatalf("tgtadm %s: %s", args, out)
	}
}

// tgtd starts the reference target tgt with one file as LUN 1, and returns its
// portal. It ends with the test.
func tgtd(t testing.TB) reference {
	t.Helper()
	for _, tool := range []string{"tgtd", "tgtadm"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed (package tgt)", tool)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("tgtd takes root")
	}
	if err := os.MkdirAll("/var/run/tgtd", 0o755); err != nil {
		t.Skipf("tgtd has no place for its socket: %v", err)
	}
	port := freePort(t)
	control := fmt.Sprint(port % 32768) // one control socket for each tgtd
	d := exec.Command("tgtd", "-f", "-C", control, "--iscsi", fmt.Sprintf("portal=127.0.0.1:%d", port))
	if err := d.Start(); err != nil {
		t.Skipf("tgtd does not start: %v", err)
	}
	t.Cleanup(func() {
		d.Process.Kill()
		d.Wait()
		os.Remove("/var/run/tgtd/socket." + control)
		os.Remove("/var/run/tgtd/socket." + control + ".lock")
	})
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk, tgtSize); err != nil {
		t.Fatal(err)
	}
	r := reference{t, fmt.Sprintf("127.0.0.1:%d", port), control}
	deadline := time.Now().Add(20 * time.Second)
	for out, err := r.try("--op show --mode sys"); err != nil; out, err = r.try("--op show --mode sys") {
		if time.Now().After(deadline) {
			t.Skipf("tgtd does not answer: %s", out)
		}
		time.Sleep(20 * time.Millisecond)
	}
	for _, args := range []string{
		"--op new --mode target --tid 1 -T " + tgtName,
		"--op new --mode logicalunit --tid 1 --lun 1 --backing-store " + disk,
		"--op bind --mode target --tid 1 -I ALL",
	} {
		r.adm(args)
	}
	c, err := net.Dial("tcp", r.address) // when it cannot bind, it listens elsewhere
	if err != nil {
		t.Skipf("tgtd does not listen: %v", err)
	}
	c.Close()
	return r
}

func freePort(t testing.TB) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (r reference) options() Options {
	return Options{Address: r.address, TargetIQN: tgtName, LUN: 1, Lenient: true}
}

func dial(t testing.TB, o Options) *Session {
	t.Helper()
	s, err := Dial(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func random(n int, seed byte) []byte {
	p := make([]byte, n)
	r := rand.NewChaCha8([32]byte{seed, byte(n)})
	r.Read(p)
	return p
}

func TestDiscover(t *testing.T) {
	r := tgtd(t)
	targets, err := Discover(t.Context(), r.address)
	if err != nil {
		t.Fatal(err)
	}
	if len(targets) != 1 || targets[0].Name != tgtName || len(targets[0].Portals) != 1 || targets[0].Portals[0] != r.address+",1" {
		t.Errorf("%+v", targets)
	}
}

// TestTransfers writes and reads with every way that data can travel.
func TestTransfers(t *testing.T) {
	r := tgtd(t)
	for name, change := range map[string]func(*Options){
		"defaults":               func(*Options) {},
		"R2T only":               func(o *Options) { o.InitialR2T, o.NoImmediateData = true, true },
		"immediate, then R2T":    func(o *Options) { o.InitialR2T = true },
		"unsolicited, no immed.": func(o *Options) { o.NoImmediateData = true },
		"small bursts": func(o *Options) {
			o.FirstBurstLength, o.MaxBurstLength, o.MaxRecvDataSegmentLength = 1024, 4096, 512
		},
		"one R2T at a time":     func(o *Options) { o.MaxOutstandingR2T, o.MaxBurstLength = 1, 8192 },
		"header digest":         func(o *Options) { o.HeaderDigest = true },
		"data digest":           func(o *Options) { o.DataDigest = true },
		"both digests":          func(o *Options) { o.HeaderDigest, o.DataDigest = true, true },
		"no security stage":     func(o *Options) { o.SkipSecurity = true },
		"CmdSN wraps around":    func(o *Options) { o.FirstCmdSN = 0xfffffff0 },
		"small commands":        func(o *Options) { o.MaxTransfer = 4096 },
		"one command at a time": func(o *Options) { o.MaxCommands = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			o := r.options()
			change(&o)
			r.adm("--op update --mode target --tid 1 --name HeaderDigest --value " + crcOrNone(o.HeaderDigest))
			r.adm("--op update --mode target --tid 1 --name DataDigest --value " + crcOrNone(o.DataDigest))
			s := dial(t, o)
			for i, n := range []int{512, 4096, 66048, 300 << 10, 3 << 20} {
				roundTrip(t, s, random(n, byte(i)), int64(i)*4096)
			}
			if err := s.Logout(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func roundTrip(t *testing.T, s *Session, p []byte, off int64) {
	t.Helper()
	if err := s.WriteAt(t.Context(), p, off); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(p))
	if err := s.ReadAt(t.Context(), got, off); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, p) {
		t.Fatalf("%d bytes at %d came back changed", len(p), off)
	}
}

func TestManyCommandsInFlight(t *testing.T) {
	o := tgtd(t).options()
	o.FirstCmdSN = 0xffffff80
	s := dial(t, o)
	var wg sync.WaitGroup
	for i := range 200 { // more than MaxCommands
		wg.Go(func() {
			p, got := random(8192, byte(i)), make([]byte, 8192)
			off := int64(i) * 8192
			for range 5 {
				err := errors.Join(s.WriteAt(t.Context(), p, off), s.ReadAt(t.Context(), got, off))
				if err != nil || !bytes.Equal(got, p) {
					t.Errorf("at %d: %v", off, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestUnit(t *testing.T) {
	s := dial(t, tgtd(t).options())
	ctx := t.Context()
	c, err := s.Capacity(ctx)
	if err != nil || c.Size() != tgtSize || c.BlockSize != 512 {
		t.Errorf("capacity %+v, %v", c, err)
	}
	if p, err := s.Inquiry(ctx); err != nil || len(p) < 36 || string(p[8:11]) != "IET" {
		t.Errorf("inquiry %q, %v", p, err)
	}
	if p, err := s.VPD(ctx, 0); err != nil || len(p) < 5 || p[1] != 0 {
		t.Errorf("page 00: %x, %v", p, err)
	}
	if luns, err := s.ReportLUNs(ctx); err != nil || len(luns) != 2 || luns[1] != EncodeLUN(1) {
		t.Errorf("LUNs %x, %v", luns, err)
	}
	if err := errors.Join(s.TestUnitReady(ctx), s.Sync(ctx), s.WriteFUA(ctx, random(512, 1), 0)); err != nil {
		t.Error(err)
	}
	block := random(512, 7)
	if err := s.WriteSame(ctx, block, 4096, 8192, false); err != nil {
		t.Error(err)
	}
	got := make([]byte, 8192)
	if err := s.ReadAt(ctx, got, 4096); err != nil || !bytes.Equal(got, bytes.Repeat(block, 16)) {
		t.Errorf("write same: %v", err)
	}
	if p, err := s.Ping(ctx, []byte("hello")); err != nil || string(p) != "hello" {
		t.Errorf("ping: %q, %v", p, err)
	}
	if err := s.ReadAt(ctx, got[:100], 0); err == nil {
		t.Error("read a part of a block")
	}
}

func TestUnmap(t *testing.T) {
	r := tgtd(t)
	r.adm("--op update --mode logicalunit --tid 1 --lun 1 --params thin_provisioning=1")
	s := dial(t, r.options())
	roundTrip(t, s, random(16384, 1), 0)
	if err := s.Unmap(t.Context(), 4096, 8192); err != nil {
		t.Fatal(err)
	}
	want, got := random(16384, 1), make([]byte, 16384)
	clear(want[4096 : 4096+8192])
	if err := s.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("after unmap: %v", err)
	}
}

func TestCheckCondition(t *testing.T) {
	s := dial(t, tgtd(t).options())
	if err := s.Sync(t.Context()); err != nil { // takes the unit attention away
		t.Fatal(err)
	}
	err := s.ReadAt(t.Context(), make([]byte, 512), tgtSize)
	var check *CheckCondition
	if !errors.As(err, &check) || check.Key != SenseIllegalRequest || check.ASC != 0x21 {
		t.Errorf("read beyond the end: %v", err)
	}
	r, err := s.Command(t.Context(), []byte{0xff, 0, 0, 0, 0, 0}, nil, make([]byte, 100))
	if !errors.As(err, &check) || check.Key != SenseIllegalRequest || r.Status != StatusCheckCondition {
		t.Errorf("a command that does not exist: %v, %+v", err, r)
	}
	r, err = s.Command(t.Context(), []byte{0x12, 0, 0, 0, 36, 0}, nil, make([]byte, 100))
	if err != nil || r.Received != 36 || !r.Underflow || r.Residual != 64 {
		t.Errorf("inquiry with a larger buffer: %v, %+v", err, r)
	}
}

func TestLoginRefused(t *testing.T) {
	o := tgtd(t).options()
	o.TargetIQN = "iqn.2000-01.org.example:none"
	_, err := Dial(t.Context(), o)
	var refused *LoginError
	if !errors.As(err, &refused) || refused.Class != 2 {
		t.Errorf("%v", err)
	}
}

func TestLUNReset(t *testing.T) {
	s := dial(t, tgtd(t).options())
	roundTrip(t, s, random(4096, 1), 0)
	if err := s.LUNReset(t.Context()); err != nil {
		t.Fatal(err)
	}
	roundTrip(t, s, random(4096, 2), 0) // over a unit attention, perhaps
	var unknown *TaskError
	if err := s.AbortTask(t.Context(), 0x12340000); !errors.As(err, &unknown) || unknown.Response != taskUnknown {
		t.Errorf("abort of a task that is not there: %v", err)
	}
}

func TestResilientComesBack(t *testing.T) {
	o := tgtd(t).options()
	r, err := NewResilient(o, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, got := random(4096, 1), make([]byte, 4096)
	for i := range 5 {
		if err := r.WriteAt(t.Context(), p, 0); err != nil {
			t.Fatal(err)
		}
		r.current.conn.Close()
		if err := r.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, p) {
			t.Fatal(err)
		}
		if n := r.Logins(); n != i+2 {
			t.Errorf("%d logins after %d losses", n, i+1)
		}
	}
}

var _ history.Repeater = (*Resilient)(nil)

// TestHistory puts initiator, history and a real target together: several hosts
// with queueing multipath, whose connections are cut all the time.
func TestHistory(t *testing.T) {
	o := tgtd(t).options()
	var clients []history.Client
	var sessions []*Resilient
	for range 4 {
		r, err := NewResilient(o, 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		clients, sessions = append(clients, r), append(sessions, r)
	}
	ctx, stop := context.WithCancel(t.Context())
	var cutter sync.WaitGroup
	cutter.Go(func() { cutConnections(ctx, sessions) })
	rec := history.NewRecorder(time.Now)
	err := history.Run(t.Context(), rec, history.Workload{
		Seed: 1, Ops: 300, Areas: []history.Area{{First: 14, Blocks: 4}}, Timeout: 20 * time.Second,
	}, clients)
	stop()
	cutter.Wait()
	if err := errors.Join(err, history.CheckOps(rec.Ops(), 20*time.Second, "")); err != nil {
		t.Error(err)
	}
	for _, err := range rec.Bad() {
		// tgt reads and writes the page cache, which lets a read see a write half
		// done. All else would be a fault.
		var bad *history.BadBlock
		if !errors.As(err, &bad) || !bad.Torn {
			t.Error(err)
		}
	}
	repeated := 0
	for _, op := range rec.Ops() {
		if op.Maybe {
			repeated++
		}
	}
	t.Logf("%d operations, %d of them tries that were repeated", len(rec.Ops()), repeated)
}

// cutConnections cuts one every few milliseconds.
func cutConnections(ctx context.Context, sessions []*Resilient) {
	for i := 0; pause(ctx, 10*time.Millisecond); i++ {
		r := sessions[i%len(sessions)]
		<-r.lock
		if r.current != nil {
			r.current.conn.Close()
		}
		r.lock <- struct{}{}
	}
}

// BenchmarkRead4K: at queue depths 1 and 32, against whatever tgtd can do.
func BenchmarkRead4K(b *testing.B) {
	s := dial(b, tgtd(b).options())
	for _, depth := range []int{1, 32} {
		b.Run(fmt.Sprintf("QD%d", depth), func(b *testing.B) {
			b.ReportAllocs()
			var wg sync.WaitGroup
			for i := range depth {
				wg.Go(func() {
					p := make([]byte, 4096)
					for range b.N / depth {
						if err := s.ReadAt(context.Background(), p, int64(i)*4096); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}
