package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/twinlun/twinlun/cluster/identity"
	"github.com/twinlun/twinlun/cluster/member"
	"github.com/twinlun/twinlun/cmd/twinlund/config"
)

// Witness is a node that votes and serves nothing: a membership, and nothing else.
type Witness struct {
	cluster *cluster
	token   string
	self    identity.Newcomer
}

// ErrWitness: a witness makes no cluster.
var ErrWitness = errors.New("this node is a witness, which joins a cluster that there is: make the cluster at a node with disks")

// StartWitness takes up the membership of a witness, if it has one.
func StartWitness(cfg *config.Config, log *slog.Logger) (*Witness, error) {
	w := &Witness{newCluster(&Daemon{cfg: cfg, log: log}), cfg.Witness.Token, cfg.Witness.Newcomer}
	if err := w.cluster.open(); err != nil {
		return nil, err
	}
	if m := w.Member(); m != nil && !m.Witness() {
		err := fmt.Errorf("node %s has replicas, and is no witness: start it without the setting witness", m.Self())
		return nil, errors.Join(err, w.Stop())
	}
	return w, nil
}

// JoinByFile joins with the token that the configuration has, if it has one and this
// witness is in no cluster yet.
func (w *Witness) JoinByFile(ctx context.Context) error {
	if w.Member() != nil || w.token == "" {
		return nil
	}
	return w.Join(ctx, w.token, w.self)
}

// Join has a cluster take this witness in.
func (w *Witness) Join(ctx context.Context, token string, n identity.Newcomer) error {
	n.Witness = true
	return w.cluster.Join(ctx, token, n)
}

// Found is refused.
func (w *Witness) Found(member.FoundOptions) error { return ErrWitness }

// Member is its membership; nil: it is in no cluster.
func (w *Witness) Member() *member.Member { return w.cluster.Member() }

// Stop ends it.
func (w *Witness) Stop() error { return w.cluster.close() }
