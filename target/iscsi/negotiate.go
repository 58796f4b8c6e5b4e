package iscsi

import (
	"strconv"
	"strings"
)

// params are what a session's two sides agreed upon (RFC 7143 section 13).
// Lengths are in bytes.
type params struct {
	headerDigest, dataDigest bool // CRC32C
	initialR2T               bool
	immediateData            bool
	maxSend                  uint32 // the initiator's MaxRecvDataSegmentLength
	maxBurst, firstBurst     uint32
	maxR2T                   uint32
}

// defaultParams are in force where nothing is negotiated. The target never
// starts a negotiation itself, which saves a round in every login; therefore no
// limit of ours may be under a default (checked in Limits).
func defaultParams() params {
	return params{
		initialR2T: true, immediateData: true, maxSend: 8192,
		maxBurst: 262144, firstBurst: 65536, maxR2T: 1,
	}
}

// inherit takes over what holds for a whole session, and only the login of its
// first connection negotiates.
func (p *params) inherit(session *params) {
	p.initialR2T, p.immediateData = session.initialR2T, session.immediateData
	p.maxBurst, p.firstBurst, p.maxR2T = session.maxBurst, session.firstBurst, session.maxR2T
}

// Answers that every key may get (RFC 7143 section 6.2).
const (
	answerReject        = "Reject"
	answerIrrelevant    = "Irrelevant"
	answerNotUnderstood = "NotUnderstood"
	yes, no             = "Yes", "No"
)

// rule says how a key is negotiated.
type rule struct {
	stages     byte // bits 1<<stage of the stages that the key belongs to
	normalOnly bool // irrelevant in a discovery session
	// apply takes the initiator's value and returns the answer; "": none.
	apply func(p *params, l *Limits, value string) string
}

const (
	inSecurity    = 1 << stageSecurity
	inOperational = 1 << stageOperational
	inFullFeature = 1 << stageFullFeature
	inLogin       = inSecurity | inOperational
	inAll         = inLogin | inFullFeature
)

const max24 = 1<<24 - 1

// rules has the keys of RFC 7143 section 13 that a target takes.
// The names that open a session are taken by login before.
var rules = map[string]rule{
	"InitiatorName":    {inLogin, false, declared},
	"TargetName":       {inLogin, false, declared},
	"SessionType":      {inLogin, false, declared},
	"InitiatorAlias":   {inAll, false, declared},
	"HeaderDigest":     {inOperational, false, digest(func(p *params) *bool { return &p.headerDigest })},
	"DataDigest":       {inOperational, false, digest(func(p *params) *bool { return &p.dataDigest })},
	"AuthMethod":       {inSecurity, false, declared}, // login answers these six
	"CHAP_A":           {inSecurity, false, declared},
	"CHAP_C":           {inSecurity, false, declared},
	"CHAP_I":           {inSecurity, false, declared},
	"CHAP_N":           {inSecurity, false, declared},
	"CHAP_R":           {inSecurity, false, declared},
	"MaxConnections":   {inOperational, true, least(1, 65535, one, nil)},
	"InitialR2T":       {inOperational, true, either(false, func(p *params) *bool { return &p.initialR2T })},
	"ImmediateData":    {inOperational, true, both(true, func(p *params) *bool { return &p.immediateData })},
	"MaxBurstLength":   {inOperational, true, least(512, max24, func(l *Limits) uint32 { return l.MaxBurstLength }, func(p *params) *uint32 { return &p.maxBurst })},
	"DataPDUInOrder":   {inOperational, true, either(true, nil)},
	"TaskReporting":    {inOperational, true, chooseReporting},
	"IFMarker":         {inOperational, false, both(false, nil)},
	"OFMarker":         {inOperational, false, both(false, nil)},
	"IFMarkInt":        {inOperational, false, refused},
	"OFMarkInt":        {inOperational, false, refused},
	"DefaultTime2Wait": {inOperational, false, most(0, 3600, 2)},

	"FirstBurstLength":         {inOperational, true, least(512, max24, func(l *Limits) uint32 { return l.FirstBurstLength }, func(p *params) *uint32 { return &p.firstBurst })},
	"DefaultTime2Retain":       {inOperational, false, least(0, 3600, zero, nil)},
	"MaxOutstandingR2T":        {inOperational, true, least(1, 65535, func(*Limits) uint32 { return maxR2T }, func(p *params) *uint32 { return &p.maxR2T })},
	"DataSequenceInOrder":      {inOperational, true, either(true, nil)},
	"ErrorRecoveryLevel":       {inOperational, false, least(0, 2, zero, nil)},
	"iSCSIProtocolLevel":       {inOperational, true, least(0, 31, one, nil)},
	"MaxRecvDataSegmentLength": {inOperational | inFullFeature, false, takeMaxSend},
}

func one(*Limits) uint32  { return 1 }
func zero(*Limits) uint32 { return 0 }

func declared(*params, *Limits, string) string { return "" }
func refused(*params, *Limits, string) string  { return answerReject }

// negotiate answers one key in a stage, and puts the outcome into p. False: the
// key does not belong there.
func negotiate(p *params, l *Limits, q pair, stage byte, discovery bool) (answer string, ok bool) {
	r, known := rules[q.key]
	switch {
	case !known:
		return answerNotUnderstood, true
	case r.stages&(1<<stage) == 0:
		return answerReject, false
	case discovery && r.normalOnly:
		return answerIrrelevant, true
	}
	return r.apply(p, l, q.value), true
}

// settle makes what was negotiated fit together: FirstBurstLength must not
// exceed MaxBurstLength (RFC 7143 section 13.14).
func (p *params) settle() {
	p.firstBurst = min(p.firstBurst, p.maxBurst)
}

// least is the numerical minimum of both sides' values. A nil field: the
// outcome is ours whatever the initiator says, and is kept nowhere.
func least(low, high uint64, ours func(*Limits) uint32, field func(*params) *uint32) func(*params, *Limits, string) string {
	return func(p *params, l *Limits, value string) string {
		n, ok := parseNumber(value)
		if !ok || n < low || n > high {
			return answerReject
		}
		n = min(n, uint64(ours(l)))
		if field != nil {
			*field(p) = uint32(n)
		}
		return strconv.FormatUint(n, 10)
	}
}

// most is the numerical maximum.
func most(low, high, ours uint64) func(*params, *Limits, string) string {
	return func(_ *params, _ *Limits, value string) string {
		n, ok := parseNumber(value)
		if !ok || n < low || n > high {
			return answerReject
		}
		return strconv.FormatUint(max(n, ours), 10)
	}
}

// both is the boolean AND, either the boolean OR.
func both(ours bool, field func(*params) *bool) func(*params, *Limits, string) string {
	return boolean(func(theirs bool) bool { return theirs && ours }, field)
}

func either(ours bool, field func(*params) *bool) func(*params, *Limits, string) string {
	return boolean(func(theirs bool) bool { return theirs || ours }, field)
}

func boolean(join func(bool) bool, field func(*params) *bool) func(*params, *Limits, string) string {
	return func(p *params, _ *Limits, value string) string {
		if value != yes && value != no {
			return answerReject
		}
		outcome := join(value == yes)
		if field != nil {
			*field(p) = outcome
		}
		if outcome {
			return yes
		}
		return no
	}
}

// digest takes the first of the initiator's list that we have, too.
func digest(field func(*params) *bool) func(*params, *Limits, string) string {
	return func(p *params, _ *Limits, value string) string {
		chosen := choose(value, "CRC32C", "None")
		*field(p) = chosen == "CRC32C"
		return chosen
	}
}

func chooseReporting(_ *params, _ *Limits, value string) string {
	return choose(value, "RFC3720")
}

// choose is the list function (RFC 7143 section 6.2.1): the first of the
// offered values that we have, too.
func choose(list string, ours ...string) string {
	for offered := range strings.SplitSeq(list, ",") {
		for _, have := range ours {
			if offered == have {
				return have
			}
		}
	}
	return answerReject
}

// takeMaxSend takes the initiator's declaration; ours goes out on its own.
func takeMaxSend(p *params, _ *Limits, value string) string {
	n, ok := parseNumber(value)
	if !ok || n < 512 || n > max24 {
		return answerReject
	}
	p.maxSend = uint32(n)
	return ""
}
