package scsi

import (
	"math/bits"
	"sync/atomic"

	gotgt "github.com/gostor/gotgt/pkg/scsi"
)

// A unit attention condition (SAM-5 5.14), one bit each, the one to be told
// first lowest. The resets supersede each other in this order (SAM-5 6.2).
const (
	attentionPowerOn uint32 = 1 << iota
	attentionHardReset
	attentionLUNReset
	attentionNexusLoss
	attentionLUNsChanged
	attentionCleared
	attentionReservationsPreempted
	attentionReservationsReleased
	attentionRegistrationsPreempted
	attentionAccessChanged
	attentionModesChanged
	attentionMediumChanged
	attentionCapacityChanged
	attentionInquiryChanged
	attentionThreshold

	attentionResets = attentionPowerOn | attentionHardReset | attentionLUNReset | attentionNexusLoss
)

// attentions holds the conditions pending for one I_T nexus and logical unit.
// Without any, looking at it is one atomic load.
type attentions struct{ pending atomic.Uint32 }

func (a *attentions) establish(which uint32) { a.pending.Or(which) }
func (a *attentions) clear(which uint32)     { a.pending.And(^which) }

// take removes the first condition and returns it as sense data. Telling a
// reset also ends those that it supersedes.
func (a *attentions) take() sense {
	for {
		all := a.pending.Load()
		if all == 0 {
			return sense{}
		}
		first := uint32(1) << bits.TrailingZeros32(all)
		rest := all &^ first
		if first&attentionResets != 0 {
			rest &^= attentionResets
		}
		if a.pending.CompareAndSwap(all, rest) {
			return attentionSense(first)
		}
	}
}

// attentionSense is how a condition is told. For a threshold, INFORMATION is the offset of
// its descriptor in the mode page (SBC-3 4.7.3.7.6).
func attentionSense(which uint32) sense {
	s := sense{key: gotgt.UNIT_ATTENTION, code: attentionCode(which)}
	if which == attentionThreshold {
		s.informed, s.information = true, thresholdAt
	}
	return s
}

// attentionCodes are the additional sense codes, in the order of the conditions.
var attentionCodes = [...]gotgt.SCSISubError{
	gotgt.ASC_POWERON_RESET,
	codeHardReset,
	codeLUNReset,
	gotgt.ASC_I_T_NEXUS_LOSS_OCCURRED,
	gotgt.ASC_REPORTED_LUNS_DATA_HAS_CHANGED,
	gotgt.ASC_CMDS_CLEARED_BY_ANOTHER_INI,
	gotgt.ASC_RESERVATIONS_PREEMPTED,
	gotgt.ASC_RESERVATIONS_RELEASED,
	codeRegistrationsPreempted,
	codeAccessStateChanged,
	gotgt.ASC_MODE_PARAMETERS_CHANGED,
	gotgt.ASC_NOT_READY_TO_TRANSITION,
	codeCapacityChanged,
	gotgt.ASC_INQUIRY_DATA_HAS_CHANGED,
	codeThresholdReached,
}

func attentionCode(which uint32) gotgt.SCSISubError {
	return attentionCodes[bits.TrailingZeros32(which)]
}
