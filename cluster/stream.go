package cluster

import (
	"context"
	"net"
	"time"

	"github.com/hashicorp/raft"

	"github.com/twinlun/twinlun/cluster/transport"
)

// streams are the raft library's connections. To it, a node's address is its name:
// where that is found changes without raft.
type streams struct {
	*transport.Listener
	port *transport.Port
	self string
}

// Dial implements raft.StreamLayer.
func (s *streams) Dial(node raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	c, err := s.port.Dial(ctx, string(node), transport.Raft)
	if err != nil {
		return nil, err // and not a nil *Conn in an interface
	}
	return c, nil
}

// Addr implements raft.StreamLayer.
func (s *streams) Addr() net.Addr { return nodeAddr(s.self) }

type nodeAddr string

func (nodeAddr) Network() string  { return "twinlun" }
func (a nodeAddr) String() string { return string(a) }
