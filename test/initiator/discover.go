package initiator

import (
	"context"
	"fmt"
	"strings"
)

// Target is one that a discovery has found.
type Target struct {
	Name    string
	Portals []string // "address:port,portal group tag", as the target gives them
}

// Discover asks the portal at an address for its targets (SendTargets=All,
// RFC 7143 appendix C).
func Discover(ctx context.Context, address string) ([]Target, error) {
	return Options{Address: address}.Discover(ctx)
}

// Discover is like the function, with digests, names and sizes of o.
func (o Options) Discover(ctx context.Context) ([]Target, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	l, err := connect(ctx, &o)
	if err != nil {
		return nil, err
	}
	defer l.conn.Close()
	lg := &login{link: l, opts: &o, discovery: true, isid: o.ISID, cmdSN: o.FirstCmdSN}
	if _, err := lg.run(ctx); err != nil {
		return nil, fmt.Errorf("discover at %s: %w", o.Address, err)
	}
	defer context.AfterFunc(ctx, func() { l.conn.Close() })()
	text, err := lg.sendTargets()
	if err != nil {
		return nil, fmt.Errorf("discover at %s: %w", o.Address, err)
	}
	return parseTargets(text)
}

// sendTargets asks, and collects the answer's PDUs (RFC 7143 section 11.11).
func (l *login) sendTargets() ([]byte, error) {
	var answer []byte
	ask, ttt := encodeKeys([]pair{{"SendTargets", "All"}}), uint32(noTag)
	for range maxRounds {
		h, text, err := l.text(ask, ttt)
		if err != nil {
			return nil, err
		}
		if answer = append(answer, text...); len(answer) > maxText {
			return nil, protocolError("more than %d bytes of text", maxText)
		}
		if h[1]&final != 0 {
			return answer, nil
		}
		ask, ttt = nil, h.u32(atTTT)
	}
	return nil, protocolError("text response in more than %d PDUs", maxRounds)
}

// text sends one text request and reads its response.
func (l *login) text(ask []byte, ttt uint32) (*header, []byte, error) {
	var h header
	h[0], h[1] = opTextRequest|immediate, final
	h.set32(atITT, loginITT+1)
	h.set32(atTTT, ttt)
	h.set32(atCmdSN, l.cmdSN)
	h.set32(atExpStat, l.expStatSN)
	if err := l.out.pdu(&h, nil, ask); err != nil {
		return nil, nil, err
	}
	if err := l.out.w.Flush(); err != nil {
		return nil, nil, err
	}
	if err := l.in.header(&h); err != nil {
		return nil, nil, unexpected(err)
	}
	text, err := l.in.data()
	if err != nil {
		return nil, nil, err
	}
	if h.op() != opTextResponse || h.u32(atITT) != loginITT+1 || h.u32(atStatSN) != l.expStatSN {
		return nil, nil, protocolError("no text response, but % x", h)
	}
	l.expStatSN++
	return &h, text, nil
}

func parseTargets(text []byte) ([]Target, error) {
	keys, err := parseKeys(text)
	if err != nil {
		return nil, err
	}
	var targets []Target
	for _, k := range keys {
		switch {
		case k.key == "TargetName":
			targets = append(targets, Target{Name: k.value})
		case k.key == "TargetAddress" && len(targets) > 0 && strings.Contains(k.value, ","):
			t := &targets[len(targets)-1]
			t.Portals = append(t.Portals, k.value)
		default:
			return nil, protocolError("%s=%.80q in the answer to SendTargets", k.key, k.value)
		}
	}
	return targets, nil
}
