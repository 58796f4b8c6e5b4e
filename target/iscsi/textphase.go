package iscsi

import "fmt"

// exchange is a text exchange of the full feature phase: a text that comes in
// pieces, and an answer that goes in pieces. There is one at a time.
type exchange struct {
	in     collector
	out    sender
	tag    uint32 // target transfer tag, while the exchange is open
	opened bool
}

// handleText takes a text request (RFC 7143 section 11.10).
func (s *session) handleText(sl slot) error {
	q := parseTextRequest(&s.in.header)
	if s.in.left > maxText {
		s.log.Warn("iscsi: text request rejected", "err", "it is too long", "bytes", s.in.left)
		s.text = exchange{}
		s.reject(rejectProtocol, sl)
		return s.checkSegment()
	}
	piece, err := s.segment()
	if err != nil {
		return err
	}
	if err := s.takeText(q, piece); err != nil {
		s.log.Warn("iscsi: text request rejected", "err", err)
		s.text = exchange{}
		s.reject(rejectProtocol, sl)
		return nil
	}
	s.sendText(q, sl)
	return nil
}

// enter finds out which exchange a request belongs to: a new one takes the place of
// the one before. The transfer tag alone tells; initiators should keep their task tag,
// too (RFC 7143 section 11.10.3), and some do not.
func (x *exchange) enter(q textRequest) error {
	switch {
	case q.cont && q.final:
		return fmt.Errorf("text request with both F and C: %w", errFormat)
	case q.transferTag == noTag:
		*x = exchange{}
	case !x.opened || q.transferTag != x.tag:
		return fmt.Errorf("text request with transfer tag %#x, which is that of no exchange: %w", q.transferTag, errFormat)
	}
	return nil
}

// takeText collects a text, and answers it when it is complete.
func (s *session) takeText(q textRequest, piece []byte) error {
	x := &s.text
	if err := x.enter(q); err != nil {
		return err
	}
	if x.out.pending() {
		if len(piece) > 0 {
			return fmt.Errorf("keys before the answer to those before was complete: %w", errFormat)
		}
		return nil
	}
	text, complete, err := x.in.add(piece, q.cont)
	if err != nil || !complete {
		return err
	}
	pairs, err := parseText(text)
	if err != nil {
		return err
	}
	for _, p := range pairs {
		x.out.text = s.answerText(x.out.text, p)
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

// sendText sends as much of the answer as the initiator takes at once (RFC 7143
// section 11.11): while more follows, or the initiator has more to say, a transfer
// tag tells what the next request belongs to.
func (s *session) sendText(q textRequest, sl slot) {
	x := &s.text
	piece, more := x.out.next(int(s.writer.maxSend.Load()))
	r := textResponse{tag: q.tag, transferTag: noTag, cont: more, final: q.final && !more}
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
// All or a name; in a normal session no name, or that of its target. An initiator is
// told of targets that it may log in to, and of no others.
func (s *session) sendTargets(out []byte, value string) []byte {
	if !s.discovery() && value == "" {
		value = s.target.Name
	}
	if value == "" || !s.discovery() && value != s.target.Name {
		return appendPair(out, "SendTargets", answerReject)
	}
	local := localAddress(s.conn)
	for _, t := range s.srv.directory.Load().visible(s.port.Name) {
		if value == "All" || value == t.Name {
			out = appendTarget(out, t, local)
		}
	}
	return out
}
