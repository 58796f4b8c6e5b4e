package initiator

import "strconv"

// Params are what a login has agreed upon (RFC 7143 section 13).
type Params struct {
	TSIH                     uint16
	PortalGroup              int
	TargetAlias              string
	HeaderDigest, DataDigest bool
	InitialR2T               bool
	ImmediateData            bool
	FirstBurst, MaxBurst     int // bytes
	MaxSend                  int // the target's MaxRecvDataSegmentLength
	MaxOutstandingR2T        int
}

// offer lists the operational keys that o proposes or declares.
func (o *Options) offer(discovery bool) []pair {
	n := strconv.Itoa
	keys := []pair{
		{"HeaderDigest", crcOrNone(o.HeaderDigest)},
		{"DataDigest", crcOrNone(o.DataDigest)},
		{"MaxRecvDataSegmentLength", n(o.MaxRecvDataSegmentLength)},
		{"DefaultTime2Wait", "2"},
		{"DefaultTime2Retain", "0"},
		{"ErrorRecoveryLevel", "0"},
	}
	if discovery {
		return keys
	}
	return append(keys,
		pair{"InitialR2T", yesNo(o.InitialR2T)},
		pair{"ImmediateData", yesNo(!o.NoImmediateData)},
		pair{"MaxBurstLength", n(o.MaxBurstLength)},
		pair{"FirstBurstLength", n(o.FirstBurstLength)},
		pair{"MaxOutstandingR2T", n(o.MaxOutstandingR2T)},
		pair{"MaxConnections", "1"},
		pair{"DataPDUInOrder", "Yes"},
		pair{"DataSequenceInOrder", "Yes"})
}

// agree works out the session's parameters from what was offered and how the
// target answered. An answer that the offer does not permit is its error.
func (o *Options) agree(answers map[string]string, discovery bool) (Params, error) {
	a := answerer{answers: answers}
	p := Params{TargetAlias: answers["TargetAlias"], PortalGroup: -1}
	p.HeaderDigest = a.exactly("HeaderDigest", crcOrNone(o.HeaderDigest)) == "CRC32C"
	p.DataDigest = a.exactly("DataDigest", crcOrNone(o.DataDigest)) == "CRC32C"
	a.exactly("ErrorRecoveryLevel", "0")
	p.MaxSend = a.declared("MaxRecvDataSegmentLength", 8192, 512, 1<<24-1)
	if discovery {
		return p, a.err
	}
	p.PortalGroup = a.declared("TargetPortalGroupTag", -1, 0, 65535)
	p.InitialR2T = a.boolean("InitialR2T", o.InitialR2T, true)
	p.ImmediateData = a.boolean("ImmediateData", !o.NoImmediateData, false)
	p.MaxBurst = a.atMost("MaxBurstLength", o.MaxBurstLength, 512)
	p.FirstBurst = a.atMost("FirstBurstLength", o.FirstBurstLength, 512)
	p.MaxOutstandingR2T = a.atMost("MaxOutstandingR2T", o.MaxOutstandingR2T, 1)
	a.exactly("MaxConnections", "1")
	a.exactly("DataPDUInOrder", "Yes")
	a.exactly("DataSequenceInOrder", "Yes")
	if p.FirstBurst > p.MaxBurst {
		a.wrong("FirstBurstLength %d is more than MaxBurstLength %d", p.FirstBurst, p.MaxBurst)
	}
	return p, a.err
}

// answerer reads answers and keeps the first error.
type answerer struct {
	answers map[string]string
	err     error
}

func (a *answerer) wrong(format string, args ...any) {
	if a.err == nil {
		a.err = protocolError(format, args...)
	}
}

// answer is the target's answer to a proposal, which it has to give.
func (a *answerer) answer(key string) string {
	v, ok := a.answers[key]
	if !ok {
		a.wrong("%s was proposed and not answered (section 6.2)", key)
	}
	return v
}

// exactly accepts only the value that was proposed.
func (a *answerer) exactly(key, proposed string) string {
	if v := a.answer(key); v != proposed {
		a.wrong("%s=%s was answered by %q", key, proposed, v)
	}
	return proposed
}

// boolean accepts Yes or No; dominant is the value that a proposal of forces.
func (a *answerer) boolean(key string, proposed, dominant bool) bool {
	v := a.answer(key)
	if v != "Yes" && v != "No" {
		a.wrong("%s=%s was answered by %q", key, yesNo(proposed), v)
	}
	if proposed == dominant && v != yesNo(dominant) {
		a.wrong("%s=%s was answered by %s, which the result function forbids", key, yesNo(proposed), v)
	}
	return v == "Yes"
}

// atMost accepts a number from least to the one proposed, or Irrelevant.
func (a *answerer) atMost(key string, proposed, least int) int {
	v := a.answer(key)
	if v == "Irrelevant" {
		return min(proposed, 512)
	}
	n, err := parseNumber(v)
	if err != nil || n < least || n > proposed {
		a.wrong("%s=%d was answered by %q", key, proposed, v)
	}
	return n
}

// declared reads a number that the target declares without being asked; absent
// is what counts if it does not, and -1 means that it must.
func (a *answerer) declared(key string, absent, least, most int) int {
	v, ok := a.answers[key]
	if !ok {
		if absent < 0 {
			a.wrong("%s is missing", key)
		}
		return absent
	}
	n, err := parseNumber(v)
	if err != nil || n < least || n > most {
		a.wrong("%s=%.80q", key, v)
	}
	return n
}
