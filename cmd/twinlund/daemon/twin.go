package daemon

import (
	"context"

	"github.com/twinlun/twinlun/target/scsi"
)

// Tell implements scsi.Twin, over whatever replica the LUN has now.
func (l *lun) Tell(ctx context.Context, topic uint16, body []byte) ([]byte, error) {
	return l.replica().Tell(ctx, topic, body)
}

// hearer is the device server of a LUN as its replica sees it: a replication.Twin.
type hearer struct {
	device *scsi.Device
	lun    uint16
}

// Heard implements replication.Twin.
func (h hearer) Heard(ctx context.Context, topic uint16, body []byte) ([]byte, bool) {
	return h.device.Heard(ctx, h.lun, topic, body)
}

// Joined implements replication.Twin.
func (h hearer) Joined(ctx context.Context) { h.device.Joined(ctx, h.lun) }
