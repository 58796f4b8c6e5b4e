package initiator_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/twinlun/twinlun/target/iscsi"
	"github.com/twinlun/twinlun/target/scsi"
	"github.com/twinlun/twinlun/test/initiator"
)

// memory is a LUN that remembers what it was asked for.
type memory struct {
	mu            sync.Mutex
	data          []byte
	reads, writes []int64 // offsets
}

func (m *memory) ReadAt(_ context.Context, p []byte, off int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(p, m.data[off:])
	m.reads = append(m.reads, off)
	return nil
}

func (m *memory) WriteAt(_ context.Context, p []byte, off int64, _ bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(m.data[off:], p)
	m.writes = append(m.writes, off)
	return nil
}

func (m *memory) Zero(context.Context, int64, int64, bool) error { return io.ErrUnexpectedEOF }

func (m *memory) Update(_ context.Context, off, n int64, _ bool, change func(p []byte) bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(m.data[off : off+n])
	return nil
}

func (m *memory) WriteAtomic(ctx context.Context, p []byte, off int64, fua bool) error {
	return m.WriteAt(ctx, p, off, fua)
}

func (m *memory) Sync(context.Context) error { return nil }
func (m *memory) Size() int64                { return int64(len(m.data)) }

const memoryName = "iqn.2026-01.org.example:memory"

// serveMemory is a target with a LUN in memory.
func serveMemory(t *testing.T, m *memory) (address string) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	device := scsi.NewTarget(scsi.Config{Name: memoryName, Log: log})
	if err := device.AddLUN(0, scsi.LUN{Disk: m, NAA: [16]byte{0x30, 1}, Serial: "memory"}); err != nil {
		t.Fatal(err)
	}
	s, err := iscsi.New(iscsi.Config{Targets: []iscsi.Target{{Name: memoryName, Device: device, Access: iscsi.Anyone()}}, PortalGroup: 1, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() { s.Serve(l) })
	t.Cleanup(func() {
		s.Shutdown(context.Background())
		served.Wait()
	})
	return l.Addr().String()
}

// TestPump: what a pump says it has done, is what the target was asked for; with
// every way that data of a write can travel.
func TestPump(t *testing.T) {
	for name, o := range map[string]initiator.Options{
		"defaults":               {},
		"R2T only":               {InitialR2T: true, NoImmediateData: true},
		"immediate, then R2T":    {InitialR2T: true},
		"unsolicited, no immed.": {NoImmediateData: true},
		"small bursts":           {FirstBurstLength: 1024, MaxBurstLength: 4096, MaxRecvDataSegmentLength: 512},
		"CmdSN wraps around":     {FirstCmdSN: 0xfffffff0},
	} {
		t.Run(name, func(t *testing.T) {
			m := &memory{data: make([]byte, 4<<20)}
			o.Address, o.TargetIQN = serveMemory(t, m), memoryName
			for _, size := range []int{512, 4096, 256 << 10, 1 << 20} {
				pumpBoth(t, m, o, size)
			}
		})
	}
}

// pumpBoth writes some units of a size, each once, and reads them.
func pumpBoth(t *testing.T, m *memory, o initiator.Options, size int) {
	t.Helper()
	p, err := initiator.NewPump(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, depth := range []int{1, 5, 200} { // 200: more than the target's window
		units := min(int64(len(m.data)/size), 300)
		m.reset()
		for _, write := range []bool{true, false} {
			at := int64(-1)
			n, err := p.Run(initiator.Work{
				Write: write, Size: size, Depth: depth, Count: units,
				Next: func() int64 { at++; return at * int64(size) },
			})
			if err != nil || n != units {
				t.Fatalf("size %d, depth %d, write %v: %d of %d commands: %v", size, depth, write, n, units, err)
			}
		}
		m.check(t, int64(size), units)
	}
}

func (m *memory) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads, m.writes = nil, nil
	clear(m.data)
}

// check looks at what has reached the medium: each unit once, with the same data.
func (m *memory) check(t *testing.T, size, units int64) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	for what, offsets := range map[string][]int64{"written": m.writes, "read": m.reads} {
		slices.Sort(offsets)
		for i := range units {
			if int64(len(offsets)) != units || offsets[i] != i*size {
				t.Fatalf("units of %d bytes that were %s: %v", size, what, offsets)
			}
		}
	}
	first := m.data[:size]
	if bytes.Count(first, []byte{0}) > len(first)/4 {
		t.Errorf("a unit of %d bytes begins with % x: no data has come", size, first[:16])
	}
	for i := range units {
		if !bytes.Equal(m.data[i*size:(i+1)*size], first) {
			t.Fatalf("unit %d of %d bytes has other data than the first", i, size)
		}
	}
}

// TestPumpFails: a command that does not end with GOOD is an error, and so is a
// target that has gone.
func TestPumpFails(t *testing.T) {
	m := &memory{data: make([]byte, 1<<20)}
	p, err := initiator.NewPump(t.Context(), initiator.Options{Address: serveMemory(t, m), TargetIQN: memoryName})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := p.Run(initiator.Work{Size: 4096, Depth: 1, Count: 1, Next: func() int64 { return 1 << 20 }}); err == nil {
		t.Error("a read behind the end is no error")
	}
	for _, w := range []initiator.Work{{Size: 0, Depth: 1}, {Size: 16 << 20, Depth: 1}, {Size: 512}, {Size: 512, Depth: 5000}} {
		if _, err := p.Run(w); err == nil {
			t.Errorf("%+v is no error", w)
		}
	}
	if _, err := initiator.NewPump(t.Context(), initiator.Options{Address: serveMemory(t, m), TargetIQN: memoryName + "2"}); err == nil {
		t.Error("a target that is not there is no error")
	}
}

// TestPumpLosesTarget: the connection ends under a pump.
func TestPumpLosesTarget(t *testing.T) {
	m := &memory{data: make([]byte, 1<<20)}
	address := serveMemory(t, m)
	// A relay stands between, and goes.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var relay sync.WaitGroup
	cut := make(chan func(), 1)
	relay.Go(func() {
		one, err := l.Accept()
		if err != nil {
			return
		}
		two, err := net.Dial("tcp", address)
		if err != nil {
			t.Error(err)
			return
		}
		cut <- func() { one.Close(); two.Close() }
		relay.Go(func() { io.Copy(one, two) })
		io.Copy(two, one)
	})
	p, err := initiator.NewPump(t.Context(), initiator.Options{Address: l.Addr().String(), TargetIQN: memoryName})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	(<-cut)()
	relay.Wait()
	_, err = p.Run(initiator.Work{Size: 4096, Depth: 4, Count: 4, Next: func() int64 { return 0 }})
	if !errors.Is(err, initiator.ErrConnectionLost) {
		t.Errorf("the connection is cut: %v", err)
	}
}
