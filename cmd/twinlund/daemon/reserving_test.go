package daemon

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/twinlun/twinlun/target/sam"
	"github.com/twinlun/twinlun/test/initiator"
)

// as has a host do something at a site, with the same initiator port each time, until it
// has an outcome: done, or a reservation conflict.
func (c *trio) as(host byte, site string, do func(ctx context.Context, s *initiator.Session) error) (conflict bool) {
	c.t.Helper()
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = c.once(host, site, do); err == nil {
			return false
		}
		if status := new(initiator.StatusError); errors.As(err, &status) && sam.Status(status.Status) == sam.ReservationConflict {
			return true
		}
	}
	c.t.Fatalf("host %c at site %s: %v", host, site, err)
	return false
}

func (c *trio) once(host byte, site string, do func(ctx context.Context, s *initiator.Session) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, err := initiator.Dial(ctx, initiator.Options{Address: c.portals[site], TargetIQN: iqn,
		InitiatorIQN: iqn + "-" + string(host), ISID: [6]byte{0x80, 5: host}, LUN: 3})
	if err != nil {
		return err
	}
	defer s.Close()
	_, err = s.Command(ctx, make([]byte, 6), nil, nil) // that the nexus was lost is told first
	for check := new(initiator.CheckCondition); errors.As(err, &check) && check.Key == 6; {
		_, err = s.Command(ctx, make([]byte, 6), nil, nil)
	}
	if err != nil {
		return err
	}
	return do(ctx, s)
}

// persistent sends PERSISTENT RESERVE OUT, of the type write exclusive.
func (c *trio) persistent(host byte, site string, action byte, key, newKey uint64) (conflict bool) {
	list := binary.BigEndian.AppendUint64(nil, key)
	list = append(binary.BigEndian.AppendUint64(list, newKey), make([]byte, 8)...)
	return c.as(host, site, func(ctx context.Context, s *initiator.Session) error {
		_, err := s.Command(ctx, []byte{0x5f, action, 1, 8: byte(len(list)), 9: 0}, list, nil)
		return err
	})
}

func (c *trio) mayWrite(host byte, site string, want bool) {
	c.t.Helper()
	conflict := c.as(host, site, func(ctx context.Context, s *initiator.Session) error {
		return s.WriteAt(ctx, make([]byte, 4096), 0)
	})
	if conflict == want {
		c.t.Errorf("host %c writes at site %s: conflict %v", host, site, conflict)
	}
}

// TestClusterReservations: a reservation keeps hosts out at both sites, and outlives each
// of them, also when one was away while it changed.
func TestClusterReservations(t *testing.T) {
	const register, reserve, abort = 6, 1, 5
	c := newTrio(t)
	for _, r := range []struct {
		host byte
		site string
		key  uint64
	}{{'x', "a", 1}, {'y', "b", 2}} {
		if c.persistent(r.host, r.site, register, 0, r.key) {
			t.Fatal("conflict")
		}
	}
	if c.persistent('x', "a", reserve, 1, 0) {
		t.Fatal("conflict")
	}
	c.mayWrite('x', "a", true)
	c.mayWrite('y', "b", false)
	if c.persistent('y', "b", abort, 2, 1) {
		t.Fatal("conflict")
	}
	c.mayWrite('x', "a", false)
	c.mayWrite('y', "b", true)
	c.stop("a")
	if c.persistent('z', "b", register, 0, 3) || c.persistent('y', "b", abort, 2, 3) || c.persistent('x', "b", register, 0, 1) || c.persistent('x', "b", abort, 1, 2) {
		t.Fatal("conflict")
	}
	c.start("a")
	c.mayWrite('x', "a", false) // its registration is of the port at b
	c.mayWrite('x', "b", true)
	c.stop("b")
	c.mayWrite('z', "a", false)
	c.start("b")
	c.mayWrite('x', "b", true)
	c.mayWrite('y', "b", false)
}
