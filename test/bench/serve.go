package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/twinlun/twinlun/target/backing"
	"github.com/twinlun/twinlun/target/iscsi"
	"github.com/twinlun/twinlun/target/scsi"
	"github.com/twinlun/twinlun/test/initiator"
)

// bare is a backing store as a LUN: what a volume would be without a peer.
type bare struct{ *backing.Disk }

func (d bare) ReadAt(_ context.Context, p []byte, off int64) error { return d.Disk.ReadAt(p, off) }

func (d bare) WriteAt(_ context.Context, p []byte, off int64, fua bool) error {
	if err := d.Disk.WriteAt(p, off); err != nil || !fua {
		return err
	}
	return d.Disk.Sync()
}

func (d bare) Zero(_ context.Context, off, n int64, fua bool) error {
	if err := d.Disk.Zero(off, n); err != nil || !fua {
		return err
	}
	return d.Disk.Sync()
}

func (d bare) Sync(context.Context) error { return d.Disk.Sync() }

// Update is not measured.
func (d bare) Update(context.Context, int64, int64, bool, func(p []byte) bool) error {
	return errors.ErrUnsupported
}

// WriteAtomic is not measured.
func (d bare) WriteAtomic(context.Context, []byte, int64, bool) error { return errors.ErrUnsupported }

// server serves disks over iSCSI: a target for each.
type server struct {
	server  *iscsi.Server
	address string
	served  sync.WaitGroup
}

func targetName(i int) string { return fmt.Sprintf("iqn.2026-01.io.github.twinlun:bench%d", i) }

func (b *bench) serve(disks ...scsi.Disk) (*server, error) {
	var targets []iscsi.Target
	for i, d := range disks {
		device := scsi.NewTarget(scsi.Config{Name: targetName(i), Log: b.log})
		lun := scsi.LUN{Disk: d, NAA: [16]byte{0x30, byte(i)}, Serial: fmt.Sprintf("bench%d", i)}
		if err := device.AddLUN(0, lun); err != nil {
			return nil, err
		}
		targets = append(targets, iscsi.Target{Name: targetName(i), Device: device, Access: iscsi.Anyone()})
	}
	s, err := iscsi.New(iscsi.Config{Targets: targets, PortalGroup: 1, Log: b.log})
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	srv := &server{server: s, address: l.Addr().String()}
	srv.served.Go(func() { s.Serve(l) })
	return srv, nil
}

func (s *server) login(ctx context.Context, i int) (*initiator.Session, error) {
	return initiator.Dial(ctx, initiator.Options{Address: s.address, TargetIQN: targetName(i)})
}

func (s *server) close() error {
	err := s.server.Shutdown(context.Background())
	s.served.Wait()
	return err
}
