package daemon

import (
	"context"
	"fmt"
	"net"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/transport"
	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/replication"
)

// become makes a node of a cluster what the catalog says. What cannot be done is told, and
// does not keep the rest from being done.
func (d *Daemon) become(ctx context.Context, next *config.Config) (errs []error) {
	d.changing.Lock()
	defer d.changing.Unlock()
	if ctx.Err() != nil {
		return nil // Stop has come first
	}
	d.device.SetGroups(portGroups(next))
	errs = append(errs, d.addPeers(next)...)
	p, err := d.compare(next)
	errs = append(errs, err)
	if err := checkTargets(next); err != nil {
		errs = append(errs, fmt.Errorf("targets stay as they are: %w", err))
		now := d.config()
		next.Targets, next.Discovery = now.Targets, now.Discovery
	}
	p.open, err = d.openDoors(next)
	errs = append(append(errs, err), d.apply(ctx, next, p)...)
	for _, l := range d.all() {
		c := l.config()
		errs = append(errs, d.device.Place(c.Number, groupsOf(next, &c)))
	}
	d.dropPeers(next)
	return errs
}

// addPeers makes links to the nodes with which this one shares LUNs.
func (d *Daemon) addPeers(next *config.Config) (errs []error) {
	for i := range next.LUNs {
		name := next.LUNs[i].Peer
		if name == "" || d.peers[name] != nil {
			continue
		}
		c, err := d.cluster.linkConfig(next, name)
		if err == nil {
			err = d.addPeer(name, c, replication.NewClusterNode(d.log, d.cluster.keeper().Beats(catalog.NodeID(name))))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("link with node %s: %w", name, err))
			continue
		}
		d.link(d.peers[name])
	}
	return errs
}

// dropPeers ends the links to nodes with which this one shares no LUN any more.
func (d *Daemon) dropPeers(next *config.Config) {
	needed := map[string]bool{}
	for i := range next.LUNs {
		needed[next.LUNs[i].Peer] = true
	}
	for name, p := range d.peers {
		if needed[name] {
			continue
		}
		p.unlink()
		p.running.Wait()
		d.mu.Lock()
		delete(d.peers, name)
		d.mu.Unlock()
	}
}

// linkConfig is the link with another node of the cluster: through the port for nodes,
// which has proven who it is.
func (c *cluster) linkConfig(cfg *config.Config, peer string) (replication.LinkConfig, error) {
	m := c.Member()
	l := replication.LinkConfig{
		Self: cfg.Node, Peer: peer, Token: replication.LinkToken(m.State().Cluster().ID.String()),
		Streams: cfg.Peer.Streams, Compress: cfg.Peer.Compress, Heartbeat: cfg.Peer.Heartbeat, Dead: cfg.Peer.DeadAfter,
		Log: c.log,
	}
	if replication.LinkDials(cfg.Node, peer) {
		l.Dial = func(ctx context.Context, stream int) (net.Conn, error) {
			protocol := transport.Bulk
			if stream == 0 {
				protocol = transport.Control
			}
			conn, err := m.Port().Dial(ctx, peer, protocol)
			if err != nil {
				return nil, err // and not a nil *Conn in an interface
			}
			return conn, nil
		}
		return l, nil
	}
	listener, err := m.Port().Listen(peer, transport.Control, transport.Bulk)
	if err != nil {
		return l, err
	}
	l.Listener = listener
	return l, nil
}
