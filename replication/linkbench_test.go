package replication

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication/emulator"
	"github.com/twinlun/twinlun/replication/wire"
)

// BenchmarkLink measures copies of 1 MiB, the way that the copier sends them,
// with as much in flight as the line holds several times over.
func BenchmarkLink(b *testing.B) {
	for _, s := range []emulator.State{{}, {Delay: 10 * time.Millisecond, Rate: 1_000_000_000}} {
		onEveryBenchWay(b, fmt.Sprintf("delay=%v/rate=%d", s.Delay, s.Rate), func(b *testing.B, way linkWay) { benchLink(b, s, way) })
	}
}

// linkBench answers copies and echoes, and counts answers.
type linkBench struct {
	up    chan LinkConn
	acked chan struct{}
}

func (h linkBench) Up(c LinkConn)        { h.up <- c }
func (h linkBench) Down(LinkConn, error) {}

func (h linkBench) Control(c LinkConn, lun uint32, m wire.Message) {
	switch m := m.(type) {
	case *wire.JoinPrepared:
		c.SendControl(lun, &wire.JoinDone{Join: m.Join})
	case *wire.JoinDone:
		h.acked <- struct{}{}
	}
}

func (h linkBench) Bulk(c LinkConn, stream int, lun uint32, m wire.Message) {
	switch m := m.(type) {
	case *wire.Copy:
		c.SendBulk(stream, lun, &wire.CopyAck{Seq: m.Seq})
	case *wire.CopyAck:
		h.acked <- struct{}{}
	}
}

func onEveryBenchWay(b *testing.B, name string, bench func(b *testing.B, way linkWay)) {
	for wayName, way := range linkWays {
		b.Run(name+"/"+wayName, func(b *testing.B) { bench(b, way) })
	}
}

func startBench(b *testing.B, s emulator.State, way linkWay) (LinkConn, linkBench) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	line, err := emulator.Start(emulator.Config{Listen: "127.0.0.1:0", Target: ln.Addr().String(), State: s})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { line.Close() })
	address := line.Addr()
	if s == (emulator.State{}) {
		address = ln.Addr().String()
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	here := linkBench{up: make(chan LinkConn, 1), acked: make(chan struct{}, 1000)}
	there := linkBench{up: make(chan LinkConn, 1)}
	a := LinkConfig{Self: "a", Peer: "b", Token: LinkToken("bench"), Address: address, Log: log}
	z := LinkConfig{Self: "b", Peer: "a", Token: LinkToken("bench"), Listener: ln, Log: log}
	change := way(b)
	change(&a)
	change(&z)
	runBench(b, a, here)
	runBench(b, z, there)
	return <-here.up, here
}

func runBench(b *testing.B, cfg LinkConfig, h LinkHandler) {
	l, err := NewLink(cfg, h)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		l.Run(ctx)
		close(done)
	}()
	b.Cleanup(func() {
		cancel()
		<-done
	})
}

func benchLink(b *testing.B, s emulator.State, way linkWay) {
	conn, here := startBench(b, s, way)
	const inFlight = 16
	data := make([]byte, 256*dirtymap.BlockSize)
	b.SetBytes(int64(len(data)))
	b.ResetTimer()
	for i := range b.N {
		if i >= inFlight {
			<-here.acked
		}
		conn.SendBulk(i%2, 1, &wire.Copy{Seq: uint64(i), Items: []wire.Blocks{{Present: dirtymap.MaskOf(0, 256), Data: data}}})
	}
	for range min(b.N, inFlight) {
		<-here.acked
	}
}

// BenchmarkLinkRoundTrip is a small control message and its answer.
func BenchmarkLinkRoundTrip(b *testing.B) {
	for _, s := range []emulator.State{{}, {Delay: 5 * time.Millisecond}} {
		onEveryBenchWay(b, fmt.Sprintf("delay=%v", s.Delay), func(b *testing.B, way linkWay) {
			conn, here := startBench(b, s, way)
			took := make([]time.Duration, b.N)
			b.ResetTimer()
			for i := range took {
				began := time.Now()
				conn.SendControl(1, &wire.JoinPrepared{Join: uint64(i)})
				<-here.acked
				took[i] = time.Since(began)
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "median-µs")
		})
	}
}
