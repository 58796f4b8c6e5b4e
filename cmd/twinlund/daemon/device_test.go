package daemon

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/twinlun/twinlun/cmd/twinlund/config"
	"github.com/twinlun/twinlun/test/initiator"
)

// device are two configurations that differ in what nodes differ in, and that hosts
// see one device of.
func device(t *testing.T) [2]*config.Config {
	cfg := nodes(t)
	for _, c := range cfg {
		c.Targets[0].Portals = []config.Portal{{Address: "127.0.0.1:1", Group: 1}, {Address: "127.0.0.1:2", Group: 2}}
	}
	return cfg
}

func in(ctx context.Context, s *initiator.Session, cdb string, size int) (string, error) {
	p, err := hex.DecodeString(strings.ReplaceAll(cdb, " ", ""))
	if err != nil {
		return "", err
	}
	data := make([]byte, size)
	r, err := s.Command(ctx, p, nil, data)
	return hex.EncodeToString(data[:r.Received]), err
}

// TestTargetPortGroups: both nodes tell the same of both, also to a host that is
// assigned to one.
func TestTargetPortGroups(t *testing.T) {
	cfg := device(t)
	for _, tt := range []struct{ prefer, want string }{
		{"", "00000018808f00010000000100000001018f00020000000100000002"},
		{"b", "00000018018f00010000000100000001808f00020000000100000002"},
	} {
		var all [2]*Daemon
		for i := range cfg {
			cfg[i].Targets[0].Views = []config.View{{Initiator: iqn + "-host", Prefer: tt.prefer}}
			all[i] = startNode(t, cfg[i])
		}
		for _, d := range all {
			use(t, d, func(ctx context.Context, s *initiator.Session) error {
				if got, err := in(ctx, s, "a30a 00000000 000000ff 0000", 255); err != nil || got != tt.want {
					return fmt.Errorf("target port groups %s, %v; want %s", got, err, tt.want)
				}
				return nil
			})
		}
		for _, d := range all {
			stopNode(t, d)
		}
	}
}

// TestReservationsOutliveTheDaemon: APTPL, through a stop and a start.
func TestReservationsOutliveTheDaemon(t *testing.T) {
	cfg := device(t)
	b := startNode(t, cfg[1])
	defer func() { stopNode(t, b) }()
	reserve := func(ctx context.Context, s *initiator.Session) error {
		list := append(make([]byte, 8), 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 1, 0, 0, 0) // key 7, APTPL
		_, err := s.Command(ctx, []byte{0x5f, 6, 0, 0, 0, 0, 0, 0, 24, 0}, list, nil)
		return errors.Join(err, func() error {
			copy(list, list[8:16])
			_, err := s.Command(ctx, []byte{0x5f, 1, 3, 0, 0, 0, 0, 0, 24, 0}, list, nil)
			return err
		}())
	}
	a := startNode(t, cfg[0])
	use(t, a, reserve)
	stopNode(t, a)
	a = startNode(t, cfg[0])
	defer func() { stopNode(t, a) }()
	use(t, a, func(ctx context.Context, s *initiator.Session) error {
		want := "00000000" + "00000010" + "0000000000000007" + "00000000" + "00030000"
		if got, err := in(ctx, s, "5e01 00000000 0000ff00", 255); err != nil || got != want {
			return fmt.Errorf("reservation %s, %v; want %s", got, err, want)
		}
		return nil
	})
}

// TestViewsAndKinds: a host sees one LUN, under another number, that it cannot write
// and can eject.
func TestViewsAndKinds(t *testing.T) {
	cfg := device(t)
	for i := range cfg {
		cfg[i].Targets[0].Views = []config.View{{Initiator: iqn + "-host", LUNs: map[uint16]uint16{5: 3}}}
		cfg[i].LUNs[0].ReadOnly, cfg[i].LUNs[0].Removable = true, true
	}
	a, b := startNode(t, cfg[0]), startNode(t, cfg[1])
	defer func() { stopNode(t, a); stopNode(t, b) }()
	ctx := context.Background()
	s, err := initiator.Dial(ctx, initiator.Options{Address: a.ISCSI().String(), TargetIQN: iqn, InitiatorIQN: iqn + "-host", LUN: 5})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	luns, err := s.ReportLUNs(ctx)
	if err != nil || len(luns) != 1 || luns[0] != [8]byte{1: 5} {
		t.Errorf("LUNs %x, %v", luns, err)
	}
	s.TestUnitReady(ctx) // takes the unit attention
	if data, err := s.Inquiry(ctx); err != nil || data[1] != 0x80 {
		t.Errorf("INQUIRY %x, %v", data, err)
	}
	if err := s.WriteAt(ctx, bytes.Repeat([]byte{1}, 512), 0); err == nil || !strings.Contains(err.Error(), "27") {
		t.Errorf("write to a LUN that is read only: %v", err)
	}
	if err := s.ReadAt(ctx, make([]byte, 512), 0); err != nil {
		t.Errorf("read: %v", err)
	}
}
