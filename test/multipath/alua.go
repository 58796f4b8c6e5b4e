package multipath

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/twinlun/twinlun/test/initiator"
)

// Lengths that are asked for, in bytes: some dozens of groups and designators.
const (
	groupsLength = 4096
	groupHeader  = 8 // of a descriptor, before its ports
)

var errNoGroup = errors.New("no target port group")

// access asks what the path's target port group is good for.
func access(ctx context.Context, s *initiator.Session) (rank, error) {
	page, err := s.VPD(ctx, 0x83)
	if err != nil {
		return dead, err
	}
	group, err := groupOf(page)
	if err != nil {
		return dead, err
	}
	cdb := []byte{0xa3, 0x0a, 11: 0}
	binary.BigEndian.PutUint32(cdb[6:], groupsLength)
	p := make([]byte, groupsLength)
	r, err := s.Command(ctx, cdb, nil, p)
	if err != nil {
		return dead, fmt.Errorf("report target port groups: %w", err)
	}
	return rankOf(p[:r.Received], group)
}

// groupOf finds the port's target port group in the device identification page: the
// designator of type 5 that belongs to the port (SPC-4 7.8.6.8).
func groupOf(page []byte) (uint16, error) {
	for at := 4; at+4 <= len(page); at += 4 + int(page[at+3]) {
		d := page[at:]
		if d[1]&0x3f == 0x15 && d[3] == 4 && len(d) >= 8 {
			return binary.BigEndian.Uint16(d[6:]), nil
		}
	}
	return 0, fmt.Errorf("device identification of %d bytes: %w", len(page), errNoGroup)
}

// rankOf finds a group's state in the answer to REPORT TARGET PORT GROUPS (SPC-4 6.37).
func rankOf(p []byte, group uint16) (rank, error) {
	for at := 4; at+groupHeader <= len(p); at += groupHeader + 4*int(p[at+7]) {
		d := p[at:]
		if binary.BigEndian.Uint16(d[2:]) != group {
			continue
		}
		switch state, pref := d[0]&0xf, d[0]&0x80 != 0; {
		case state == 0 && pref:
			return preferred, nil
		case state == 0:
			return optimized, nil
		case state == 1:
			return nonOptimized, nil
		default: // standby, unavailable, transitioning …
			return dead, nil
		}
	}
	return dead, fmt.Errorf("group %d in %d bytes of groups: %w", group, len(p), errNoGroup)
}
