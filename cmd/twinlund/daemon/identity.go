package daemon

import (
	"crypto/sha256"
	"fmt"
	"log/slog"

	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/target/scsi"
	"github.com/twinlun/twinlun/target/volume"
)

// newDevice makes the SCSI target device with all LUNs.
func newDevice(cfg *config.Config, luns []*lun, log *slog.Logger) (*scsi.Target, error) {
	device := scsi.NewTarget(scsi.Config{Name: cfg.ISCSI.IQN, Log: log})
	for _, l := range luns {
		err := device.AddLUN(l.cfg.Number, scsi.LUN{
			Disk:   volume.New(l.replica),
			NAA:    naa(l.cfg.UUID),
			Serial: config.FormatUUID(l.cfg.UUID),
		})
		if err != nil {
			return nil, fmt.Errorf("LUN %d (%s): %w", l.cfg.Number, l.cfg.Name, err)
		}
	}
	return device, nil
}

// naa is the LUN's identifier, the same at both nodes, as it comes from the UUID
// alone. Type 3, locally assigned (SPC-4 7.8.6.6.4): types 5 and 6 begin with the
// company identifier of a manufacturer, and we have none. 60 bits of a hash keep
// the LUNs of a site apart.
func naa(uuid [16]byte) (id [16]byte) {
	sum := sha256.Sum256(append([]byte("twinlun NAA\x00"), uuid[:]...))
	copy(id[:8], sum[:8])
	id[0] = 3<<4 | id[0]&0xf
	return id
}
