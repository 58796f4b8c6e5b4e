package initiator

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
)

// Login stages (RFC 7143 section 11.12.3).
const (
	stageSecurity    = 0
	stageOperational = 1
	stageFull        = 3

	transit  = 0x80
	goesOn   = 0x40
	loginITT = 0x10
	// maxRounds bounds a login; every one needs 2 or 3.
	maxRounds = 32
)

// link is a connection with its two ends, before and after login.
type link struct {
	conn net.Conn
	in   receiver
	out  sender
}

// connect dials. The link reads no data segment above 8192 bytes until the login
// has ended (RFC 7143 section 13.12).
func connect(ctx context.Context, o *Options) (*link, error) {
	dial := o.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	conn, err := dial(ctx, "tcp", o.Address)
	if err != nil {
		return nil, fmt.Errorf("connect to portal %s: %w", o.Address, err)
	}
	return newLink(conn), nil
}

func newLink(conn net.Conn) *link {
	return &link{
		conn: conn,
		in:   receiver{r: bufio.NewReaderSize(conn, 128<<10), maxData: 8192},
		out:  sender{w: bufio.NewWriterSize(conn, 64<<10)},
	}
}

// login carries one login through.
type login struct {
	*link
	opts      *Options
	discovery bool
	isid      [6]byte
	cmdSN     uint32
	expStatSN uint32
	maxCmdSN  uint32
	tsih      uint16
	started   bool // a response was received
	remain    bool // requests do not ask for the next stage
	answers   map[string]string
}

// run logs in, and returns what was agreed. When ctx ends the connection is cut.
func (l *login) run(ctx context.Context) (Params, error) {
	defer context.AfterFunc(ctx, func() { l.conn.Close() })()
	p, err := l.stages()
	if ctx.Err() != nil && err != nil {
		return p, fmt.Errorf("login: %w", context.Cause(ctx))
	}
	if err != nil {
		var refused *LoginError
		if errors.As(err, &refused) {
			refused.TargetAddress = l.answers["TargetAddress"]
		}
		return p, fmt.Errorf("login: %w", err)
	}
	p.TSIH = l.tsih
	l.in.headerDigest, l.out.headerDigest = p.HeaderDigest, p.HeaderDigest
	l.in.dataDigest, l.out.dataDigest = p.DataDigest, p.DataDigest
	l.in.maxData = l.opts.MaxRecvDataSegmentLength
	return p, nil
}

func (l *login) stages() (Params, error) {
	l.answers = map[string]string{}
	who := []pair{{"InitiatorName", l.opts.InitiatorIQN}, {"SessionType", "Discovery"}}
	if !l.discovery {
		who[1].value = "Normal"
		who = append(who, pair{"TargetName", l.opts.TargetIQN})
	}
	if l.opts.SkipSecurity {
		err := l.stage(stageOperational, stageFull, append(who, l.opts.offer(l.discovery)...))
		return l.agreed(err)
	}
	if err := l.authenticate(who); err != nil {
		return Params{}, err
	}
	return l.agreed(l.stage(stageOperational, stageFull, l.opts.offer(l.discovery)))
}

func (l *login) agreed(err error) (Params, error) {
	if err != nil {
		return Params{}, err
	}
	if l.tsih == 0 {
		return Params{}, protocolError("the last login response has TSIH 0 (section 11.13.3)")
	}
	return l.opts.agree(l.answers, l.discovery)
}

// stage goes through one stage of the login with the keys of ours.
func (l *login) stage(stage, next byte, keys []pair) error {
	for range maxRounds {
		if err := l.request(stage, next, encodeKeys(keys)); err != nil {
			return err
		}
		theirs, done, err := l.response(stage, next)
		if err != nil || done {
			return err
		}
		keys = l.reply(theirs)
	}
	return protocolError("login takes more than %d rounds", maxRounds)
}

// reply answers what the target has proposed on its own. What we know, we have
// proposed ourselves; so this is a key that we do not know, or a declaration.
func (l *login) reply(theirs []pair) []pair {
	var keys []pair
	offered := append(l.opts.offer(false), pair{"AuthMethod", ""})
	for _, k := range theirs {
		known := k.key == "TargetAlias" || k.key == "TargetPortalGroupTag" || k.key == "TargetAddress"
		for _, o := range offered {
			known = known || o.key == k.key
		}
		if !known {
			keys = append(keys, pair{k.key, "NotUnderstood"})
		}
	}
	return keys
}

func (l *login) request(stage, next byte, text []byte) error {
	var h header
	h[0] = opLoginRequest | immediate
	h[1] = transit | stage<<2 | next
	if l.remain {
		h[1] = stage << 2
	}
	copy(h[8:14], l.isid[:])
	h.set32(atITT, loginITT)
	h.set32(atCmdSN, l.cmdSN)
	h.set32(atExpStat, l.expStatSN)
	if err := l.out.pdu(&h, nil, text); err != nil {
		return err
	}
	return l.out.w.Flush()
}

// response reads one answer, which may come in several PDUs, and takes its keys
// over. It tells whether the stage is done.
func (l *login) response(stage, next byte) (theirs []pair, done bool, err error) {
	var text []byte
	for range maxRounds {
		h, part, err := l.responsePDU(stage)
		if err != nil {
			return nil, false, err
		}
		if text = append(text, part...); len(text) > maxText {
			return nil, false, protocolError("more than %d bytes of text", maxText)
		}
		if h[1]&goesOn == 0 {
			theirs, err = l.take(text)
			if h[36] != 0 {
				return nil, false, &LoginError{Class: h[36], Detail: h[37]}
			}
			done = h[1]&transit != 0
			if done && h[1]&3 != next {
				err = protocolError("login response goes to stage %d, we asked for %d", h[1]&3, next)
			}
			return theirs, done, err
		}
		if err := l.request(stage, next, nil); err != nil {
			return nil, false, err
		}
	}
	return nil, false, protocolError("login text in more than %d PDUs", maxRounds)
}

// responsePDU reads one login response and checks its header.
func (l *login) responsePDU(stage byte) (*header, []byte, error) {
	var h header
	if err := l.in.header(&h); err != nil {
		return nil, nil, unexpected(err)
	}
	text, err := l.in.data()
	if err != nil {
		return nil, nil, err
	}
	switch {
	case h.op() != opLoginResponse:
		return nil, nil, protocolError("PDU %#02x during login", h.op())
	case h.u32(atITT) != loginITT:
		return nil, nil, protocolError("login response with task tag %#x", h.u32(atITT))
	case h[36] == 0 && h[1]>>2&3 != stage:
		return nil, nil, protocolError("login response for stage %d in stage %d", h[1]>>2&3, stage)
	case h[36] == 0 && [6]byte(h[8:14]) != l.isid:
		return nil, nil, protocolError("login response with another ISID: %x", h[8:14])
	case h[36] == 0 && l.started && h.u32(atStatSN) != l.expStatSN:
		return nil, nil, protocolError("login response with StatSN %d, expected %d", h.u32(atStatSN), l.expStatSN)
	}
	l.started = true
	l.expStatSN = h.u32(atStatSN) + 1
	l.maxCmdSN = h.u32(atMaxCmd)
	l.tsih = uint16(h[14])<<8 | uint16(h[15])
	return &h, text, nil
}

// take adds the keys of a response to the answers.
func (l *login) take(text []byte) ([]pair, error) {
	keys, err := parseKeys(text)
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		if old, twice := l.answers[k.key]; twice {
			return nil, protocolError("%s=%s, and before %s: negotiated twice", k.key, k.value, old)
		}
		l.answers[k.key] = k.value
	}
	return keys, nil
}
