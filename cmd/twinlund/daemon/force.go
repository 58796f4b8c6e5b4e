package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/failover"
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
	l, self := o.LUN, c.Member().Self()
	no := func(hint, format string, args ...any) error {
		return &api.Problem{Status: http.StatusConflict, Title: http.StatusText(http.StatusConflict), Code: api.CodeNotFeasible,
			Detail: fmt.Sprintf(format, args...), Hint: hint}
	}
	switch {
	case o.Peer == "":
		return no("", "LUN %s has one replica: nobody else can serve it", l.Name)
	case !o.Open:
		return no("twinlun status tells why", "the replica of LUN %s at node %s is not open, or has failed", l.Name, self)
	case !o.HasData:
		return no("bring the other replica back", "the replica of LUN %s at node %s is new: it has no data yet", l.Name, self)
	case o.Role.Forced && o.Role.Serve == failover.None:
		return no("wait until the two replicas have been joined", "node %s was forced to serve LUN %s before, when others did; they go on", self, l.Name)
	case o.Role.Forced:
		return nil // another loss policy, perhaps
	case o.Role.Free:
		return no("", "node %s serves LUN %s alone already", self, l.Name)
	}
	if !c.majority(ctx) {
		return nil
	}
	if l.Serves(self) {
		return no("they decide within seconds who serves alone", "a majority of the nodes is there: node %s needs no force", self)
	}
	if o.Linked {
		return no("drain its site, if this one is to serve; or stop that node first, if its replica is lost", "node %s serves LUN %s, and is there", o.Peer, l.Name)
	}
	return nil // the other one, which served alone, is gone, and nobody can take over from it
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
