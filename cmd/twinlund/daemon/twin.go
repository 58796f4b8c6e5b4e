package daemon

import (
	"context"

	"github.com/twinlun/twinlun/target/sanitize"
	"github.com/twinlun/twinlun/target/scsi"
)

// openSanitizer gives the LUN its Sanitizer, which keeps its state beside the map.
func (l *lun) openSanitizer() (err error) {
	c := l.config()
	l.sanitizer, err = sanitize.Open(sanitize.Config{
		Path:      beside(&c, ".sanitize"),
		LUN:       c.UUID,
		Disk:      l.vol,
		BlockSize: int(c.BlockSize),
		Copied: func() bool {
			s := l.replica().Status()
			return s.Serving && s.Dirty == 0
		},
		Solid: func(yes bool) {
			l.solid.Store(yes)
			l.replica().Solid(yes)
		},
		Rate: c.SanitizeRate,
		Log:  l.log,
	})
	return err
}

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
