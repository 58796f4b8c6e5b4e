package initiator

import (
	"crypto/md5"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// CHAP is how the two sides prove themselves at a login (RFC 7143 section 12.1.3,
// RFC 1994). The zero value: they do not.
type CHAP struct {
	User, Secret string // ours
	// Target is the secret by which the target has to prove itself, as TargetUser
	// if that is set; "": it has not.
	TargetUser, Target string
	// Algorithms are offered in this order: 5 is MD5, 6 SHA-1, 7 SHA-256, 8 SHA3-256.
	// Default: 8, 7, 6, 5.
	Algorithms []int
	Base64     bool // how binary values are written; default hexadecimal
}

// ErrTargetProof is wrapped by a login's error when the target's proof is wrong.
var ErrTargetProof = errors.New("the target does not prove itself")

// sum is the digest of an algorithm.
func sum(algorithm int, b []byte) []byte {
	switch algorithm {
	case 5:
		d := md5.Sum(b)
		return d[:]
	case 6:
		d := sha1.Sum(b)
		return d[:]
	case 7:
		d := sha256.Sum256(b)
		return d[:]
	case 8:
		d := sha3.Sum256(b)
		return d[:]
	}
	return nil
}

func proof(algorithm int, id byte, secret string, challenge []byte) []byte {
	return sum(algorithm, append(append([]byte{id}, secret...), challenge...))
}

func (c *CHAP) encode(b []byte) string {
	if c.Base64 {
		return "0b" + base64.StdEncoding.EncodeToString(b)
	}
	return "0x" + hex.EncodeToString(b)
}

func decodeBinary(s string) ([]byte, error) {
	if digits, ok := strings.CutPrefix(strings.ToLower(s), "0x"); ok {
		return hex.DecodeString(digits)
	}
	if len(s) > 2 && strings.ToLower(s[:2]) == "0b" {
		return base64.StdEncoding.DecodeString(s[2:])
	}
	return nil, fmt.Errorf("%.20q is no binary value", s)
}

func (c *CHAP) offer() string {
	if len(c.Algorithms) == 0 {
		return "8,7,6,5"
	}
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(c.Algorithms), " ", ","), "[]")
}

// authenticate goes through the security stage, with who we are. The last request
// asks for the next stage.
func (l *login) authenticate(who []pair) error {
	c := &l.opts.CHAP
	if c.User == "" {
		if err := l.stage(stageSecurity, stageOperational, append(who, pair{"AuthMethod", "None"})); err != nil {
			return err
		}
		return l.expect("AuthMethod", "None")
	}
	if err := l.round(false, append(who, pair{"AuthMethod", "CHAP"})); err != nil {
		return err
	}
	if err := l.expect("AuthMethod", "CHAP"); err != nil {
		return err
	}
	if err := l.round(false, []pair{{"CHAP_A", c.offer()}}); err != nil {
		return err
	}
	return l.respond()
}

func (l *login) expect(key, value string) error {
	if v := l.answers[key]; v != value {
		return protocolError("%s=%s was answered by %q", key, value, v)
	}
	return nil
}

// round sends one request of the security stage and reads the answer, which goes on
// if that was asked for, and only then.
func (l *login) round(last bool, keys []pair) error {
	if !last {
		l.remain = true
		defer func() { l.remain = false }()
	}
	if err := l.request(stageSecurity, stageOperational, encodeKeys(keys)); err != nil {
		return err
	}
	_, done, err := l.response(stageSecurity, stageOperational)
	if err == nil && done != last {
		err = protocolError("the target goes on from the security stage: %v; it was asked to: %v", done, last)
	}
	return err
}

// respond answers the target's challenge, sends ours, and checks its answer.
func (l *login) respond() error {
	c := &l.opts.CHAP
	algorithm, err := strconv.Atoi(l.answers["CHAP_A"])
	if err != nil || !strings.Contains(","+c.offer()+",", ","+l.answers["CHAP_A"]+",") {
		return protocolError("CHAP_A=%s was answered by %q", c.offer(), l.answers["CHAP_A"])
	}
	id, err := strconv.ParseUint(l.answers["CHAP_I"], 10, 8)
	if err != nil {
		return protocolError("CHAP_I=%q", l.answers["CHAP_I"])
	}
	theirs, err := decodeBinary(l.answers["CHAP_C"])
	if err != nil || len(theirs) < len(sum(algorithm, nil)) {
		return protocolError("CHAP_C=%q", l.answers["CHAP_C"])
	}
	delete(l.answers, "CHAP_I") // to come again is for the other direction only
	delete(l.answers, "CHAP_C")
	keys := []pair{{"CHAP_N", c.User}, {"CHAP_R", c.encode(proof(algorithm, byte(id), c.Secret, theirs))}}
	ours := make([]byte, 1+len(theirs))
	rand.Read(ours)
	if c.Target != "" {
		keys = append(keys, pair{"CHAP_I", strconv.Itoa(int(ours[0]))}, pair{"CHAP_C", c.encode(ours[1:])})
	}
	if err := l.round(true, keys); err != nil || c.Target == "" {
		return err
	}
	return l.checkProof(proof(algorithm, ours[0], c.Target, ours[1:]))
}

func (l *login) checkProof(want []byte) error {
	got, err := decodeBinary(l.answers["CHAP_R"])
	if err != nil {
		return protocolError("CHAP_R=%q", l.answers["CHAP_R"])
	}
	if string(got) != string(want) {
		return fmt.Errorf("%w: its secret is another one", ErrTargetProof)
	}
	if user := l.opts.CHAP.TargetUser; user != "" && user != l.answers["CHAP_N"] {
		return fmt.Errorf("%w: it is %q", ErrTargetProof, l.answers["CHAP_N"])
	}
	return nil
}
