package daemon

import (
	"maps"
	"slices"
	"sync"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/failover"
	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/target/scsi"
)

// access tells hosts, by the states of target port groups, which sites serve a LUN.
type access struct {
	mu    sync.Mutex
	roles map[catalog.UUID]failover.Serve
	told  map[catalog.UUID]failover.Serve // follow's; by LUNs that are there
}

func newAccess() access {
	return access{roles: map[catalog.UUID]failover.Serve{}, told: map[catalog.UUID]failover.Serve{}}
}

// roleChanged is called under the lock of the Keeper.
func (c *cluster) roleChanged(lun catalog.UUID, r failover.Role) {
	c.access.mu.Lock()
	defer c.access.mu.Unlock()
	c.access.roles[lun] = r.Serve
	if r.Forced && r.Serve == failover.ByItself {
		c.hub.Rely(lun)
	}
	c.Wake()
}

// tellAccess tells hosts what has changed since it was called last. A LUN that has just
// come is active everywhere at first.
func (c *cluster) tellAccess(cfg *config.Config) {
	c.access.mu.Lock()
	roles := maps.Clone(c.access.roles)
	c.access.mu.Unlock()
	there := map[catalog.UUID]bool{}
	for _, l := range c.d.all() {
		lun := l.config()
		there[lun.UUID] = true
		serve := roles[lun.UUID]
		if before, known := c.told[lun.UUID]; known && before == serve {
			continue
		}
		c.told[lun.UUID] = serve
		here, elsewhere := statesOf(serve)
		c.setAccess(l, cfg.PortalGroup, here)
		if lun.Peer != "" {
			c.setAccess(l, cfg.Groups[lun.Peer], elsewhere)
		}
	}
	maps.DeleteFunc(c.told, func(id catalog.UUID, _ failover.Serve) bool { return !there[id] })
}

// statesOf are the states of this node's group and of the peer's.
func statesOf(s failover.Serve) (here, elsewhere scsi.AccessState) {
	switch s {
	case failover.Together:
		return scsi.ActiveOptimized, scsi.ActiveOptimized
	case failover.ByItself:
		return scsi.ActiveOptimized, scsi.Unavailable
	}
	return scsi.Unavailable, scsi.ActiveOptimized
}

func (c *cluster) setAccess(l *lun, group uint16, s scsi.AccessState) {
	if err := c.d.device.SetAccessState(l.config().Number, group, s); err != nil {
		l.log.Warn("hosts are not told which site serves the LUN", "err", err)
	}
}

// groupsOf are the target port groups of the nodes that have a LUN.
func groupsOf(cfg *config.Config, c *config.LUN) []uint16 {
	groups := []uint16{cfg.PortalGroup}
	if c.Peer != "" {
		groups = append(groups, cfg.Groups[c.Peer])
	}
	slices.Sort(groups)
	return groups
}
