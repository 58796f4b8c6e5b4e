package daemon

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/replication"
	"github.com/twinlun/twinlun/replication/coherence"
	"github.com/twinlun/twinlun/replication/salvage"
)

// inCluster has a replica wait for the cluster's word on who serves hosts.
func (l *lun) inCluster(rc *replication.ReplicaConfig, c *config.LUN) {
	if l.cluster == nil {
		return
	}
	rc.Serve, rc.Place, rc.Joined = coherence.ServeNone, l.place, l.cluster.keeper().Look
	rc.Judge = l.cluster.keeper().Judge(c.UUID)
	rc.Salvage = func(join uint64) (salvage.File, error) {
		folder := filepath.Join(l.cluster.base.DataDir, "salvage")
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return nil, err
		}
		return salvage.CreateOS(filepath.Join(folder, fmt.Sprintf("%s-%d.salvage", config.FormatUUID(c.UUID), join)))
	}
}

// attach gives a replica the role that the cluster has for it, before it is linked.
func (l *lun) attach(r *replication.Replica) error {
	if l.cluster == nil {
		return nil
	}
	lease, err := l.cluster.keeper().Attach(l.config().UUID, r)
	if err == nil {
		l.lease = lease
	}
	return err
}

func (l *lun) detach(r *replication.Replica) {
	if l.cluster != nil {
		l.cluster.keeper().Detach(l.config().UUID, r)
	}
}
