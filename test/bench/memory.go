package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/twinlun/twinlun/test/initiator"
)

const (
	tib = 1 << 40
	mib = 1 << 20
	// memoryAim is what a LUN may take at a node for each TiB, in MiB.
	memoryAim = 40
	// smallLUN is the LUN of the daemons whose memory is taken off.
	smallLUN = 64 * mib
)

// memoryRow measures twinlund processes with a huge LUN in a sparse file: at first; after
// some work, with the garbage that it leaves; and when b's replica is new and a's is not, so
// that every extent is STALE at b, and nothing dirty. What an equal daemon with a LUN of
// 64 MiB takes at the same moment is taken off: the aim is about the LUN.
func memoryRow(b *bench) (results []result, err error) {
	base, err := memoryOf(b, smallLUN)
	if err != nil {
		return nil, err
	}
	for _, size := range pick(b, []int64{tib, 16 * tib}, []int64{tib}) {
		m, err := memoryOf(b, size)
		if err != nil {
			return nil, fmt.Errorf("LUN of %d TiB: %w", size/tib, err)
		}
		results = append(results, m.results(size, base)...)
	}
	return results, nil
}

// footprint is what memoryOf finds: bytes, and times.
type footprint struct {
	fresh, worked int64 // resident: a, new; and after work, with nothing dirty
	stale, owner  int64 // resident: b with all STALE; a with all OWNED and dirty
	peak          int64 // of b while it joined
	start, join   time.Duration
}

func (m *footprint) results(size int64, base *footprint) []result {
	name := fmt.Sprintf("%d TiB, ", size/tib)
	line := func(what string, n, off int64, aimed bool) result {
		per := float64(n-off) / mib / (float64(size) / tib)
		r := result{
			what: name + what, figure: fmt.Sprintf("%d MiB", n/mib), against: fmt.Sprintf("LUN of 64 MiB: %d MiB", off/mib),
			ratio: fmt.Sprintf("%.1f MiB/TiB", per), met: per <= memoryAim,
		}
		if aimed {
			r.aim = fmt.Sprintf("≤ %d MiB/TiB", memoryAim)
		}
		return r
	}
	took := func(what string, d, off time.Duration) result {
		return result{what: name + what, figure: fmt.Sprintf("%.1f s", d.Seconds()), against: fmt.Sprintf("LUN of 64 MiB: %.1f s", off.Seconds())}
	}
	return []result{
		line("new", m.fresh, base.fresh, true),
		line("512 MiB written and copied", m.worked, base.worked, true),
		line("every extent STALE, nothing dirty", m.stale, base.stale, true),
		line("… while it joined, at most", m.peak, base.peak, false),
		line("every extent OWNED and dirty", m.owner, base.owner, false),
		took("start until both sites serve", m.start, base.start),
		took("start with a new replica at b", m.join, base.join),
	}
}

// memoryOf lets a pair of daemons run, then once more with a new replica at b.
func memoryOf(b *bench, size int64) (m *footprint, err error) {
	d, err := b.newDaemons(size)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.stop(), b.clean()) }()
	m = new(footprint)
	if m.start, err = d.start(b, 0, 1); err != nil {
		return nil, err
	}
	if m.fresh, _, err = d.memory(0); err != nil {
		return nil, err
	}
	if err := d.work(b); err != nil {
		return nil, err
	}
	if m.worked, _, err = d.memory(0); err != nil {
		return nil, err
	}
	// From here on copying waits, lest less is dirty by the time it is measured.
	if err := errors.Join(d.configure(noCopies), d.sites[0].stop(), d.renew(1)); err != nil {
		return nil, err
	}
	if m.join, err = d.start(b, 0, 1); err != nil {
		return nil, err
	}
	if m.stale, m.peak, err = d.memory(1); err != nil {
		return nil, err
	}
	m.owner, _, err = d.memory(0)
	return m, err
}

// work writes the first 64 MiB at a eight times, and has them copied.
func (d *daemons) work(b *bench) error {
	s, err := initiator.Dial(b.ctx, initiator.Options{Address: d.sites[0].ISCSI, TargetIQN: daemonIQN})
	if err != nil {
		return err
	}
	for i := range 8 {
		if err == nil {
			_, _, err = load{disk: s, write: true, where: sequence(smallLUN / blockSize)}.run(b.ctx, uint64(i))
		}
		if err == nil {
			err = b.until("everything is copied", func() bool { return d.sites[0].clean(b.ctx) })
		}
	}
	return errors.Join(err, s.Close())
}

// memory is a daemon's resident memory now, and at most so far, in bytes.
func (d *daemons) memory(site int) (now, peak int64, err error) {
	time.Sleep(time.Second) // some of what only a start or a join needs is given back
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(d.sites[site].cmd.Process.Pid), "status"))
	if err != nil {
		return 0, 0, err
	}
	now, err1 := memoryField(string(text), "VmRSS:")
	peak, err2 := memoryField(string(text), "VmHWM:")
	return now, peak, errors.Join(err1, err2)
}

// availableMemory is what new programs can have, in bytes; 0: not known.
func availableMemory() int64 {
	text, _ := os.ReadFile("/proc/meminfo")
	n, _ := memoryField(string(text), "MemAvailable:")
	return n
}

// memoryField is a field of a file in /proc, in bytes.
func memoryField(text, name string) (int64, error) {
	_, rest, _ := strings.Cut(text, name)
	fields := strings.Fields(rest)
	if len(fields) < 2 || fields[1] != "kB" {
		return 0, fmt.Errorf("no %s in kB there", name)
	}
	n, err := strconv.ParseInt(fields[0], 10, 64)
	return n << 10, err
}
