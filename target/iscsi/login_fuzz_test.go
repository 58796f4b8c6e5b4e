package iscsi

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/twinlun/twinlun/secret"
)

// loginScript lets fuzz input loose on the login machine. Each request is a byte that
// says what its text is, a byte of flags and stages, and, for a text of its own, a
// byte of length and the text.
type loginScript struct {
	t       *testing.T
	l       *login
	secrets []string // that must not show

	need      bool // a proof is needed to get on
	proved    bool // the right response was sent
	challenge []byte
	id        byte
	algorithm string
}

// Texts that a request may have; the others are taken from the input.
const (
	textNames = iota
	textNamesAndCHAP
	textDiscovery
	textMethod
	textAlgorithms
	textProof
	textMutualProof
	textWrongProof
	textReflected
	textNothing
	textOwn
)

func (s *loginScript) text(kind byte, in []byte) (text, rest []byte) {
	names := []string{hostName, "TargetName=" + testIQN}
	response := func(text string) string {
		a := chooseAlgorithm(s.algorithm)
		if a == nil {
			return "CHAP_R=0x00"
		}
		return "CHAP_R=" + formatBinary(a.response(s.id, secret.New(text), s.challenge))
	}
	right := response("correct horse battery")
	switch kind % (textOwn + 1) {
	case textNames:
		return keys(names...), in
	case textNamesAndCHAP:
		return keys(append(names, "AuthMethod=CHAP,None")...), in
	case textDiscovery:
		return keys(hostName, "SessionType=Discovery", "AuthMethod=CHAP"), in
	case textMethod:
		return keys("AuthMethod=CHAP"), in
	case textAlgorithms:
		return keys("CHAP_A=5,6,7,8"), in
	case textProof:
		s.proved = s.proved || s.challenge != nil
		return keys("CHAP_N=host", right), in
	case textMutualProof:
		s.proved = s.proved || s.challenge != nil
		return keys("CHAP_N=host", right, "CHAP_I=9", "CHAP_C=0x0102030405060708"), in
	case textWrongProof:
		return keys("CHAP_N=host", response("incorrect horse battery")), in
	case textReflected:
		return keys("CHAP_N=host", right, "CHAP_I=9", "CHAP_C="+formatBinary(s.challenge)), in
	case textNothing:
		return nil, in
	}
	if len(in) == 0 {
		return nil, nil
	}
	n := min(int(in[0])*4, len(in)-1)
	return in[1 : 1+n], in[1+n:]
}

// run sends the requests until one is refused, or the login is complete.
func (s *loginScript) run(in []byte) {
	h := header{0: bitImmediate | opLogin}
	for len(in) >= 2 && s.l.stage != stageFullFeature {
		kind, flags := in[0], in[1]
		var text []byte
		text, in = s.text(kind, in[2:])
		h[1] = flags
		r, out, err := s.l.step(parseLoginRequest(&h), text)
		s.check(&r, out, err)
		if err != nil {
			return
		}
		s.learn(out)
	}
}

// check looks for what must never be.
func (s *loginScript) check(r *loginResponse, out []byte, err error) {
	var refused *loginError
	switch {
	case err != nil && (!errors.As(err, &refused) || refused.status == loginSuccess || refused.why == ""):
		s.t.Fatalf("error %v", err)
	case len(out) > loginMaxPDU:
		s.t.Fatalf("%d bytes of text", len(out))
	case r.transit && r.cont:
		s.t.Fatal("T and C in one response")
	case s.need && !s.proved && (s.l.authenticated() || r.transit && err == nil || s.l.stage == stageFullFeature || err == nil && s.l.stage == stageOperational && s.l.named):
		s.t.Fatalf("let on without a proof, to stage %d", s.l.stage)
	case s.l.stage == stageFullFeature && (s.l.initiator == "" || len(s.l.auths) == 0):
		s.t.Fatal("complete, and nobody has been let in")
	}
	for _, secret := range s.secrets {
		if bytes.Contains(out, []byte(secret)) || err != nil && strings.Contains(err.Error(), secret) {
			s.t.Fatalf("a secret shows: %q, %v", out, err)
		}
	}
	if !s.proved && bytes.Contains(out, []byte("CHAP_R=")) {
		s.t.Fatalf("we prove ourselves first: %q", out)
	}
}

// learn takes the challenge out of an answer.
func (s *loginScript) learn(out []byte) {
	pairs, err := parseText(out)
	if err != nil {
		s.t.Fatalf("the answer is no text: %q", out)
	}
	if a, ok := find(pairs, "CHAP_A"); ok {
		id, _ := find(pairs, "CHAP_I")
		n, _ := parseNumber(id)
		c, _ := find(pairs, "CHAP_C")
		s.algorithm, s.id = a, byte(n)
		if s.challenge, ok = parseBinary(c); !ok || len(s.challenge) < 16 {
			s.t.Fatalf("challenge %q", c)
		}
	}
}

// FuzzLogin lets whole logins loose on the machine: to a target that is open, that
// wants one proof, or both. Only the right response leads out of the security stage.
func FuzzLogin(f *testing.F) {
	const out, straight, stay = bitFinal | stageOperational, bitFinal | stageOperational<<2 | stageFullFeature, 0
	f.Add(byte(0), []byte{textNames, straight})
	f.Add(byte(0), []byte{textNames, out, textNothing, straight})
	f.Add(byte(1), []byte{textNamesAndCHAP, out, textAlgorithms, stay, textProof, out, textNothing, straight})
	f.Add(byte(2), []byte{textNamesAndCHAP, stay, textAlgorithms, stay, textMutualProof, bitFinal | stageFullFeature})
	f.Add(byte(2), []byte{textNamesAndCHAP, stay, textAlgorithms, stay, textReflected, out})
	f.Add(byte(2), []byte{textNamesAndCHAP, stay, textAlgorithms, stay, textWrongProof, out})
	f.Add(byte(1), []byte{textDiscovery, stay, textAlgorithms, stay, textProof, out})
	f.Add(byte(1), append([]byte{textNames, stay, textOwn, out, 6}, "AuthMethod=None\x00HeaderDigest=None"...))
	f.Fuzz(func(t *testing.T, kind byte, in []byte) { fuzzLogin(t, kind, in) })
}

func fuzzLogin(t *testing.T, kind byte, in []byte) *loginScript {
	auth := []Auth{{}, oneWay, mutual}[kind%3]
	d, err := newDirectory([]Target{{Name: testIQN, Device: newDisk(1), Access: []Access{{"*", auth}}}}, auth)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{}
	cfg.Limits.setDefaults()
	// Every input has random bytes of its own, which it cannot foresee.
	random := rand.NewChaCha8(sha256.Sum256(append([]byte("login"), in...)))
	s := &loginScript{t: t, need: auth.Initiator.set(), secrets: []string{"correct horse battery", "the target proves it"}}
	for _, secret := range s.secrets {
		s.secrets = append(s.secrets, hex.EncodeToString([]byte(secret)))
	}
	s.l = newLogin(&cfg, d, func(p []byte) { _, _ = random.Read(p) })
	s.run(in)
	return s
}

// TestRandomLogins does what the fuzzer does, for those that do not run it, and sees
// to it that the scripts get somewhere.
func TestRandomLogins(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	flags := []byte{0, 0, bitFinal | stageOperational, bitFinal | stageFullFeature, bitFinal | stageOperational<<2 | stageFullFeature, bitContinue}
	var complete, proved [3]int
	for k := range 20000 {
		in := make([]byte, 0, 16)
		for range rng.IntN(8) {
			in = append(in, byte(rng.IntN(textOwn)), flags[rng.IntN(len(flags))])
		}
		s := fuzzLogin(t, byte(k%3), in)
		if s.l.stage == stageFullFeature {
			complete[k%3]++
		}
		if s.l.user() != "" {
			proved[k%3]++
		}
	}
	if complete[0] == 0 || complete[1] == 0 || complete[2] == 0 || proved[0] != 0 || proved[1] < complete[1] || proved[2] < complete[2] {
		t.Errorf("%d logins were completed, %d proved something, without, with one and with both proofs", complete, proved)
	}
}
