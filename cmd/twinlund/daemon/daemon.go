// Package daemon assembles a node from its configuration: replicas, the link to the
// peer, the SCSI device server and the iSCSI transport over them. It promises that
// a Start that fails leaves nothing behind, and that Stop ends in order: first the
// hosts are asked to leave, then the peer is told, then everything is flushed.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/cmd/twinlund/status"
	"github.com/twinlun/twinlun/replication"
	"github.com/twinlun/twinlun/target/iscsi"
	"github.com/twinlun/twinlun/target/scsi"
	"github.com/twinlun/twinlun/webui/api"
)

// Daemon is a running node.
type Daemon struct {
	// Fixed by Start.
	version string
	boot    [16]byte
	log     *slog.Logger
	sockets *sockets
	device  *scsi.Device
	server  *iscsi.Server
	page    *http.Server // nil: no status page
	api     *api.Server  // nil: one of a pair

	changing sync.Mutex                  // held by Reload and Stop
	targets  map[targetName]*scsi.Target // under changing
	cluster  *cluster                    // nil: one of a pair that is configured by hand
	peers    map[string]*peer            // under changing and mu; by node
	mu       sync.Mutex
	cfg      *config.Config // under mu; itself never changed
	luns     []*lun         // under mu

	failed chan error      // what ends the daemon from inside, first first
	ctx    context.Context // ends when the peers are to be left
	unlink context.CancelFunc
	tasks  sync.WaitGroup // everything that Start has started, but the links
}

// Start makes a node and lets it run.
func Start(cfg *config.Config, version string, log *slog.Logger) (*Daemon, error) {
	d := &Daemon{cfg: cfg, version: version, log: log, failed: make(chan error, 8),
		targets: map[targetName]*scsi.Target{}, peers: map[string]*peer{}}
	if cfg.Node != "" {
		d.log = log.With("node", cfg.Node)
	}
	d.ctx, d.unlink = context.WithCancel(context.Background())
	err := d.assemble()
	for _, l := range d.luns {
		if err == nil {
			err = l.start()
		}
	}
	if err == nil && d.cluster != nil {
		err = d.cluster.open()
	}
	if err != nil {
		d.unlink()
		d.sockets.close()
		for _, l := range d.luns {
			err = errors.Join(err, l.close())
		}
		return nil, err
	}
	d.run()
	return d, nil
}

// assemble makes all parts, and starts none.
func (d *Daemon) assemble() (err error) {
	if d.sockets, err = listen(d.cfg); err != nil {
		return err
	}
	if d.boot, err = bootID(); err != nil {
		return err
	}
	if d.cfg.Cluster != nil {
		d.cluster = newCluster(d)
	} else if err := d.addPeer(d.cfg.Peer.Name, d.linkConfig(), replication.NewNode(d.log)); err != nil {
		return err
	}
	d.device = newDevice(d.cfg, d.log)
	for _, c := range d.cfg.LUNs {
		if err := d.openLUN(d.cfg, c); err != nil {
			return err
		}
	}
	for i := range d.cfg.Targets {
		if err := d.addTarget(d.cfg, &d.cfg.Targets[i]); err != nil {
			return err
		}
	}
	if d.server, err = iscsi.New(iscsi.Config{
		Targets:     d.initiators(d.cfg),
		Discovery:   d.cfg.Discovery,
		PortalGroup: d.cfg.PortalGroup,
		Limits:      iscsi.Limits{PingTimeout: d.cfg.PingTimeout},
		Log:         d.log,
	}); err != nil {
		return err
	}
	if d.sockets.status != nil {
		d.page = &http.Server{Handler: status.Handler(d.Status), ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second}
	}
	if d.sockets.api != nil {
		d.api = api.NewServer(api.Handler(backend{d}, d.version, d.log))
	}
	return nil
}

// openLUN opens a LUN and lets initiators see it.
func (d *Daemon) openLUN(cfg *config.Config, c config.LUN) error {
	l, err := d.newLUN(cfg, c)
	if err != nil {
		return err
	}
	l.resized = func() {
		if err := d.device.Resized(c.Number); err != nil { // it is being taken away
			l.log.Warn("hosts are not told that the LUN has grown", "err", err)
		}
	}
	if err := expose(d.device, cfg, l); err != nil {
		return errors.Join(err, l.close())
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.luns = append(d.luns, l)
	return nil
}

// config is the configuration that counts now.
func (d *Daemon) config() *config.Config {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cfg
}

// all are the LUNs that there are now.
func (d *Daemon) all() []*lun {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.luns)
}

// run starts the tasks: the link, a server for each listener, the status page.
func (d *Daemon) run() {
	for _, p := range d.peers {
		d.link(p)
	}
	d.tasks.Go(func() { d.watchSpace(d.ctx) })
	for _, l := range d.sockets.iscsi {
		d.tasks.Go(func() { d.serve(l.Listener) })
	}
	if d.page != nil {
		d.tasks.Go(func() {
			if err := d.page.Serve(d.sockets.status); !errors.Is(err, http.ErrServerClosed) {
				d.fail(fmt.Errorf("status page on %v: %w", d.sockets.status.Addr(), err))
			}
		})
	}
	if d.cluster != nil { // at last: what it opens it serves itself
		d.tasks.Go(func() { d.cluster.follow(d.ctx) })
		d.tasks.Go(func() {
			if err := d.api.Serve(d.sockets.api); !errors.Is(err, http.ErrServerClosed) {
				d.fail(fmt.Errorf("the API on %v: %w", d.sockets.api.Addr(), err))
			}
		})
	}
}

func (d *Daemon) fail(err error) {
	select {
	case d.failed <- err:
	default: // the first ones tell enough
	}
}

// Failed receives what makes the daemon useless, if anything does.
func (d *Daemon) Failed() <-chan error { return d.failed }

// ISCSI is the address of the first listener for initiators; nil: there is none yet.
func (d *Daemon) ISCSI() net.Addr {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.sockets.iscsi) == 0 {
		return nil
	}
	return d.sockets.iscsi[0].Addr()
}

// Stop ends the node in order. The context bounds how long hosts may take to leave;
// what is not flushed then is flushed all the same.
func (d *Daemon) Stop(ctx context.Context) error {
	if d.api != nil {
		d.api.Close()
	}
	d.changing.Lock()
	defer d.changing.Unlock()
	err := d.server.Shutdown(ctx)
	if err != nil {
		err = fmt.Errorf("end the sessions of initiators: %w", err)
	}
	d.unlink()
	for _, p := range d.peers {
		p.running.Wait()
	}
	for _, l := range d.all() {
		err = errors.Join(err, l.close())
	}
	if d.cluster != nil {
		err = errors.Join(err, d.cluster.close())
	}
	if d.page != nil {
		err = errors.Join(err, d.page.Close())
	}
	d.tasks.Wait()
	return err
}
