package sanitize

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const size = 1 << 20

// disk is a LUN with both of its replicas.
type disk struct {
	mu     sync.Mutex
	data   [size]byte
	synced int // bytes written and then synced
	wrote  int
	fail   error
	copied atomic.Bool
	solid  atomic.Bool
}

func (d *disk) WriteAt(_ context.Context, p []byte, off int64, _ bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wrote += len(p)
	copy(d.data[off:], p)
	return d.fail
}

func (d *disk) Zero(ctx context.Context, off, n int64, fua bool) error {
	return d.WriteAt(ctx, make([]byte, n), off, fua)
}

func (d *disk) Sync(context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.synced = d.wrote
	return d.fail
}

func (d *disk) Size() int64 { return size }

func (d *disk) set(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = err
}

func (d *disk) count() (wrote, synced int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.wrote, d.synced
}

func (d *disk) holds(b byte) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return bytes.Count(d.data[:], []byte{b}) == size
}

// node is a site: a Unit, and the Sanitizer behind it.
type node struct {
	t     *testing.T
	cfg   Config
	other *node
	cut   atomic.Bool // what it tells is not heard
	deaf  atomic.Bool // what it tells is heard, and the answer lost

	mu        sync.Mutex
	s         *Sanitizer
	status    Status
	ended     int
	objection Objection
}

func (n *node) Refuse(s Status) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.status = s
}

func (n *node) EndCommands(context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ended++
	return nil
}

func (n *node) Objection() Objection {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.objection
}

func (n *node) Tell(ctx context.Context, body []byte) ([]byte, error) {
	other := n.other.sanitizer()
	if n.cut.Load() || other == nil {
		return nil, errors.New("the link is cut")
	}
	answer, ok := other.Heard(ctx, body)
	if !ok || n.deaf.Load() {
		return nil, errors.New("no answer")
	}
	return answer, nil
}

func (n *node) sanitizer() *Sanitizer {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.s
}

func (n *node) sees() Status {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.status
}

// open lets the site begin, or begin again.
func (n *node) open() {
	n.t.Helper()
	s, err := Open(n.cfg)
	if err != nil {
		n.t.Fatal(err)
	}
	n.mu.Lock()
	n.s, n.status = s, Status{Phase: Failed + 1}
	n.mu.Unlock()
	s.Attach(n)
}

func (n *node) close() {
	s := n.sanitizer()
	n.mu.Lock()
	n.s = nil
	n.mu.Unlock()
	s.Close()
}

func (n *node) start(o Order) error {
	return n.sanitizer().Start(context.Background(), o, func() error { return nil })
}

// await waits until hosts see a phase at the site.
func (n *node) await(p Phase) {
	n.t.Helper()
	for end := time.Now().Add(time.Minute); n.sees().Phase != p; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			n.t.Fatalf("it is %v, and does not come to be %v", n.sees().Phase, p)
		}
	}
}

// sites are two sites with one disk.
func sites(t *testing.T) (a, b *node, d *disk) {
	d = &disk{}
	d.copied.Store(true)
	for i := range d.data {
		d.data[i] = 'x'
	}
	make := func(name string) *node {
		return &node{t: t, cfg: Config{
			Path: filepath.Join(t.TempDir(), name), LUN: lun, Disk: d, BlockSize: 512,
			Copied: d.copied.Load, Solid: d.solid.Store, Log: slog.New(slog.DiscardHandler),
		}}
	}
	a, b = make("a"), make("b")
	a.other, b.other = b, a
	a.open()
	b.open()
	t.Cleanup(func() {
		for _, n := range []*node{a, b} {
			if n.sanitizer() != nil {
				n.close()
			}
		}
	})
	return a, b, d
}

var once = Order{Passes: 1, Pattern: []byte{7}, AUSE: true}

// While the LUN is overwritten hosts are served nowhere; in the end they are at both.
func TestSanitizer(t *testing.T) {
	a, b, d := sites(t)
	d.copied.Store(false)
	if err := a.start(once); err != nil {
		t.Fatal(err)
	}
	b.await(Following)
	a.await(Running)
	if b.ended != 1 {
		t.Errorf("the commands at the other site were ended %d times", b.ended)
	}
	for _, n := range []*node{a, b} {
		if err := n.start(once); err != ErrBusy {
			t.Errorf("started again: %v", err)
		}
		if err := n.sanitizer().Exit(context.Background()); err != ErrBusy {
			t.Errorf("EXIT FAILURE MODE: %v", err)
		}
	}
	if !d.solid.Load() {
		t.Error("what is overwritten with zeros may become a hole")
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	gone := errors.New("the host has gone")
	cancel(gone)
	if err := a.sanitizer().Wait(ctx); err != gone {
		t.Errorf("waiting in vain: %v", err)
	}
	d.copied.Store(true)
	if err := a.sanitizer().Wait(context.Background()); err != nil {
		t.Error(err)
	}
	if a.sees().Phase != Idle || b.sees().Phase != Idle || !d.holds(7) || d.solid.Load() {
		t.Errorf("in the end %v and %v, overwritten: %v", a.sees(), b.sees(), d.holds(7))
	}
}

// What counts as done is durable at both sites: else it is done again.
func TestDoneIsDurable(t *testing.T) {
	a, b, d := sites(t)
	d.copied.Store(false)
	twice := once
	twice.Passes = 2
	if err := a.start(twice); err != nil {
		t.Fatal(err)
	}
	for wrote, synced := 0, 0; wrote < size || synced < wrote; wrote, synced = d.count() {
		time.Sleep(time.Millisecond)
	}
	if done := a.sanitizer().State().Done; done != 0 {
		t.Errorf("%d bytes count as done, and the other site has nothing", done)
	}
	a.close()
	a.open()
	b.close()
	b.open()
	b.await(Following)
	a.await(Running)
	d.copied.Store(true)
	a.await(Idle)
	b.await(Idle)
	if wrote, _ := d.count(); wrote != 3*size {
		t.Errorf("%d bytes written, want one pass, and two after the restart", wrote)
	}
}

// A start that is told, and whose answer is lost, erases nothing: neither now nor later.
func TestStartInVain(t *testing.T) {
	a, b, d := sites(t)
	a.deaf.Store(true)
	if err := a.start(once); !errors.Is(err, ErrNoPeer) {
		t.Fatal(err)
	}
	// The first exchange has failed already; the second one alone:
	a.deaf.Store(false)
	err := a.sanitizer().Start(context.Background(), once, func() error {
		a.deaf.Store(true)
		return nil
	})
	if !errors.Is(err, ErrNoPeer) || a.sees().Phase != Idle {
		t.Fatalf("%v, %v", err, a.sees())
	}
	b.await(Following)
	a.deaf.Store(false)
	b.await(Idle)
	if wrote, _ := d.count(); wrote > 0 {
		t.Error("something was erased")
	}
}

// A start whose commands do not end, or during which the site dies, erases nothing.
func TestStartBrokenOff(t *testing.T) {
	a, b, d := sites(t)
	slow := errors.New("they take too long")
	if err := a.sanitizer().Start(context.Background(), once, func() error { return slow }); !errors.Is(err, slow) || a.sees().Phase != Idle {
		t.Errorf("%v, %v", err, a.sees())
	}
	file := []byte(nil)
	err := a.sanitizer().Start(context.Background(), once, func() (err error) {
		file, err = os.ReadFile(a.cfg.Path)
		return errors.Join(err, slow)
	})
	if s, e := Decode(file, lun); e != nil || s.Phase != Starting {
		t.Fatalf("the file is %+v, %v meanwhile, the end %v", s, e, err)
	}
	a.close()
	if err := os.WriteFile(a.cfg.Path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	a.open()
	a.await(Idle)
	b.await(Idle)
	if wrote, _ := d.count(); wrote > 0 {
		t.Error("something was erased")
	}
}

// When the disk fails hosts are served nowhere, through restarts, until it is done or
// they give up where that is allowed.
func TestFailure(t *testing.T) {
	ctx := context.Background()
	for _, free := range []bool{true, false} {
		a, b, d := sites(t)
		o := once
		o.AUSE = free
		d.set(errors.New("the medium"))
		if err := a.start(o); err != nil {
			t.Fatal(err)
		}
		if err := a.sanitizer().Wait(ctx); err != ErrFailed {
			t.Errorf("AUSE %v: %v", free, err)
		}
		b.await(Failed)
		for _, n := range []*node{a, b} {
			n.close()
			n.open()
			n.await(Failed)
		}
		// One that cannot be begun changes nothing of that.
		b.cut.Store(true)
		if err := b.start(o); !errors.Is(err, ErrNoPeer) || b.sees().Phase != Failed {
			t.Errorf("AUSE %v: %v, then %v", free, err, b.sees())
		}
		b.cut.Store(false)
		err := b.sanitizer().Start(ctx, o, func() error {
			b.cut.Store(true)
			return nil
		})
		b.cut.Store(false)
		if !errors.Is(err, ErrNoPeer) || a.sees().Phase != Failed || b.sees().Phase != Failed {
			t.Errorf("AUSE %v: %v, then %v and %v", free, err, a.sees(), b.sees())
		}
		if free {
			if err := b.sanitizer().Exit(ctx); err != nil || a.sees().Phase != Idle || b.sees().Phase != Idle {
				t.Errorf("EXIT FAILURE MODE: %v, then %v and %v", err, a.sees(), b.sees())
			}
			continue
		}
		if err := b.sanitizer().Exit(ctx); err != ErrRestricted {
			t.Errorf("EXIT FAILURE MODE: %v", err)
		}
		if err := b.start(once); err != ErrRestricted {
			t.Errorf("less strict than before: %v", err)
		}
		d.set(nil)
		if err := errors.Join(b.start(o), b.sanitizer().Wait(ctx)); err != nil || !d.holds(7) {
			t.Errorf("once more: %v", err)
		}
		a.await(Idle)
	}
}

// A site that has a reason refuses for the other one, too, and after a failure that lasts.
func TestObjections(t *testing.T) {
	a, b, d := sites(t)
	for o, want := range []error{Conflict: ErrConflict, Protected: ErrProtected, Absent: ErrAbsent} {
		if want == nil {
			continue
		}
		b.mu.Lock()
		b.objection = Objection(o)
		b.mu.Unlock()
		if err := a.start(once); err != want || a.sees().Phase != Idle || b.sees().Phase != Idle {
			t.Errorf("%v, then %v and %v; want %v", err, a.sees(), b.sees(), want)
		}
	}
	d.set(errors.New("the medium"))
	if err := b.start(once); err != nil { // its own reason is the business of its guard
		t.Fatal(err)
	}
	a.await(Failed)
	b.await(Failed)
	if err := a.start(once); err != ErrAbsent || a.sees().Phase != Failed || b.sees().Phase != Failed {
		t.Errorf("after a failure: %v, then %v and %v", err, a.sees(), b.sees())
	}
}

// Without a file that can be written nothing is begun, and what cannot be given up is
// not run.
func TestFileFails(t *testing.T) {
	a, b, d := sites(t)
	dir := filepath.Dir(a.cfg.Path)
	away := func() error { return os.Rename(dir, dir+".away") }
	back := func() error { return os.Rename(dir+".away", dir) }
	if err := away(); err != nil {
		t.Fatal(err)
	}
	if err := a.start(once); err == nil || a.sees().Phase != Idle || b.sees().Phase != Idle {
		t.Errorf("%v, then %v and %v", err, a.sees(), b.sees())
	}
	if err := back(); err != nil {
		t.Fatal(err)
	}
	if err := a.sanitizer().Start(context.Background(), once, away); err == nil {
		t.Error("it starts, and cannot keep that it does")
	}
	if got := a.sees().Phase; got != Starting {
		t.Errorf("what cannot be given up is %v", got)
	}
	b.await(Following)
	if err := back(); err != nil {
		t.Fatal(err)
	}
	a.await(Idle)
	b.await(Idle)
	if wrote, _ := d.count(); wrote > 0 {
		t.Error("something was erased")
	}
}

// A site whose file is lost while it leads does not erase again, and neither does the
// other one: hosts decide.
func TestLostFile(t *testing.T) {
	a, b, d := sites(t)
	d.copied.Store(false)
	if err := a.start(once); err != nil {
		t.Fatal(err)
	}
	b.await(Following)
	a.close()
	if err := os.Remove(a.cfg.Path); err != nil {
		t.Fatal(err)
	}
	a.open()
	before, _ := d.count()
	b.sanitizer().Joined()
	a.await(Failed)
	b.await(Failed)
	d.copied.Store(true)
	if err := a.sanitizer().Exit(context.Background()); err != nil {
		t.Error(err)
	}
	b.await(Idle)
	if after, _ := d.count(); after != before {
		t.Error("it went on")
	}
}

// Two hosts that ask at once, each at a site: one is heard, or none.
func TestBothAtOnce(t *testing.T) {
	a, b, d := sites(t)
	heard := 0
	for i := range 50 {
		var errs [2]error
		var both sync.WaitGroup
		for k, n := range []*node{a, b} {
			both.Go(func() {
				o := once
				o.Pattern = []byte{byte(i), byte(k)}
				errs[k] = n.start(o)
			})
		}
		both.Wait()
		a.await(Idle)
		b.await(Idle)
		for k, err := range errs {
			switch {
			case err == nil:
				heard++
			case err != ErrBusy && !errors.Is(err, ErrNoPeer):
				t.Errorf("site %d: %v", k, err)
			}
		}
		if errs[0] != nil && errs[1] == nil && (d.data[0] != byte(i) || d.data[1] != 1) {
			t.Error("the one that was refused was run")
		}
	}
	if heard == 0 {
		t.Error("nobody was ever heard")
	}
}

// What is not a state of this LUN stops the start, with a word about what to do.
func TestDamagedFile(t *testing.T) {
	a, _, _ := sites(t)
	a.close()
	bare := order(3)
	bare.Pattern = nil
	other := State{Over: 3}
	for name, b := range map[string][]byte{
		"garbage":                []byte("garbage"),
		"too long":               make([]byte, MaxEncoded+1),
		"of another LUN":         other.Encode([16]byte{1}),
		"running, and with what": (&State{Phase: Running, Order: bare}).Encode(lun),
		"objects":                (&State{objection: Conflict}).Encode(lun),
	} {
		if err := os.WriteFile(a.cfg.Path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(a.cfg); err == nil || !strings.Contains(err.Error(), "move the file away") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Nonsense is not understood, and changes nothing.
func TestHeardNonsense(t *testing.T) {
	a, _, _ := sites(t)
	other := State{Over: 3}
	for _, b := range [][]byte{nil, []byte("x"), other.Encode([16]byte{1})} {
		if answer, ok := a.sanitizer().Heard(context.Background(), b); ok || answer != nil || a.sanitizer().State().Over != 0 {
			t.Errorf("% x: %v, % x", b, ok, answer)
		}
	}
}

func TestProgress(t *testing.T) {
	a, b, d := sites(t)
	d.copied.Store(false)
	if err := a.start(once); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*node{a, b} {
		for end := time.Now().Add(time.Minute); n.sees().Progress < 0x8000; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("hosts hear of %d of 65536", n.sees().Progress)
			}
		}
	}
}
