package identity

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"
)

const (
	// renewLook is how often the time is looked at, at least: timers stand still while
	// a machine sleeps.
	renewLook = time.Hour
	// renewRetry is how long a Renewer waits after a failure: a month of attempts, which
	// nobody notices.
	renewRetry = 10 * time.Minute
)

// Renewer keeps a node's certificate good: at two thirds of its life it asks for the
// next one, and has the node show that. Connections that are up stay as they are.
type Renewer struct {
	Node *Node
	// Ask asks a node that issues certificates for a new one, DER. It is not called at
	// a node that issues them itself.
	Ask func(ctx context.Context) ([]byte, error)
	Log *slog.Logger
}

// Run ends with ctx.
func (r *Renewer) Run(ctx context.Context) {
	for wait := time.Duration(0); ; {
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		wait = r.look(ctx, time.Now().Round(0)) // by the wall clock
	}
}

// look renews what is due, and tells when to look again.
func (r *Renewer) look(ctx context.Context, now time.Time) time.Duration {
	cert := r.Node.present.Load().Leaf
	due := cert.NotAfter.Add(-cert.NotAfter.Sub(cert.NotBefore) / 3)
	if now.Before(due) {
		return min(due.Sub(now), renewLook)
	}
	if err := r.renew(ctx, now); err != nil && ctx.Err() == nil {
		r.Log.Warn("the certificate of this node could not be renewed; when it ends, the others refuse this node",
			"ends", cert.NotAfter, "error", err)
	} else if err == nil {
		r.Log.Info("the certificate of this node was renewed", "ends", r.Node.present.Load().Leaf.NotAfter)
	}
	return renewRetry*3/4 + time.Duration(rand.Int64N(int64(renewRetry/4))) // the nodes not all at once
}

func (r *Renewer) renew(ctx context.Context, now time.Time) error {
	if r.Node.ca != nil {
		return r.Node.issueOwn(now)
	}
	if r.Ask == nil {
		return errors.New("nobody can be asked")
	}
	der, err := r.Ask(ctx)
	if err != nil {
		return err
	}
	return r.Node.Replace(der, now)
}
