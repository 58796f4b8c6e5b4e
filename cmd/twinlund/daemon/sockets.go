package daemon

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/replication"
)

// sockets is everything the daemon listens on. They are opened before any disk is
// touched: a second daemon started by mistake stops here.
type sockets struct {
	iscsi  []door       // under Daemon.mu
	peer   net.Listener // nil: this node dials
	status net.Listener // nil: no status page
}

// door is a listener for initiators, and the address as it is configured.
type door struct {
	address string
	net.Listener
}

func listen(cfg *config.Config) (*sockets, error) {
	s := new(sockets)
	err := s.open(cfg)
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *sockets) open(cfg *config.Config) (err error) {
	for _, address := range addresses(cfg) {
		l, err := listenOn(address, "initiators", "iscsi.listen")
		if err != nil {
			return err
		}
		s.iscsi = append(s.iscsi, door{address, l})
	}
	if cfg.Cluster == nil && !replication.LinkDials(cfg.Node, cfg.Peer.Name) {
		if s.peer, err = listenOn(cfg.Peer.Listen, "the peer", "peer.listen"); err != nil {
			return err
		}
	}
	if cfg.Status.Listen != "" {
		s.status, err = listenOn(cfg.Status.Listen, "the status page", "status.listen")
	}
	return err
}

// listenOn opens one listener; the error tells the operator what to change.
func listenOn(address, who, key string) (net.Listener, error) {
	l, err := net.Listen(network(address), address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listen for %s on %s: the port is taken by another program, perhaps a second twinlund (ss -tlnp tells which); stop it or change %s", who, address, key)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("listen for %s on %s: this machine has no such address (ip addr tells those it has); change %s", who, address, key)
	case err != nil:
		return nil, fmt.Errorf("listen for %s (%s): %w", who, key, err)
	}
	return l, nil
}

// network keeps 0.0.0.0 to IPv4 and [::] to IPv6, so that they can stand beside each
// other; "tcp" would take both for all addresses of both kinds.
func network(address string) string {
	host, _, _ := net.SplitHostPort(address)
	a, err := netip.ParseAddr(host)
	switch {
	case err != nil:
		return "tcp"
	case a.Is4():
		return "tcp4"
	}
	return "tcp6"
}

func (s *sockets) close() {
	if s == nil {
		return
	}
	closeDoors(s.iscsi)
	for _, l := range []net.Listener{s.peer, s.status} {
		if l != nil {
			l.Close()
		}
	}
}
