package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"time"

	"github.com/twinlun/twinlun/test/initiator"
)

// allocationsAim is how many allocations a command may cost: what is counted is not
// exact, see allocations.
const allocationsAim = 0.01

// allocationsRow counts what a site and its iSCSI server allocate for each command
// when everything is warm. They run in this process, so that the runtime can be asked;
// the client allocates nothing.
func allocationsRow(b *bench) (results []result, err error) {
	p, err := b.newPair(pairOptions{size: againstSize, copyRate: noCopies})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.close(), b.clean()) }()
	s, err := b.serve(p.a.volume)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	pump, err := initiator.NewPump(b.ctx, initiator.Options{Address: s.address, TargetIQN: targetName(0)})
	if err != nil {
		return nil, err
	}
	defer pump.Close()
	if err := fill(pump); err != nil {
		return nil, err
	}
	for _, l := range []tgtLoad{
		{what: "4 KiB reads", size: 4 << 10, depth: 32},
		{what: "4 KiB writes", size: 4 << 10, depth: 32, write: true},
		{what: "1 MiB reads", size: 1 << 20, depth: 8},
		{what: "1 MiB writes", size: 1 << 20, depth: 8, write: true},
	} {
		n, err := allocations(pump, &l, pick(b, 3*time.Second, time.Second))
		if err != nil {
			return nil, err
		}
		results = append(results, result{
			what: fmt.Sprintf("%s, QD %d", l.what, l.depth), figure: fmt.Sprintf("%.4f", n),
			aim: fmt.Sprintf("< %.3f", allocationsAim), met: n < allocationsAim,
		})
	}
	return results, nil
}

// allocations are those for each command, in a time: all there were, less those of an
// idle pair, which has timers and heartbeats.
func allocations(pump *initiator.Pump, l *tgtLoad, during time.Duration) (float64, error) {
	next := l.next(rand.New(rand.NewPCG(1, 2)))
	work := func() (n int64, err error) {
		return pump.Run(initiator.Work{Write: l.write, Size: l.size, Depth: l.depth, Next: next, Until: time.Now().Add(during)})
	}
	if _, err := work(); err != nil { // so that all is warm
		return 0, err
	}
	began := allocated()
	time.Sleep(during)
	idle := allocated() - began
	n, err := work()
	return max(0, float64(allocated()-began-2*idle)) / float64(n), err
}

// allocated counts the objects that this process has ever allocated.
func allocated() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.Mallocs)
}
