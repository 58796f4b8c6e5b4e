package iscsi

import (
	"fmt"
	"strconv"
)

// exchange is a text exchange of the full feature phase: a text that comes in
// pieces, and an answer that goes in pieces. There is one at a time.
type exchange struct {
	in     collector
	out    []byte // still to be sent
	tag    uint32 // target transfer tag of the exchange, while it is open
	opened bool
}

// handleText takes a text request (RFC 7143 section 11.10).
func (s *session) handleText(sl slot) error {
	q := parseTextRequest(&s.in.header)
	piece, err := s.segment()
	if err != nil {
		return err
	}
	x := &s.text
	if q.transferTag == noTag {
		*x = exchange{}
	} else if !x.opened || q.transferTag != x.tag {
		s.reject(rejectProtocol, sl)
		return nil
	}
	if len(x.out) == 0 {
		if err := s.takeText(q, piece); err != nil {
			*x = exchange{}
			s.log.Warn("iscsi: text request rejected", "err", err)
			s.reject(rejectProtocol, sl)
			return nil
		}
	}
	s.sendText(q, sl)
	return nil
}

// takeText collects a text, and answers it when it is complete.
func (s *session) takeText(q textRequest, piece []byte) error {
	if q.cont && q.final {
		return fmt.Errorf("text request with both F and C: %w", errFormat)
	}
	text, complete, err := s.text.in.add(piece, q.cont)
	if err != nil || !complete {
		return err
	}
	pairs, err := parseText(text)
	if err != nil {
		return err
	}
	for _, p := range pairs {
		s.text.out = s.answerText(s.text.out, p)
	}
	return nil
}

// answerText appends the answer to one key.
func (s *session) answerText(out []byte, p pair) []byte {
	if p.key == "SendTargets" {
		return s.sendTargets(out, p.value)
	}
	np := s.params
	answer, _ := negotiate(&np, &s.srv.cfg.Limits, p, stageFullFeature, s.discovery())
	s.writer.maxSend.Store(np.maxSend)
	s.params.maxSend = np.maxSend
	if answer != "" {
		out = appendPair(out, p.key, answer)
	}
	return out
}

// sendText sends as much of the answer as the initiator takes at once.
func (s *session) sendText(q textRequest, sl slot) {
	x := &s.text
	n := min(len(x.out), int(s.writer.maxSend.Load()))
	piece := x.out[:n]
	x.out = x.out[n:]
	r := textResponse{tag: q.tag, transferTag: noTag, cont: len(x.out) > 0}
	r.final = q.final && !r.cont
	x.opened = !r.final
	if x.opened {
		x.tag = s.transferTag()
		r.transferTag = x.tag
	}
	s.answer(&r, piece, sl)
}

// transferTag makes a target transfer tag that was not used for long.
func (s *session) transferTag() uint32 {
	for {
		if tag := s.nextTag.Add(1); tag != noTag {
			return tag
		}
	}
}

// sendTargets answers SendTargets (RFC 7143 appendix C): in a discovery session
// All or a name; in a normal session no name, or that of its target.
func (s *session) sendTargets(out []byte, value string) []byte {
	if !s.discovery() {
		if value != "" && value != s.target.Name {
			return appendPair(out, "SendTargets", answerReject)
		}
		return appendTarget(out, s.target)
	}
	if value == "" {
		return appendPair(out, "SendTargets", answerReject)
	}
	for i := range s.srv.cfg.Targets {
		if t := &s.srv.cfg.Targets[i]; value == "All" || value == t.Name {
			out = appendTarget(out, t)
		}
	}
	return out
}

func appendTarget(out []byte, t *Target) []byte {
	out = appendPair(out, "TargetName", t.Name)
	for _, p := range t.Portals {
		out = appendPair(out, "TargetAddress", p.Address+","+strconv.Itoa(int(p.Group)))
	}
	return out
}
