package daemon

import (
	"context"
	"fmt"
	"sync"

	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/replication"
)

// peer is another node with which this one shares LUNs, and the link to it.
type peer struct {
	name    string
	node    *replication.Node
	link    *replication.Link
	unlink  context.CancelFunc // nil: the link does not run yet
	running sync.WaitGroup
}

// addPeer makes a peer, whose link does not run yet.
func (d *Daemon) addPeer(name string, c replication.LinkConfig, node *replication.Node) error {
	p := &peer{name: name, node: node}
	var err error
	if p.link, err = replication.NewLink(c, p.node); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.peers[name] = p
	return nil
}

// link lets a peer's link run.
func (d *Daemon) link(p *peer) {
	ctx, cancel := context.WithCancel(d.ctx)
	p.unlink = cancel
	p.running.Go(func() {
		if err := p.link.Run(ctx); err != nil && ctx.Err() == nil {
			d.fail(fmt.Errorf("link to %s: %w", p.name, err))
		}
	})
}

// nodeOf is what leads a LUN's replica to its peer; without one, to nobody.
func (d *Daemon) nodeOf(c *config.LUN) *replication.Node {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.peers[c.Peer]; p != nil {
		return p.node
	}
	return replication.NewNode(d.log)
}

// linkConfig is the link's part of the configuration of a pair.
func (d *Daemon) linkConfig() replication.LinkConfig {
	p := &d.cfg.Peer
	c := replication.LinkConfig{
		Self: d.cfg.Node, Peer: p.Name, Token: replication.LinkToken(p.Token.Reveal()),
		Streams: p.Streams, Compress: p.Compress, Heartbeat: p.Heartbeat, Dead: p.DeadAfter,
		Log: d.log,
	}
	if d.sockets.peer != nil {
		c.Listener = d.sockets.peer
	} else {
		c.Address = p.Address
	}
	return c
}
