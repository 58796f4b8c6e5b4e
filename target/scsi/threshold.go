package scsi

import (
	"encoding/binary"
	"fmt"
)

// thresholdShift is log2 of a threshold set's size in bytes: what space is counted
// in (SBC-3 4.7.3.7).
const thresholdShift = 20

// thresholdAt is where the only threshold descriptor stands in its mode page, header and
// all.
const thresholdAt = 16

// tellsSpace tells whether a unit has a threshold of space, and all that goes with it.
func (u *unit) tellsSpace() bool {
	_, tells := u.disk.(Provisioned)
	return tells
}

// SetThreshold changes LUN.Threshold. Hosts are told that mode pages have changed.
func (t *Device) SetThreshold(number uint16, bytes int64) error {
	t.mu.Lock()
	u := t.luns[number]
	t.mu.Unlock()
	switch {
	case u == nil:
		return fmt.Errorf("set the threshold of LUN %d: there is no such LUN", number)
	case u.threshold.Swap(bytes) == bytes || !u.tellsSpace():
		return nil
	}
	return t.tell(number, attentionModesChanged)
}

// ThresholdReached tells hosts that the space for a thin logical unit is under its
// threshold (SBC-3 4.7.3.7): they should free some, or somebody should add some. It is
// called once when that comes about.
func (t *Device) ThresholdReached(number uint16) error {
	return t.tell(number, attentionThreshold)
}

// errorRecovery is the read-write error recovery mode page (SBC-3 6.4.7), without its
// header: LBPERE, thresholds are reported; errors are not recovered from by trying again.
func errorRecovery() []byte {
	p := make([]byte, 10)
	p[5] = 0x80
	return p
}

// thresholds is the logical block provisioning mode page (SBC-3 6.4.9), without its header
// of four bytes. SITUA is 0: all I_T nexuses are told. Nothing can be changed by hosts.
//
//	offset size
//	     0   12  0
//	    12    1  ENABLED, if there is a threshold; soft, armed decreasing
//	    13    1  01h: of the available space
//	    16    4  threshold sets
func (u *unit) thresholds() []byte {
	p := make([]byte, 20)
	bytes := u.threshold.Load()
	if bytes > 0 {
		p[12] = 0x80
	}
	p[13] = logAvailable
	sets := (bytes + 1<<thresholdShift - 1) >> thresholdShift // one at least
	binary.BigEndian.PutUint32(p[16:], uint32(min(sets, 1<<32-1)))
	return p
}
