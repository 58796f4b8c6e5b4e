package reserving

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/target/reservation"
	"github.com/twinlun/twinlun/target/sam"
	"github.com/twinlun/twinlun/target/scsi"
)

// testing.TB without what only a test's own goroutine has; rapid.T is one, too.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

var disk = catalog.UUID{15: 7}

// world is two sites with one log that both apply, each when the test wants it to. The
// devices, hubs and catalogs are real; raft is the list.
type world struct {
	t     tester
	sites [2]*site

	mu    sync.Mutex
	log   [][]byte
	moved chan struct{} // closed, and a new one made, when anything has moved
}

// site is a node with its device.
type site struct {
	w      *world
	name   catalog.NodeID
	number int
	hub    *Hub
	device *scsi.Target
	hosts  map[string]sam.Nexus

	applying sync.Mutex // held while an entry is applied

	// Under world.mu.
	state   *catalog.State
	applied int // entries of the log
	results map[int]catalog.Result
	held    bool // it applies only what it is told to (step)
	cut     bool // the other site hears nothing of it
}

func newWorld(t tester) *world {
	w := &world{t: t, moved: make(chan struct{})}
	for i, name := range []catalog.NodeID{"a", "b"} {
		w.sites[i] = &site{w: w, name: name, number: i + 1, state: catalog.New(), results: map[int]catalog.Result{}}
	}
	w.found()
	for _, s := range w.sites {
		s.open()
	}
	return w
}

// found makes the cluster with its LUN.
func (w *world) found() {
	node := func(name catalog.NodeID, n byte) catalog.NewNode {
		return catalog.NewNode{Name: name, Site: "site-" + string(name), Addresses: []string{string(name) + ".example.org:7480"},
			Key: catalog.Hash{n}, Voter: true, Version: 1}
	}
	for _, b := range []catalog.Body{
		&catalog.InitCluster{Cluster: catalog.Cluster{ID: catalog.UUID{1}, Name: "c"}, Node: node("a", 1)},
		&catalog.AddToken{Hash: catalog.Hash{9}, Expires: 1 << 50},
		&catalog.AdmitNode{Token: catalog.Hash{9}, Node: node("b", 2)},
		&catalog.AddLUN{ID: disk, Name: "disk", Size: 1 << 20, BlockSize: 512, ExtentSize: 64 << 10, Loss: catalog.Hold,
			NAA: catalog.NAA{0x60}, Epoch: catalog.UUID{1}, Preferred: "a",
			Replicas: []catalog.Replica{{Node: "a", Kind: catalog.File, Path: "/d"}, {Node: "b", Kind: catalog.File, Path: "/d"}}},
	} {
		index := w.append(b)
		w.pump()
		if r := w.sites[0].results[index]; r.Error != nil {
			w.t.Fatalf("%s: %v", b.Kind(), r.Error)
		}
	}
}

// open begins with what the site has applied.
func (s *site) open() {
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	s.hub = New(s.name, s, quiet)
	s.hub.Apply(s.state, catalog.Result{})
	s.hub.tasks.Wait() // Sync has nothing to wait for
	reopened(s.w, s)
}

// reopened gives a site a new device, with the reservations of its hub.
func reopened(w *world, s *site) {
	other := uint16(3 - s.number)
	s.device = scsi.NewTarget(scsi.Config{Name: "iqn.2026-01.io.twinlun:t", Log: s.hub.log, Groups: []scsi.PortGroup{
		{ID: uint16(s.number), Ports: []uint16{uint16(s.number)}}, {ID: other, Ports: []uint16{other}, Remote: true},
	}})
	s.hosts = map[string]sam.Nexus{}
	err := s.device.AddLUN(0, scsi.LUN{Disk: nowhere{}, NAA: [16]byte{0x60}, Serial: "1", Twin: s, Reservations: s.hub.LUN(disk)})
	if err != nil {
		w.t.Fatalf("%v", err)
	}
	for i, name := range []string{"a", "b", "c"} {
		n := s.device.NewNexus(sam.InitiatorPort{Name: "iqn.test:" + name, ISID: [6]byte{0x80, 5: byte(i)}}, uint16(s.number))
		s.hosts[name] = n
		if got := outcome(run(n, testUnitReady, nil)); got != "6 2900" {
			w.t.Fatalf("the first unit attention is %q", got)
		}
	}
}

// nowhere is a Disk without bytes.
type nowhere struct{}

func (nowhere) ReadAt(context.Context, []byte, int64) error        { return nil }
func (nowhere) WriteAt(context.Context, []byte, int64, bool) error { return nil }
func (nowhere) Zero(context.Context, int64, int64, bool) error     { return nil }
func (nowhere) Update(_ context.Context, _, _ int64, _ bool, _ func([]byte) bool) error {
	return nil
}
func (nowhere) WriteAtomic(context.Context, []byte, int64, bool) error { return nil }
func (nowhere) Sync(context.Context) error                             { return nil }
func (nowhere) Size() int64                                            { return 1 << 20 }

// append has an entry agreed on.
func (w *world) append(b catalog.Body) (index int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	id := catalog.UUID{}
	binary.BigEndian.PutUint64(id[:], uint64(len(w.log)+1))
	raw, err := catalog.Command{ID: id, Time: catalog.StampOf(time.Unix(1e9, 0)), By: "test", Body: b}.Encode()
	if err != nil {
		panic(err)
	}
	w.log = append(w.log, raw)
	w.movedLocked()
	return len(w.log)
}

func (w *world) movedLocked() {
	close(w.moved)
	w.moved = make(chan struct{})
}

// until waits for something to become true.
func (w *world) until(ctx context.Context, is func() bool) error {
	for {
		w.mu.Lock()
		done, moved := is(), w.moved
		w.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// pump has all sites that are not held apply everything.
func (w *world) pump() {
	for _, s := range w.sites {
		for s.step(false) {
		}
	}
}

// step applies one entry. False: there is none, or the site is held and not forced.
func (s *site) step(force bool) bool {
	s.applying.Lock()
	defer s.applying.Unlock()
	s.w.mu.Lock()
	state, at := s.state, s.applied
	if at == len(s.w.log) || s.held && !force {
		s.w.mu.Unlock()
		return false
	}
	raw := s.w.log[at]
	s.w.mu.Unlock()
	next, result, err := state.Apply(uint64(at+1), raw)
	if err != nil {
		panic(err)
	}
	if s.hub != nil {
		s.hub.Apply(next, result)
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.state, s.applied = next, at+1
	s.results[s.applied] = result
	s.w.movedLocked()
	return true
}

// at is how far a site is.
func (s *site) at() int {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	return s.applied
}

// hold has a site apply nothing, or everything again.
func (s *site) hold(on bool) {
	s.w.mu.Lock()
	s.held = on
	s.w.mu.Unlock()
	s.w.pump()
}

// Do implements Cluster.
func (s *site) Do(ctx context.Context, _ string, body catalog.Body) (catalog.Result, error) {
	index := s.w.append(body)
	s.w.pump()
	if err := s.w.until(ctx, func() bool { return s.applied >= index }); err != nil {
		return catalog.Result{}, err
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	return s.results[index], nil
}

// PeerApplied implements Cluster.
func (s *site) PeerApplied(ctx context.Context, node string, index uint64) error {
	peer := s.w.sites[slices.IndexFunc(s.w.sites[:], func(p *site) bool { return string(p.name) == node })]
	return s.w.until(ctx, func() bool { return peer.applied >= int(index) })
}

// Sync implements Cluster.
func (s *site) Sync(context.Context) error { return nil }

// Tell implements scsi.Twin.
func (s *site) Tell(ctx context.Context, topic uint16, body []byte) ([]byte, error) {
	s.w.mu.Lock()
	cut := s.cut
	s.w.mu.Unlock()
	if cut {
		return nil, errors.New("the link is down")
	}
	answer, understood := s.w.sites[2-s.number].device.Heard(ctx, 0, topic, body)
	if !understood {
		return nil, errors.New("not understood")
	}
	return answer, nil
}

// serve changes who serves: "a", "b" or "ab".
func (w *world) serve(who string) {
	w.append(w.serving(who))
	w.pump()
}

// serving is the command for it, on top of the whole log.
func (w *world) serving(who string) catalog.Body {
	l := w.lun()
	steps := catalog.Steps{Node: catalog.NodeID(who[:1]), Epoch: catalog.UUID{1, 2}, LUNs: []catalog.Step{{LUN: disk, Term: l.Term, Join: 1}}}
	if who == "ab" {
		steps.Node = l.Serving[0]
		return &catalog.JoinBoth{Steps: steps}
	}
	return &catalog.TakeAlone{Steps: steps}
}

// lun is the LUN at the end of the log.
func (w *world) lun() catalog.LUN {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := catalog.New()
	for i, raw := range w.log {
		s, _, _ = s.Apply(uint64(i+1), raw)
	}
	l, _ := s.LUN(disk)
	return l
}

// CDBs.
const (
	testUnitReady = "00"
	write         = "2a 00 00000000 00 0001 00"
	read          = "28 00 00000000 00 0001 00"
	readKeys      = "5e 00 00 00 00 00 00 ffff 00"
	capabilities  = "5e 02 00 00 00 00 00 ffff 00"
)

func unhex(s string) []byte {
	p, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		panic(err)
	}
	return p
}

// run sends a command as the transport does.
func run(n sam.Nexus, cdb string, out []byte) *sam.Command {
	return runUntil(context.Background(), n, cdb, out, func() {})
}

// runUntil calls prepared when the command is to be carried out, or not let through.
func runUntil(ctx context.Context, n sam.Nexus, cdb string, out []byte, prepared func()) *sam.Command {
	p := unhex(cdb)
	if cdb == write && out == nil {
		out = make([]byte, 512)
	}
	c := &sam.Command{CDB: append(p, make([]byte, 16-len(p))...), Ctx: ctx, ExpectIn: 1 << 16, ExpectOut: uint32(len(out))}
	ready := n.Prepare(c)
	prepared()
	if ready {
		c.Out = out[:min(len(out), int(c.WantOut))]
		c.In = make([]byte, min(c.WantIn, c.ExpectIn))
		n.Execute(c)
	}
	return c
}

// outcome is "good", "conflict" or sense key and code.
func outcome(c *sam.Command) string {
	switch c.Status {
	case sam.Good:
		return "good"
	case sam.ReservationConflict:
		return "conflict"
	}
	return fmt.Sprintf("%x %x", c.Sense[2], c.Sense[12:14])
}

// list is a parameter list of PERSISTENT RESERVE OUT.
func list(key, newKey uint64, flags byte) []byte {
	p := binary.BigEndian.AppendUint64(nil, key)
	p = binary.BigEndian.AppendUint64(p, newKey)
	return append(p, 0, 0, 0, 0, flags, 0, 0, 0)
}

func reserveOut(action reservation.Action, kind reservation.Type, size int) string {
	return fmt.Sprintf("5f %02x %02x 00 00 %08x 00", byte(action), byte(kind), size)
}

// host finds "a2": initiator a at site 2.
func (w *world) host(name string) sam.Nexus { return w.sites[name[1]-'1'].hosts[name[:1]] }

// out sends PERSISTENT RESERVE OUT.
func (w *world) out(host string, action reservation.Action, key, newKey uint64, kind reservation.Type) *sam.Command {
	return run(w.host(host), reserveOut(action, kind, 24), list(key, newKey, 0))
}

func (w *world) want(got *sam.Command, want string) {
	w.t.Helper()
	if s := outcome(got); s != want {
		w.t.Errorf("CDB %x: %q, want %q", got.CDB, s, want)
	}
}

var _ scsi.Shared = (*Reservations)(nil)

// nexusOf is the name of a host in the state.
func nexusOf(host string) reservation.Nexus {
	return reservation.Nexus{Initiator: fmt.Sprintf("iqn.test:%c,i,0x80000000000%d", host[0], host[0]-'a'), Port: uint16(host[1] - '0')}
}

// started is a command that runs.
type started struct {
	done chan struct{}
	c    *sam.Command
	stop context.CancelFunc
}

// start returns when the command is prepared: it has got its unit attention, if any.
func start(n sam.Nexus, cdb string, out []byte) *started {
	ctx, cancel := context.WithCancel(context.Background())
	s := &started{done: make(chan struct{}), stop: cancel}
	prepared := make(chan struct{})
	go func() {
		defer close(s.done)
		defer cancel()
		s.c = runUntil(ctx, n, cdb, out, func() { close(prepared) })
	}()
	<-prepared
	return s
}

func (s *started) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

func hexOf(s string) string { return hex.EncodeToString([]byte(s)) }
