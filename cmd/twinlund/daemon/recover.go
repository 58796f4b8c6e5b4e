package daemon

import (
	"context"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/member"
)

// Recovery implements api.Backend. Nodes with replicas are heard of by their links, too.
func (b backend) Recovery(ctx context.Context) member.Recovery {
	r := b.d.cluster.Member().Recovery(ctx)
	for i := range r.GiveUp {
		n := &r.GiveUp[i]
		if at := b.d.cluster.keeper().Heard(n.Name); at.After(n.Heard) {
			n.Heard = at
		}
	}
	return r
}

// Recover implements api.Backend.
func (b backend) Recover(ctx context.Context, by string, giveUp []catalog.NodeID) error {
	return b.d.cluster.Member().Recover(ctx, by, giveUp)
}
