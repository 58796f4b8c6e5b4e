package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/twinlun/twinlun/cluster/identity"
	"github.com/twinlun/twinlun/cluster/transport"
	"github.com/twinlun/twinlun/replication"
)

// ports are the cluster's ports of a pair's two nodes.
type ports struct {
	a, b    *transport.Port
	serving sync.WaitGroup
}

// encrypt changes the configuration of two nodes, of which a dials, so that their link
// goes through the ports of a cluster of their own.
func encrypt(a, b *replication.LinkConfig, log *slog.Logger) (*ports, error) {
	ca, err := identity.NewCA(identity.NewClusterID(), time.Now())
	if err != nil {
		return nil, err
	}
	p := new(ports)
	var errA, errB error
	p.a, errA = newPort(ca, a.Self, a.Address, log)
	p.b, errB = newPort(ca, b.Self, "", log)
	if err := errors.Join(errA, errB); err != nil {
		return nil, err
	}
	a.Dial = func(ctx context.Context, stream int) (net.Conn, error) {
		if stream == 0 {
			return p.a.Dial(ctx, "b", transport.Control)
		}
		return p.a.Dial(ctx, "b", transport.Bulk)
	}
	socket := b.Listener
	if b.Listener, err = p.b.Listen("a", transport.Control, transport.Bulk); err != nil {
		return nil, err
	}
	p.serving.Go(func() { p.b.Serve(socket) })
	return p, nil
}

func newPort(ca *identity.CA, node, peerAddress string, log *slog.Logger) (*transport.Port, error) {
	n, err := ca.NewNode(node, time.Now(), 24*time.Hour)
	if err != nil {
		return nil, err
	}
	return transport.New(transport.Config{
		Node:      n,
		Allowed:   func(identity.Peer) error { return nil },
		Addresses: func(string) []string { return []string{peerAddress} },
		Log:       log,
	}), nil
}

func (p *ports) close() error {
	err := errors.Join(p.a.Close(), p.b.Close())
	p.serving.Wait()
	return err
}
