package daemon

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/target/reservation/local"
	"github.com/twinlun/twinlun/target/scsi"
	"github.com/twinlun/twinlun/webui/api"
)

// newDevice makes the SCSI device, without LUNs and targets.
func newDevice(cfg *config.Config, log *slog.Logger) *scsi.Device {
	return scsi.NewDevice(scsi.Config{Log: log, Groups: portGroups(cfg)})
}

// expose lets initiators see a LUN.
func expose(device *scsi.Device, cfg *config.Config, l *lun) error {
	c := l.config()
	reservations, err := l.reservations()
	if err == nil {
		err = l.openSanitizer()
	}
	if err == nil {
		err = device.AddLUN(c.Number, scsi.LUN{
			Disk:           l.vol,
			Twin:           l,
			Sanitizer:      l.sanitizer,
			NAA:            naaOf(&c),
			Serial:         config.FormatUUID(c.UUID),
			Reservations:   reservations,
			PreferredGroup: groupOf(cfg, c.Preferred),
			Threshold:      l.threshold(),
			ReadOnly:       c.ReadOnly,
			Removable:      c.Removable,
			BlockSize:      uint32(c.BlockSize),
		})
	}
	if err != nil {
		return fmt.Errorf("LUN %d (%s): %w", c.Number, c.Name, err)
	}
	return nil
}

// reservations are the cluster's; of a pair, each site has its own.
func (l *lun) reservations() (scsi.Reserver, error) {
	c := l.config()
	if l.cluster != nil {
		return l.cluster.reservations(c.UUID), nil
	}
	return local.Open(reservationsFile(&c), c.UUID)
}

// reservationsFile is where a LUN's persistent reservations are kept while an
// initiator wants them to outlive this process: beside the map.
func reservationsFile(l *config.LUN) string {
	return beside(l, ".reservations")
}

// portGroups are the target port groups of both nodes. A portal group is a target
// port of each target, and the only one of its group; those of the peer are not ours.
func portGroups(c *config.Config) (all []scsi.PortGroup) {
	if c.Groups != nil {
		for _, tag := range slices.Sorted(maps.Values(c.Groups)) {
			all = append(all, scsi.PortGroup{ID: tag, Ports: []uint16{tag}, Remote: tag != c.PortalGroup})
		}
		return all
	}
	tags := []uint16{c.PortalGroup}
	for _, t := range c.Targets {
		for _, p := range t.Portals {
			tags = append(tags, p.Group)
		}
	}
	slices.Sort(tags)
	for _, tag := range slices.Compact(tags) {
		all = append(all, scsi.PortGroup{ID: tag, Ports: []uint16{tag}, Remote: tag != c.PortalGroup})
	}
	return all
}

// groupOf is the target port group of a node; 0: the portals do not tell which that is.
func groupOf(cfg *config.Config, node string) (group uint16) {
	if node == cfg.Node {
		return cfg.PortalGroup
	}
	if cfg.Groups != nil {
		return cfg.Groups[node]
	}
	for _, g := range portGroups(cfg) {
		if g.Remote && group != 0 {
			return 0
		} else if g.Remote {
			group = g.ID
		}
	}
	return group
}

// naaOf is the LUN's identifier: that of the catalog, or one made from its UUID.
func naaOf(c *config.LUN) [16]byte {
	if c.NAA != [16]byte{} {
		return c.NAA
	}
	return api.NAA(c.UUID)
}
