// Package demo runs a cluster on one machine: a twinlund for each of two sites and one for
// the witness, as child processes, and what the two sites say to one another through an
// emulated line in this process. It promises that no child outlives it, and that without a
// folder of its own nothing is left behind.
//
// Ports, all on 127.0.0.1:
//
//	base    iSCSI of site a           base+10  iSCSI of site b
//	base+1  status page of a          base+11  status page of b
//	base+2  the line's end for a      base+12  nodes' port of b
//	base+3  control of the line       base+13  the line's end for b
//	base+4  nodes' port of a          base+14  nodes' port of the witness
//
// Files: DIR/demo.json says which LUN there is; DIR/a, DIR/b and DIR/w hold each node's
// twinlund.yaml, twinlund.log, the socket of its API (api.sock), its part in the cluster,
// and at the sites disk.img and the folder luns.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/twinlun/twinlun/replication/emulator"
)

// DefaultSize is the LUN's size if nothing else is said, in bytes.
const DefaultSize = 1 << 30

// IQN is the target's name, at both sites.
const IQN = "iqn.2026-01.io.github.twinlun:demo"

// Options say how to run. Only Daemon and Out must be set.
type Options struct {
	Daemon    string // path of twinlund
	Dir       string // "": a temporary folder, removed in the end
	JSON      string // "": none
	BasePort  int
	Size      int64         // bytes; 0: DefaultSize, or that of the LUN in Dir
	BlockSize int64         // bytes; 0: 512, or that of the LUN in Dir
	ColdAfter time.Duration // ownership of what is not written is given back; 0: as the cluster has it
	HoldWait  time.Duration // host commands wait for a lost site that has the newest data; 0: as the cluster has it
	Line      emulator.State
	NoRestart bool
	Out       io.Writer
	Live      bool // Out is a terminal: status lines are drawn over and over
}

// demo is a running one.
type demo struct {
	o     Options
	dir   string // absolute
	lun   lun
	line  *emulator.Line
	ctrl  string   // address of the line's control port
	sites [3]*site // a, b, and the witness
	out   *screen

	mu     sync.Mutex // over the JSON file
	serves bool       // it has been written, and is kept up to date
}

// Run runs a demo until ctx ends, or until it cannot go on.
func Run(ctx context.Context, o Options) (err error) {
	d := &demo{o: o, out: &screen{w: o.Out, live: o.Live}}
	if err := d.prepare(); err != nil {
		return err
	}
	if o.Dir == "" {
		defer func() { err = errors.Join(err, os.RemoveAll(d.dir)) }()
	}
	if err := d.startLine(); err != nil {
		return err
	}
	defer d.line.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var children sync.WaitGroup
	for _, s := range d.sites {
		children.Go(func() {
			if err := s.supervise(ctx, d); err != nil {
				cancel(err)
			}
		})
	}
	err = d.show(ctx)
	d.out.print("stopping both sites and the witness …")
	cancel(err)
	children.Wait()
	d.removeJSON()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// prepare makes folders and configurations, and checks what can be checked.
func (d *demo) prepare() error {
	if d.o.BasePort < 1 || d.o.BasePort > 65535-portsTaken {
		return fmt.Errorf("--base-port %d: must be from 1 to %d", d.o.BasePort, 65535-portsTaken)
	}
	if err := d.o.Line.Check(); err != nil {
		return fmt.Errorf("--link-delay, --link-rate: %w", err)
	}
	if _, err := os.Stat(d.o.Daemon); err != nil {
		return fmt.Errorf("the daemon is not where it should be: %w (make build makes both programs)", err)
	}
	if err := checkPorts(d.o.BasePort); err != nil {
		return err
	}
	if err := d.makeDir(); err != nil {
		return err
	}
	if err := d.makeSites(); err != nil {
		if d.o.Dir == "" {
			os.RemoveAll(d.dir)
		}
		return err
	}
	return nil
}

func (d *demo) makeDir() (err error) {
	if d.o.Dir == "" {
		d.dir, err = os.MkdirTemp("", "twinlun-demo-")
		return err
	}
	if d.dir, err = filepath.Abs(d.o.Dir); err == nil {
		err = os.MkdirAll(d.dir, 0o700)
	}
	return err
}

func (d *demo) makeSites() (err error) {
	if d.lun, err = openLUN(filepath.Join(d.dir, "demo.json"), d.o.Size, d.o.BlockSize); err != nil {
		return err
	}
	for i, name := range names {
		d.sites[i] = newSite(name, d.dir, d.o)
		if err := d.sites[i].configure(); err != nil {
			return err
		}
	}
	return nil
}

// startLine starts the emulated line. What the sites say to one another always goes
// through it, so that delay, rate and cuts can be changed while the demo runs; what they
// say to the witness does not.
func (d *demo) startLine() (err error) {
	d.line, err = emulator.Start(emulator.Config{
		Listen: address(d.o.BasePort + lineOffset), Target: d.sites[1].peer,
		Back:  emulator.Way{Listen: address(d.o.BasePort + backOffset), Target: d.sites[0].peer},
		State: d.o.Line,
	})
	if err != nil {
		return fmt.Errorf("start the line between the sites: %w", err)
	}
	if d.ctrl, err = d.line.ServeControl(address(d.o.BasePort + controlOffset)); err != nil {
		d.line.Close()
		return fmt.Errorf("start the control port of the line: %w", err)
	}
	return nil
}
