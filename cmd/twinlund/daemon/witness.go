package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/identity"
	"github.com/twinlun/twinlun/cluster/member"
	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/webui/api"
)

// Witness is a node that votes and serves nothing: a membership, and the API.
type Witness struct {
	cfg     *config.Config
	version string
	cluster *cluster
	socket  net.Listener
	api     *api.Server
	tasks   sync.WaitGroup
}

// ErrWitness: a witness makes no cluster.
var ErrWitness = errors.New("this node is a witness, which joins a cluster that there is: make the cluster at a node with disks")

// StartWitness takes up the membership of a witness, if it has one.
func StartWitness(cfg *config.Config, version string, log *slog.Logger) (*Witness, error) {
	w := &Witness{cfg: cfg, version: version, cluster: newCluster(&Daemon{cfg: cfg, log: log})}
	var err error
	if w.socket, err = listenAPI(cfg.Cluster.Socket); err != nil {
		return nil, err
	}
	w.api = api.NewServer(api.Handler(witnessBackend{w: w}, version, log))
	if err := w.cluster.open(); err != nil {
		return nil, errors.Join(err, w.socket.Close())
	}
	w.tasks.Go(func() {
		if err := w.api.Serve(w.socket); !errors.Is(err, http.ErrServerClosed) {
			log.Error("the API has ended", "err", err)
		}
	})
	if m := w.Member(); m != nil && !m.Witness() {
		err := fmt.Errorf("node %s has replicas, and is no witness: start it without the setting witness", m.Self())
		return nil, errors.Join(err, w.Stop())
	}
	return w, nil
}

// JoinByFile joins with the token that the configuration has, if it has one and this
// witness is in no cluster yet.
func (w *Witness) JoinByFile(ctx context.Context) error {
	if w.Member() != nil || w.cfg.Witness.Token == "" {
		return nil
	}
	return w.cluster.Join(ctx, w.cfg.Witness.Token, w.cfg.Witness.Newcomer)
}

// Member is its membership; nil: it is in no cluster.
func (w *Witness) Member() *member.Member { return w.cluster.Member() }

// Stop ends it.
func (w *Witness) Stop() error {
	err := w.api.Close()
	w.tasks.Wait()
	return errors.Join(err, w.cluster.close())
}

// witnessBackend is a witness as the API sees it.
type witnessBackend struct {
	noReplicas
	w *Witness
}

// Cluster implements api.Backend.
func (b witnessBackend) Cluster() api.Cluster {
	if m := b.w.Member(); m != nil {
		return m
	}
	return nil // and not a nil *Member in an interface
}

// Found implements api.Backend.
func (b witnessBackend) Found(context.Context, member.FoundOptions) error { return ErrWitness }

// Join implements api.Backend.
func (b witnessBackend) Join(ctx context.Context, token string, n identity.Newcomer) error {
	n.Witness = true
	return b.w.cluster.Join(ctx, token, n)
}

// Outlook implements api.Backend.
func (b witnessBackend) Outlook(context.Context, catalog.LUN) (api.Outlook, error) {
	return api.Outlook{}, ErrWitness
}

// Force implements api.Backend.
func (b witnessBackend) Force(context.Context, catalog.LUN, *catalog.LossPolicy) error {
	return ErrWitness
}

// Recovery implements api.Backend. A witness refuses.
func (b witnessBackend) Recovery(ctx context.Context) member.Recovery {
	return b.w.Member().Recovery(ctx)
}

// Recover implements api.Backend.
func (b witnessBackend) Recover(ctx context.Context, by string, giveUp []catalog.NodeID) error {
	return b.w.Member().Recover(ctx, by, giveUp)
}

// Node implements api.Backend.
func (b witnessBackend) Node() api.NodeStatus {
	s := api.NodeStatus{Version: b.w.version, PID: os.Getpid(), DataDir: b.w.cfg.DataDir, Memory: resident(), Links: []api.Link{}, LUNs: []api.ReplicaStatus{}}
	if m := b.w.Member(); m != nil {
		s.Node = string(m.Self())
	}
	return s
}

// noReplicas is the Verifier of a node without replicas; it is not asked, as the catalog
// has none of them there.
type noReplicas struct{}

// StartVerify implements api.Verifier.
func (noReplicas) StartVerify(catalog.UUID, api.NewVerification) error { return ErrWitness }

// StopVerify implements api.Verifier.
func (noReplicas) StopVerify(catalog.UUID) error { return ErrWitness }

// Verification implements api.Verifier.
func (noReplicas) Verification(catalog.UUID) (api.Verification, error) {
	return api.Verification{}, ErrWitness
}
