package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/dirtymap/mapfile"
	"github.com/twinlun/twinlun/replication"
	"github.com/twinlun/twinlun/replication/emulator"
	"github.com/twinlun/twinlun/target/backing"
	"github.com/twinlun/twinlun/target/volume"
	"github.com/twinlun/twinlun/task"
)

// pairOptions say what pair to make.
type pairOptions struct {
	size     int64
	copyRate int64           // bytes per second; 0: no limit
	line     *emulator.State // between the sites; nil: they are connected directly
	compress bool
	encrypt  bool // they talk through the cluster's port, as the nodes of one cluster
}

// noCopies as a copyRate lets one frame of each stream out, and then nothing for
// days.
const noCopies = 1

// pair is two nodes, a and b, with one mirrored LUN.
type pair struct {
	a, b  *site
	line  *emulator.Line
	ports *ports // nil: plain TCP
}

// site is one of them, put together as the daemon does it.
type site struct {
	replica *replication.Replica
	volume  *volume.Volume
	node    *replication.Node
	unlink  context.CancelFunc
	linked  sync.WaitGroup
}

// newPair makes a pair with blank replicas, and waits until both serve.
func (b *bench) newPair(o pairOptions) (p *pair, err error) {
	dir, err := b.folder()
	if err != nil {
		return nil, err
	}
	p = new(pair)
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if p.a, err = newSite(filepath.Join(dir, "a"), true, o, b.log); err != nil {
		return p, err
	}
	if p.b, err = newSite(filepath.Join(dir, "b"), false, o, b.log); err != nil {
		return p, err
	}
	if err := p.connect(o, b.log); err != nil {
		return p, err
	}
	return p, b.until("both sites serve", func() bool {
		return p.a.replica.Status().Serving && p.b.replica.Status().Serving
	})
}

// newSite opens a new replica.
func newSite(path string, preferred bool, o pairOptions, log *slog.Logger) (*site, error) {
	file, err := mapfile.OpenOS(path + ".map")
	if err != nil {
		return nil, err
	}
	store, err := backing.CreateFile(path+".img", o.size)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	s := &site{node: replication.NewNode(log)}
	s.replica, err = replication.OpenReplica(replication.ReplicaConfig{
		UUID: [16]byte{1}, Preferred: preferred, Boot: [16]byte{2}, Proposal: [16]byte{3},
		Geometry: dirtymap.Geometry{Size: o.size, ExtentSize: dirtymap.DefaultExtentSize},
		Store:    store, MapFile: file, Blank: true,
		CopyRate: o.copyRate, Runtime: task.System, Log: log,
	})
	if err != nil {
		return nil, errors.Join(err, store.Close(), file.Close())
	}
	s.volume = volume.New(s.replica)
	return s, s.node.Add(s.replica)
}

// connect joins the two; a dials b, through the line if there is one.
func (p *pair) connect(o pairOptions, log *slog.Logger) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	address := l.Addr().String()
	if o.line != nil {
		p.line, err = emulator.Start(emulator.Config{Listen: "127.0.0.1:0", Target: address, State: *o.line, Log: log})
		if err != nil {
			return errors.Join(err, l.Close())
		}
		address = p.line.Addr()
	}
	common := replication.LinkConfig{Token: replication.LinkToken("bench"), Compress: o.compress, Log: log}
	a, b := common, common
	a.Self, a.Peer, a.Address = "a", "b", address
	b.Self, b.Peer, b.Listener = "b", "a", l
	if o.encrypt {
		if p.ports, err = encrypt(&a, &b, log); err != nil {
			return errors.Join(err, l.Close())
		}
	}
	return errors.Join(p.a.run(a), p.b.run(b))
}

// run starts the site's link.
func (s *site) run(cfg replication.LinkConfig) error {
	link, err := replication.NewLink(cfg, s.node)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.unlink = cancel
	s.linked.Go(func() { link.Run(ctx) })
	return nil
}

func (p *pair) close() error {
	var errs []error
	for _, s := range []*site{p.a, p.b} {
		if s != nil {
			errs = append(errs, s.close())
		}
	}
	if p.ports != nil {
		errs = append(errs, p.ports.close())
	}
	if p.line != nil {
		errs = append(errs, p.line.Close())
	}
	return errors.Join(errs...)
}

func (s *site) close() error {
	if s.unlink != nil {
		s.unlink()
		s.linked.Wait()
	}
	s.node.Remove(s.replica)
	return s.replica.Close()
}

// copied waits until b has everything that was written at a.
func (b *bench) copied(p *pair) error {
	return b.until("everything is copied", func() bool { return p.a.replica.Status().Dirty == 0 })
}

// patience bounds how long anything may take that is waited for.
const patience = 2 * time.Minute

// until looks every half millisecond, which is how exact the times are that end by it.
func (b *bench) until(what string, reached func() bool) error {
	for end := time.Now().Add(patience); !reached(); time.Sleep(500 * time.Microsecond) {
		if b.ctx.Err() != nil {
			return context.Cause(b.ctx)
		}
		if time.Now().After(end) {
			return fmt.Errorf("after %v it is not yet so that %s", patience, what)
		}
	}
	return nil
}
