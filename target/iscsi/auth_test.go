package iscsi

import (
	"crypto/md5"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"github.com/twinlun/twinlun/test/logs"
)

// guarded is a rig whose target and discovery want CHAP, and its log.
func guarded(t *testing.T, auth, discovery Auth) (*rig, *logs.Text) {
	t.Helper()
	log := new(logs.Text)
	return newRig(t, Limits{}, func(c *Config) {
		c.Log, c.Discovery = log.Logger(), discovery
		c.Targets[0].Access = []Access{{"iqn.2024-01.com.example:*", auth}}
	}), log
}

// set gives the rig's target another access list.
func (r *rig) set(discovery Auth, list ...Access) {
	r.t.Helper()
	target := r.target()
	target.Access = list
	if err := r.srv.SetTargets(r.t.Context(), []Target{target}, discovery); err != nil {
		r.t.Fatal(err)
	}
}

// secure sends a request of the security stage, and returns its answer.
func (i *initiator) secure(transit bool, text ...string) *received {
	i.t.Helper()
	i.send(i.loginHeader(stageSecurity, stageOperational, transit), keys(text...))
	return i.recv(opLoginResp)
}

// status is that of a login response.
func (r *received) loginStatus() loginStatus { return loginStatus(r.u16(36)) }

// value is that of a key in a login response.
func (i *initiator) value(r *received, key string) string {
	i.t.Helper()
	pairs, err := parseText(r.data)
	v, ok := find(pairs, key)
	if err != nil || !ok {
		i.t.Fatalf("no %s in % x %q", key, r.header, r.data)
	}
	return v
}

// challenged starts CHAP with an algorithm, and returns identifier and challenge.
func (i *initiator) challenged(algorithm string) (id byte, challenge []byte) {
	i.t.Helper()
	if r := i.secure(true, hostName, "TargetName="+testIQN, "AuthMethod=None,CHAP"); i.value(r, "AuthMethod") != "CHAP" || r.flag(bitFinal) {
		i.t.Fatalf("% x %q", r.header, r.data)
	}
	r := i.secure(false, "CHAP_A="+algorithm)
	n, _ := parseNumber(i.value(r, "CHAP_I"))
	challenge, ok := parseBinary(i.value(r, "CHAP_C"))
	if !ok || r.flag(bitFinal) {
		i.t.Fatalf("% x %q", r.header, r.data)
	}
	return byte(n), challenge
}

// digestText is the SHA-256 or MD5 of a response, in hexadecimal digits.
func digestText(algorithm string, id byte, secret string, challenge []byte) string {
	in := append(append([]byte{id}, secret...), challenge...)
	if algorithm == "5" {
		return fmt.Sprintf("0x%x", md5.Sum(in))
	}
	return fmt.Sprintf("0x%x", sha256.Sum256(in))
}

// TestCHAPLogin: one way and mutual, by the wire, up to a working session.
func TestCHAPLogin(t *testing.T) {
	r, log := guarded(t, mutual, Auth{})
	for _, algorithm := range []string{"5", "7"} {
		for _, both := range []bool{false, true} {
			i := r.dial()
			id, challenge := i.challenged(algorithm)
			proof := []string{"CHAP_N=host", "CHAP_R=" + digestText(algorithm, id, "correct horse battery", challenge)}
			if both {
				proof = append(proof, "CHAP_I=200", "CHAP_C=0x"+strings.Repeat("deadbeef", 4))
			}
			got := i.secure(true, proof...)
			if got.loginStatus() != loginSuccess || got.header[1] != bitFinal|stageOperational {
				t.Fatalf("algorithm %s: % x", algorithm, got.header)
			}
			if both && i.value(got, "CHAP_R") != digests[algorithm].proof || !both && len(got.data) > 0 {
				t.Errorf("algorithm %s, mutual %v: %q", algorithm, both, got.data)
			}
			i.send(i.loginHeader(stageOperational, stageFullFeature, true), nil)
			if got := i.recv(opLoginResp); got.loginStatus() != loginSuccess || got.u16(14) == 0 {
				t.Fatalf("% x", got.header)
			}
			i.echo()
			i.logout()
		}
	}
	if text := log.String(); !strings.Contains(text, `msg="iscsi: session opened"`) || !strings.Contains(text, "user=host") {
		t.Errorf("the log does not tell who logged in:\n%s", text)
	}
}

// TestChallengesDiffer over many logins.
func TestChallengesDiffer(t *testing.T) {
	r, _ := guarded(t, oneWay, Auth{})
	seen := map[string]bool{}
	for range 32 {
		i := r.dial()
		_, challenge := i.challenged("5,7")
		if seen[string(challenge)] || len(challenge) != 32 {
			t.Fatalf("challenge %x", challenge)
		}
		seen[string(challenge)] = true
		i.conn.Close()
		i.closed()
	}
}

// TestNoWayAroundCHAP tries to get past the security stage without a proof. Each
// line of the scripts is a request: stages, T bit, text.
func TestNoWayAroundCHAP(t *testing.T) {
	type request struct {
		stage, next byte
		transit     bool
		text        []byte
	}
	names := []string{hostName, "TargetName=" + testIQN}
	with := func(more ...string) []byte { return keys(append(names[:2:2], more...)...) }
	const sec, op, full = stageSecurity, stageOperational, stageFullFeature
	for name, c := range map[string]struct {
		script []request
		want   loginStatus // of the last answer
	}{
		"straight to the operational stage": {[]request{{op, full, true, with()}}, loginAuthFailure},
		"operational stage, no transit":     {[]request{{op, full, false, with("HeaderDigest=None")}}, loginAuthFailure},
		"no AuthMethod":                     {[]request{{sec, op, true, with()}}, loginAuthFailure},
		"no AuthMethod, to the end":         {[]request{{sec, full, true, with()}}, loginAuthFailure},
		"None":                              {[]request{{sec, op, true, with("AuthMethod=None")}}, loginAuthFailure},
		"None and others":                   {[]request{{sec, op, true, with("AuthMethod=SRP,None,KRB5")}}, loginAuthFailure},
		"CHAP, and on without it":           {[]request{{sec, op, true, with("AuthMethod=CHAP")}, {sec, op, true, nil}}, loginAuthFailure},
		"CHAP, and to the next stage":       {[]request{{sec, op, true, with("AuthMethod=CHAP")}, {op, full, true, nil}}, loginInitiatorError},
		"challenge, and on without answer":  {[]request{{sec, op, true, with("AuthMethod=CHAP")}, {sec, op, false, keys("CHAP_A=5")}, {sec, full, true, nil}}, loginAuthFailure},
		"challenge, and to the next stage":  {[]request{{sec, op, true, with("AuthMethod=CHAP")}, {sec, op, true, keys("CHAP_A=5")}, {op, full, true, nil}}, loginInitiatorError},
		"None after CHAP":                   {[]request{{sec, op, false, with("AuthMethod=CHAP")}, {sec, op, true, keys("AuthMethod=None")}}, loginInitiatorError},
		"CHAP keys without AuthMethod":      {[]request{{sec, op, true, with("CHAP_A=5")}}, loginInitiatorError},
		"response without challenge":        {[]request{{sec, op, true, with("AuthMethod=CHAP", "CHAP_N=host", "CHAP_R=0x00")}}, loginInitiatorError},
		"names later":                       {[]request{{sec, op, false, nil}}, loginMissing},
		"another target later":              {[]request{{sec, op, false, with("AuthMethod=CHAP")}, {sec, op, false, keys("TargetName=" + testIQN)}}, loginInitiatorError},
		"discovery afterwards":              {[]request{{sec, op, false, with("AuthMethod=CHAP")}, {sec, op, true, keys("SessionType=Discovery")}}, loginAuthFailure},
		"a name that is not on the list":    {[]request{{sec, op, true, keys("InitiatorName=iqn.2024-02.com.example:host", "TargetName="+testIQN, "AuthMethod=CHAP")}}, loginForbidden},
	} {
		r, _ := guarded(t, oneWay, Auth{})
		i := r.dial()
		for k, q := range c.script {
			i.send(i.loginHeader(q.stage, q.next, q.transit), q.text)
			got := i.recv(opLoginResp)
			if got.flag(bitFinal) || got.u16(14) != 0 {
				t.Errorf("%s: request %d leads on: % x", name, k, got.header)
			}
			if last := k == len(c.script)-1; last && got.loginStatus() != c.want || !last && got.loginStatus() != loginSuccess {
				t.Errorf("%s: request %d: % x, wanted %#04x at the end", name, k, got.header, uint16(c.want))
			}
		}
		i.closed()
		if r.disk.open() != 0 || len(r.srv.sessions.all()) != 0 {
			t.Errorf("%s: there is a session", name)
		}
	}
}

// TestLoginFailureIsLogged: one line, with who, from where, and why.
func TestLoginFailureIsLogged(t *testing.T) {
	r, log := guarded(t, oneWay, Auth{})
	i := r.dial()
	id, challenge := i.challenged("7")
	if got := i.secure(true, "CHAP_N=host", "CHAP_R="+digestText("7", id, "incorrect horse battery", challenge)); got.loginStatus() != loginAuthFailure {
		t.Fatalf("% x", got.header)
	}
	i.closed()
	text := log.String()
	for _, want := range []string{
		"level=WARN", `msg="iscsi: login refused"`, "peer=" + i.conn.LocalAddr().String(), "initiator=iqn.2024-01.com.example:host",
		"target=" + testIQN, "status=0x0201", `why="the secret of CHAP user \"host\" is wrong"`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in the log:\n%s", want, text)
		}
	}
	if n := strings.Count(text, "\n"); n != 1 || strings.Contains(text, "horse") {
		t.Errorf("%d lines:\n%s", n, text)
	}
}

// TestDiscoveryByCHAP: its own secret, and only what the initiator may use.
func TestDiscoveryByCHAP(t *testing.T) {
	r, _ := guarded(t, user("somebody"), oneWay)
	other := Target{Name: testIQN + "2", Device: r.disk, Access: []Access{{"iqn.2024-02.*", Auth{}}}}
	if err := r.srv.SetTargets(t.Context(), []Target{r.target(), other}, oneWay); err != nil {
		t.Fatal(err)
	}
	i := r.dial()
	i.send(i.loginHeader(stageOperational, stageFullFeature, true), keys(hostName, "SessionType=Discovery"))
	if got := i.recv(opLoginResp); got.loginStatus() != loginAuthFailure {
		t.Fatalf("% x", got.header)
	}
	i.closed()

	i = r.dial()
	i.secure(true, hostName, "SessionType=Discovery", "AuthMethod=CHAP")
	got := i.secure(true, "CHAP_A=7")
	id, _ := parseNumber(i.value(got, "CHAP_I"))
	challenge, _ := parseBinary(i.value(got, "CHAP_C"))
	i.secure(true, "CHAP_N=host", "CHAP_R="+digestText("7", byte(id), "correct horse battery", challenge))
	i.send(i.loginHeader(stageOperational, stageFullFeature, true), nil)
	if got := i.recv(opLoginResp); got.loginStatus() != loginSuccess {
		t.Fatalf("% x", got.header)
	}
	for ask, want := range map[string]bool{"All": true, testIQN: true, testIQN + "2": false} {
		answer := string(i.text(keys("SendTargets=" + ask)))
		if got := strings.Contains(answer, "TargetName="+testIQN+"\x00"); got != want || strings.Contains(answer, testIQN+"2") {
			t.Errorf("SendTargets=%s: %q", ask, answer)
		}
	}
	i.logout()
}

// prove logs in to the end as a user, and returns the last answer.
func (i *initiator) prove(user, secret string) *received {
	i.t.Helper()
	id, challenge := i.challenged("7")
	r := i.secure(true, "CHAP_N="+user, "CHAP_R="+digestText("7", id, secret, challenge))
	if r.loginStatus() != loginSuccess {
		return r
	}
	i.send(i.loginHeader(stageOperational, stageFullFeature, true), nil)
	return i.recv(opLoginResp)
}

// TestNameOfAnother: where several users may have any name, none of them ends the
// session of another by taking its name.
func TestNameOfAnother(t *testing.T) {
	r := newRig(t, Limits{}, func(c *Config) {
		c.Targets[0].Access = []Access{{"*", user("one")}, {"*", user("two")}}
	})
	one := r.dial()
	if got := one.prove("one", "a secret of one"); got.loginStatus() != loginSuccess {
		t.Fatalf("% x", got.header)
	}
	if got := r.dial().prove("two", "a secret of two"); got.loginStatus() != loginForbidden {
		t.Errorf("% x", got.header)
	}
	one.echo()
	if got := r.dial().prove("one", "a secret of one"); got.loginStatus() != loginSuccess {
		t.Errorf("% x", got.header)
	}
	one.closed()
}
