package iscsi

import (
	"fmt"
	"strconv"
)

// loginStatus is the status class and detail of a login response (RFC 7143
// section 11.13.5).
type loginStatus uint16

const (
	loginSuccess        loginStatus = 0x0000
	loginInitiatorError loginStatus = 0x0200
	loginAuthFailure    loginStatus = 0x0201
	loginNotFound       loginStatus = 0x0203
	loginVersion        loginStatus = 0x0205
	loginTooMany        loginStatus = 0x0206
	loginMissing        loginStatus = 0x0207
	loginBadType        loginStatus = 0x0209
	loginNoSession      loginStatus = 0x020a
	loginTargetError    loginStatus = 0x0300
	loginUnavailable    loginStatus = 0x0301
	loginResources      loginStatus = 0x0302
)

// loginError is why a login fails.
type loginError struct {
	status loginStatus
	why    string
}

func (e *loginError) Error() string {
	return fmt.Sprintf("login refused with status %#04x: %s", uint16(e.status), e.why)
}

func refuse(status loginStatus, format string, a ...any) error {
	return &loginError{status, fmt.Sprintf(format, a...)}
}

// login is the state of a login (RFC 7143 section 6.3). It does no I/O: step
// takes a request and returns the response.
//
//	          CSG 0                 CSG 1
//	start ──► security ──T, NSG 1──► operational ──T, NSG 3──► full feature
//	   │         └────────────────T, NSG 3────────────────────────▲
//	   └──────────────► operational (no authentication is wanted)
type login struct {
	cfg *Config

	started  bool
	first    loginRequest
	stage    byte
	text     collector
	seen     map[string]bool // keys that came
	params   params
	declared bool // our MaxRecvDataSegmentLength was sent

	// Known after the first complete text.
	named     bool
	initiator string
	target    *Target // nil: discovery
}

func newLogin(cfg *Config) *login {
	return &login{cfg: cfg, seen: map[string]bool{}, params: defaultParams()}
}

// step takes a request with its data. An error is a *loginError; the response
// then wants just its status set. When stage is stageFullFeature afterwards, the
// login is complete.
func (l *login) step(q loginRequest, data []byte) (r loginResponse, text []byte, err error) {
	r = loginResponse{stage: q.stage, isid: q.isid, tsih: q.tsih, tag: q.tag}
	if err := l.checkRequest(q); err != nil {
		return r, nil, err
	}
	whole, complete, err := l.text.add(data, q.cont)
	if err != nil {
		return r, nil, refuse(loginInitiatorError, "%v", err)
	}
	if !complete {
		return r, nil, nil
	}
	if text, err = l.take(whole); err != nil {
		return r, nil, err
	}
	if q.transit {
		l.stage = q.next
		r.transit, r.next = true, q.next
	}
	return r, text, nil
}

func (l *login) checkRequest(q loginRequest) error {
	if !l.started {
		l.started, l.first, l.stage = true, q, q.stage
	}
	f := &l.first
	switch {
	case q.versionMin > 0:
		return refuse(loginVersion, "the initiator's lowest version is %d, ours is 0", q.versionMin)
	case q.isid != f.isid, q.tsih != f.tsih, q.cid != f.cid, q.tag != f.tag:
		return refuse(loginInitiatorError, "ISID, TSIH, CID or task tag changed within the login")
	case q.stage != l.stage, q.stage > stageOperational:
		return refuse(loginInitiatorError, "stage %d where %d was expected", q.stage, l.stage)
	case q.transit && q.cont:
		return refuse(loginInitiatorError, "request with both T and C")
	case q.transit && (q.next <= q.stage || q.next == 2):
		return refuse(loginInitiatorError, "transit from stage %d to %d", q.stage, q.next)
	}
	return nil
}

// take answers a complete text.
func (l *login) take(text []byte) (out []byte, err error) {
	pairs, err := parseText(text)
	if err != nil {
		return nil, refuse(loginInitiatorError, "%v", err)
	}
	if !l.named {
		if err := l.open(pairs); err != nil {
			return nil, err
		}
		out = l.introduce(out)
	}
	for _, p := range pairs {
		if out, err = l.answer(out, p); err != nil {
			return nil, err
		}
	}
	if l.stage == stageOperational && !l.declared {
		l.declared = true
		out = appendPair(out, "MaxRecvDataSegmentLength", strconv.Itoa(int(l.cfg.Limits.MaxRecvDataSegmentLength)))
	}
	return out, nil
}

// open takes the names that must stand in the first request (RFC 7143 sections
// 6.3 and 13.4 to 13.5, 13.21).
func (l *login) open(pairs []pair) error {
	l.named = true
	initiator, ok := find(pairs, "InitiatorName")
	if !ok || initiator == "" {
		return refuse(loginMissing, "InitiatorName is missing")
	}
	if !isName(initiator) {
		return refuse(loginInitiatorError, "%.80q is no iSCSI name", initiator)
	}
	l.initiator = initiator
	switch kind, given := find(pairs, "SessionType"); {
	case kind == "Discovery":
		return nil
	case given && kind != "Normal":
		return refuse(loginBadType, "session type %.40q", kind)
	}
	return l.openTarget(pairs)
}

func (l *login) openTarget(pairs []pair) error {
	name, ok := find(pairs, "TargetName")
	if !ok {
		return refuse(loginMissing, "TargetName is missing")
	}
	for i := range l.cfg.Targets {
		if l.cfg.Targets[i].Name == name {
			l.target = &l.cfg.Targets[i]
			return nil
		}
	}
	return refuse(loginNotFound, "there is no target %.223q here", name)
}

// introduce says who answers.
func (l *login) introduce(out []byte) []byte {
	if l.target == nil {
		return out
	}
	if l.target.Alias != "" {
		out = appendPair(out, "TargetAlias", l.target.Alias)
	}
	return appendPair(out, "TargetPortalGroupTag", strconv.Itoa(int(l.cfg.PortalGroup)))
}

// answer negotiates one key. Authentication comes in here: what AuthMethod is
// agreed upon decides which keys must follow before security is left.
func (l *login) answer(out []byte, p pair) ([]byte, error) {
	if l.seen[p.key] {
		return nil, refuse(loginInitiatorError, "key %s is negotiated twice", p.key)
	}
	if len(l.seen) == maxKeys {
		return nil, refuse(loginInitiatorError, "more than %d keys", maxKeys)
	}
	l.seen[p.key] = true
	answer, ok := negotiate(&l.params, &l.cfg.Limits, p, l.stage, l.target == nil)
	switch {
	case !ok:
		return nil, refuse(loginInitiatorError, "key %s in stage %d", p.key, l.stage)
	case p.key == "AuthMethod" && answer == answerReject:
		return nil, refuse(loginAuthFailure, "no authentication method of %.80q is offered here", p.value)
	case answer != "":
		out = appendPair(out, p.key, answer)
	}
	return out, nil
}
