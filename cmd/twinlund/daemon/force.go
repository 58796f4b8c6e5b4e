package daemon

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/roles"
	"github.com/twinlun/twinlun/webui/api"
)

// majorityTime is how long a majority of the nodes may take to answer before there is none:
// longer than they take to agree on a leader.
const majorityTime = 5 * time.Second

// Outlook implements api.Backend.
func (b backend) Outlook(ctx context.Context, l catalog.LUN) (api.Outlook, error) {
	k := b.d.cluster.keeper()
	o, err := k.Outlook(l.ID)
	if err != nil {
		return api.Outlook{}, err
	}
	out := api.Outlook{
		LUN: l.Name, Node: b.d.cluster.Member().Self(), Peer: o.Peer, Serving: l.Serving, Term: l.Term,
		Stale: o.Missing, Bytes: min(int64(o.Missing)*l.ExtentSize, l.Size),
		Loss: string(o.Loss), Linked: o.Linked,
	}
	out.Unknown = !l.Serves(out.Node)
	if !o.Heard.IsZero() {
		out.Heard = &o.Heard
	}
	if err := b.d.cluster.unforced(ctx, o); err != nil {
		out.Refusal = err.Error()
	}
	return out, nil
}

// Force implements api.Backend.
func (b backend) Force(ctx context.Context, l catalog.LUN, loss *catalog.LossPolicy) error {
	c := b.d.cluster
	o, err := c.keeper().Outlook(l.ID)
	if err != nil {
		return err
	}
	if err := c.unforced(ctx, o); err != nil {
		return err
	}
	policy := l.Loss
	if loss != nil {
		policy = *loss
	}
	c.log.Warn("an operator has this node serve a LUN alone, without the cluster's agreement", "lun", l.Name, "loss", policy)
	return c.keeper().Force(ctx, l.ID, policy)
}

// unforced is why this node must not be forced to serve a LUN alone; nil: it may.
func (c *cluster) unforced(ctx context.Context, o roles.Outlook) error {
	why, hint := o.Unforced(c.Member().Self(), func() bool { return c.majority(ctx) })
	if why == "" {
		return nil
	}
	return &api.Problem{Status: http.StatusConflict, Title: http.StatusText(http.StatusConflict), Code: api.CodeNotFeasible, Detail: why, Hint: hint}
}

// majority tells whether a majority of the nodes can agree on anything.
func (c *cluster) majority(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, majorityTime)
	defer cancel()
	err := c.Member().Sync(ctx)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		c.log.Info("no majority of the nodes is there", "err", err)
	}
	return err == nil
}
