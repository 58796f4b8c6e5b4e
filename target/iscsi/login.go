package iscsi

import (
	"fmt"
	"net"
	"slices"
	"strconv"

	"github.com/twinlun/twinlun/secret"
	"github.com/twinlun/twinlun/target/sam"
)

// loginStatus is the status class and detail of a login response (RFC 7143
// section 11.13.5).
type loginStatus uint16

const (
	loginSuccess        loginStatus = 0x0000
	loginInitiatorError loginStatus = 0x0200
	loginAuthFailure    loginStatus = 0x0201
	loginForbidden      loginStatus = 0x0202
	loginNotFound       loginStatus = 0x0203
	loginVersion        loginStatus = 0x0205
	loginTooMany        loginStatus = 0x0206
	loginMissing        loginStatus = 0x0207
	loginBadType        loginStatus = 0x0209
	loginNoSession      loginStatus = 0x020a
	loginNoLogin        loginStatus = 0x020b
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

// maxLoginRequests bounds the rounds of a login, and its text in pieces; with mutual
// CHAP it takes 4.
const maxLoginRequests = 64

// login is the state of a login (RFC 7143 section 6.3). It does no I/O: step
// takes a request and returns the response.
//
//	          CSG 0                 CSG 1
//	start ──► security ──T, NSG 1──► operational ──T, NSG 3──► full feature
//	   │         └────────────────T, NSG 3────────────────────────▲
//	   └──────────────► operational (no authentication is wanted)
//
// Nothing leads out of the security stage, or past it, without authentication where
// that is wanted: authenticated stands before every transit, and in open.
type login struct {
	cfg    *Config
	dir    *directory
	via    net.Listener // through which the initiator has come
	random func([]byte) // fills in unpredictable bytes

	started  bool
	first    loginRequest
	requests int
	stage    byte
	text     collector
	out      sender
	seen     map[string]bool // keys that came
	params   params
	declared bool // our MaxRecvDataSegmentLength was sent

	// Known after the first complete text.
	named      bool
	initiator  string
	targetName string
	target     *Target // nil: discovery
	auths      []Auth  // how the initiator may prove itself; at least one

	chap    *chap // since AuthMethod=CHAP was agreed upon
	proving bool  // the present text brings the authentication on
}

// newLogin begins a login. What the directory says now is asked again at the end.
func newLogin(cfg *Config, dir *directory, random func([]byte)) *login {
	return &login{cfg: cfg, dir: dir, random: random, seen: map[string]bool{}, params: defaultParams()}
}

// authenticated tells whether the initiator has proved itself, or need not.
func (l *login) authenticated() bool {
	return l.named && (permits(l.auths, "") || l.chap != nil && l.chap.proven != nil)
}

// user is who the initiator has proved to be; "": it has proved nothing.
func (l *login) user() string {
	if l.chap == nil || l.chap.proven == nil {
		return ""
	}
	return l.chap.proven.Initiator.User
}

// port is the initiator port that logs in.
func (l *login) port() sam.InitiatorPort {
	return sam.InitiatorPort{Name: l.initiator, ISID: l.first.isid}
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
	if err := l.fill(whole); err != nil {
		return r, nil, err
	}
	text, r.cont = l.out.next(loginMaxPDU)
	if q.transit && !r.cont {
		r.transit, err = l.leave(q.next)
		r.next = l.stage
	}
	return r, text, err
}

// fill gets the answer to a text ready, if the one before has been sent.
func (l *login) fill(text []byte) (err error) {
	l.proving = false
	if l.out.pending() {
		if len(text) > 0 {
			return refuse(loginInitiatorError, "keys before the answer to those before was complete")
		}
		l.proving = true // the text before did
		return nil
	}
	l.out.text, err = l.take(text)
	return err
}

// leave goes on to the next stage, as the initiator wants to. False: it must prove
// itself first, and is about to.
func (l *login) leave(next byte) (bool, error) {
	switch {
	case l.authenticated():
		l.stage = next
		return true, nil
	case !l.named:
		return false, refuse(loginMissing, "the login goes on without the names")
	case !l.proving:
		return false, refuse(loginAuthFailure, "the initiator does not authenticate itself, and has to, by CHAP")
	}
	return false, nil
}

func (l *login) checkRequest(q loginRequest) error {
	if !l.started {
		l.started, l.first = true, q
		l.stage = min(q.stage, stageOperational)
	}
	f := &l.first
	l.requests++
	switch {
	case l.requests > maxLoginRequests:
		return refuse(loginInitiatorError, "more than %d requests", maxLoginRequests)
	case q.versionMin > 0:
		return refuse(loginVersion, "the initiator's lowest version is %d, ours is 0", q.versionMin)
	case q.isid != f.isid, q.tsih != f.tsih, q.cid != f.cid, q.tag != f.tag:
		return refuse(loginInitiatorError, "ISID, TSIH, CID or task tag changed within the login")
	case q.stage != l.stage:
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
	var proof []pair // keys of CHAP
	for _, p := range pairs {
		if out, err = l.answer(out, p); err != nil {
			return nil, err
		}
		if slices.Contains(chapKeys, p.key) {
			proof = append(proof, p)
		}
	}
	if len(proof) > 0 {
		if out, err = l.prove(out, proof); err != nil {
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
		l.auths = []Auth{l.dir.discovery}
	case given && kind != "Normal":
		return refuse(loginBadType, "session type %.40q", kind)
	default:
		if err := l.openTarget(pairs); err != nil {
			return err
		}
	}
	if l.stage != stageSecurity && !l.authenticated() {
		return refuse(loginAuthFailure, "the initiator skips authentication, and has to authenticate itself, by CHAP")
	}
	return nil
}

func (l *login) openTarget(pairs []pair) (err error) {
	name, ok := find(pairs, "TargetName")
	if !ok {
		return refuse(loginMissing, "TargetName is missing")
	}
	l.targetName = name
	l.target, l.auths, err = l.dir.admit(name, l.initiator, l.via)
	return err
}

// introduce says who answers.
func (l *login) introduce(out []byte) []byte {
	if l.target == nil {
		return out
	}
	if l.target.Alias != "" {
		out = appendPair(out, "TargetAlias", l.target.Alias)
	}
	return appendPair(out, "TargetPortalGroupTag", strconv.Itoa(int(l.cfg.groupOf(l.target))))
}

// answer negotiates one key; those of CHAP are left to prove.
func (l *login) answer(out []byte, p pair) ([]byte, error) {
	if l.seen[p.key] {
		return nil, refuse(loginInitiatorError, "key %s is negotiated twice", p.key)
	}
	if len(l.seen) == maxKeys {
		return nil, refuse(loginInitiatorError, "more than %d keys", maxKeys)
	}
	l.seen[p.key] = true
	answer, ok := negotiate(&l.params, &l.cfg.Limits, p, l.stage, l.target == nil)
	if !ok {
		return nil, refuse(loginInitiatorError, "key %s in stage %d", p.key, l.stage)
	}
	if p.key == "AuthMethod" {
		var err error
		if answer, err = l.chooseMethod(p.value); err != nil {
			return nil, err
		}
	}
	if answer != "" {
		out = appendPair(out, p.key, answer)
	}
	return out, nil
}

// chooseMethod agrees upon CHAP where a proof is wanted, and upon None elsewhere: we
// would know no secret.
func (l *login) chooseMethod(offered string) (string, error) {
	method := "CHAP"
	if l.authenticated() {
		method = "None"
	}
	if choose(offered, method) != method {
		return "", refuse(loginAuthFailure, "authentication by %.80q is offered; here it is %s", offered, method)
	}
	if method == "CHAP" {
		random := make([]byte, minSecret)
		l.random(random)
		l.chap = &chap{accepted: l.auths, random: l.random, dummy: secret.New(string(random))}
		l.proving = true
	}
	return method, nil
}

// prove takes the keys of CHAP of one text.
func (l *login) prove(out []byte, keys []pair) ([]byte, error) {
	if l.chap == nil {
		return nil, refuse(loginInitiatorError, "key %s without AuthMethod=CHAP being agreed upon", keys[0].key)
	}
	l.proving = true
	return l.chap.step(out, keys)
}
