package daemon

import (
	"context"

	"github.com/twinlun/twinlun/cluster/identity"
	"github.com/twinlun/twinlun/cluster/member"
	"github.com/twinlun/twinlun/webui/api"
)

// backend is the daemon as the API sees it.
type backend struct{ d *Daemon }

// Cluster implements api.Backend.
func (b backend) Cluster() api.Cluster {
	if m := b.d.cluster.Member(); m != nil {
		return m
	}
	return nil // and not a nil *Member in an interface
}

// Found implements api.Backend.
func (b backend) Found(_ context.Context, o member.FoundOptions) error { return b.d.cluster.Found(o) }

// Join implements api.Backend.
func (b backend) Join(ctx context.Context, token string, n identity.Newcomer) error {
	return b.d.cluster.Join(ctx, token, n)
}

// Node implements api.Backend.
func (b backend) Node() api.NodeStatus { return b.d.Status() }
