package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
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
	api    net.Listener // nil: one of a pair
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
	if cfg.Cluster != nil {
		if s.api, err = listenAPI(cfg.Cluster.Socket); err != nil {
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

// maxSocket is the longest path of a socket (unix(7)), in bytes.
const maxSocket = 107

// listenAPI opens the API's socket, for administrators of this machine alone. One that is
// there already is in use, or was left behind by a process that was killed.
func listenAPI(path string) (net.Listener, error) {
	if len(path) > maxSocket {
		return nil, fmt.Errorf("the API's socket %s: a path of %d bytes, and %d are possible; choose another with cluster.socket", path, len(path), maxSocket)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the API's socket: %w", err)
	}
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("the API's socket %s is in use: another twinlund runs with this data-dir; stop it, or choose another one", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("replace the API's socket: %w", err)
	}
	mask := syscall.Umask(0o177)
	defer syscall.Umask(mask)
	return net.Listen("unix", path)
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
	for _, l := range []net.Listener{s.peer, s.status, s.api} {
		if l != nil {
			l.Close()
		}
	}
}
