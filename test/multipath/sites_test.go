package multipath

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/twinlun/twinlun/target/iscsi"
	"github.com/twinlun/twinlun/target/scsi"
	"github.com/twinlun/twinlun/test/initiator"
)

const (
	diskName = "iqn.2026-01.org.example:disk"
	diskSize = 1 << 20
	// patience bounds a failure: what should happen soon.
	patience = 30 * time.Second
)

// memory is the one disk of both sites.
type memory struct {
	mu   sync.Mutex
	data [diskSize]byte
}

// site is a target that shows a disk, and its troubles.
type site struct {
	*memory
	device  *scsi.Device
	group   uint16
	address string

	mu       sync.Mutex
	served   int           // commands that were carried out
	notReady bool          // commands are refused
	hangs    chan struct{} // not nil: commands wait until it is closed, and are carried out then
	deaf     bool          // nobody connects
	conns    []net.Conn
}

type errNotReady struct{ error }

func (errNotReady) SCSINotReady() bool { return true }

// command does f on the disk, if the site's trouble lets it, and when.
func (s *site) command(ctx context.Context, f func(data []byte)) error {
	s.mu.Lock()
	notReady, hangs := s.notReady, s.hangs
	s.served++
	s.mu.Unlock()
	if notReady {
		return errNotReady{errors.New("on purpose")}
	}
	if hangs != nil {
		select {
		case <-hangs:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.memory.mu.Lock()
	defer s.memory.mu.Unlock()
	f(s.data[:])
	return nil
}

func (s *site) ReadAt(ctx context.Context, p []byte, off int64) error {
	return s.command(ctx, func(data []byte) { copy(p, data[off:]) })
}

func (s *site) WriteAt(ctx context.Context, p []byte, off int64, _ bool) error {
	return s.command(ctx, func(data []byte) { copy(data[off:], p) })
}

func (s *site) Update(ctx context.Context, off, n int64, _ bool, change func(p []byte) bool) error {
	return s.command(ctx, func(data []byte) { change(data[off : off+n]) })
}

func (s *site) WriteAtomic(ctx context.Context, p []byte, off int64, fua bool) error {
	return s.WriteAt(ctx, p, off, fua)
}

func (s *site) Zero(context.Context, int64, int64, bool) error { return io.ErrUnexpectedEOF }
func (s *site) Sync(context.Context) error                     { return nil }
func (s *site) Size() int64                                    { return diskSize }

// set changes the site's troubles.
func (s *site) set(f func(s *site)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

// die loses all connections, and takes no new ones until deaf is false again.
func (s *site) die() {
	s.set(func(s *site) {
		s.deaf = true
		for _, c := range s.conns {
			c.Close()
		}
		s.conns = nil
	})
}

func (s *site) dial(ctx context.Context, network, address string) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deaf {
		return nil, errors.New("nobody listens, on purpose")
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err == nil {
		s.conns = append(s.conns, conn)
	}
	return conn, err
}

func (s *site) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.served
}

// twoSites are targets of one LUN; group 1 is the preferred one.
func twoSites(t *testing.T, disks [2]*memory) (sites [2]*site) {
	t.Helper()
	for i := range sites {
		sites[i] = serve(t, disks[i], uint16(i+1))
	}
	return sites
}

func sharedSites(t *testing.T) [2]*site {
	m := new(memory)
	return twoSites(t, [2]*memory{m, m})
}

func serve(t *testing.T, m *memory, group uint16) *site {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	s := &site{memory: m, group: group}
	s.device = scsi.NewDevice(scsi.Config{Log: log, Groups: []scsi.PortGroup{
		{ID: 1, Ports: []uint16{1}, Remote: group != 1}, {ID: 2, Ports: []uint16{2}, Remote: group != 2},
	}})
	target, err := s.device.NewTarget(diskName, 0)
	if err == nil {
		err = s.device.AddLUN(0, scsi.LUN{Disk: s, NAA: [16]byte{0x30, 1}, Serial: "multipath", PreferredGroup: 1})
	}
	if err != nil {
		t.Fatal(err)
	}
	server, err := iscsi.New(iscsi.Config{Targets: []iscsi.Target{{Name: diskName, Device: target, Access: iscsi.Anyone()}}, PortalGroup: group, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = l.Addr().String()
	var served sync.WaitGroup
	served.Go(func() { server.Serve(l) })
	t.Cleanup(func() {
		server.Shutdown(context.Background())
		served.Wait()
	})
	return s
}

// host makes a client of these sites, quick to lose patience.
func host(t *testing.T, sites [2]*site) *Client {
	t.Helper()
	o := Options{Timeout: 200 * time.Millisecond, Check: 20 * time.Millisecond}
	for _, s := range sites {
		o.Paths = append(o.Paths, initiator.Options{Address: s.address, TargetIQN: diskName, Dial: s.dial})
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
