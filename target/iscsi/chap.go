package iscsi

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/subtle"
	"hash"
	"strconv"
	"strings"

	"github.com/twinlun/twinlun/secret"
)

// algorithm is a digest of CHAP, by its number in the IANA registry of PPP
// authentication algorithms.
type algorithm struct {
	number string
	hash   func() hash.Hash
}

// algorithms are those we have, the strongest first.
var algorithms = []algorithm{
	{"8", func() hash.Hash { return sha3.New256() }},
	{"7", sha256.New},
	{"6", sha1.New},
	{"5", md5.New},
}

// response is the digest of identifier, secret and challenge (RFC 1994 section 4.1).
func (a *algorithm) response(id byte, shared secret.Text, challenge []byte) []byte {
	h := a.hash()
	h.Write([]byte{id})
	h.Write([]byte(shared.Reveal()))
	h.Write(challenge)
	return h.Sum(nil)
}

// chap is one authentication by CHAP (RFC 7143 section 12.1.3). Each arrow is a
// step with the keys of one text:
//
//	          CHAP_A                 CHAP_N CHAP_R [CHAP_I CHAP_C]
//	begin ───────────────► challenged ───────────────────────────► proven
//	 answer: CHAP_A CHAP_I CHAP_C      answer: [CHAP_N CHAP_R]
//
// Any other text ends the login.
type chap struct {
	// accepted are the users that may log in, at least one; each with what the
	// target proves itself by.
	accepted []Auth
	random   func([]byte) // fills in unpredictable bytes
	dummy    secret.Text  // random, for users that do not exist

	algorithm *algorithm
	id        byte
	challenge []byte // ours; nil: not sent yet
	proven    *Auth  // the one that the initiator proved to be
}

// chapKeys are the keys that belong to CHAP.
var chapKeys = []string{"CHAP_A", "CHAP_I", "CHAP_C", "CHAP_N", "CHAP_R"}

// step takes the CHAP keys of a text and appends the answer.
func (c *chap) step(out []byte, keys []pair) ([]byte, error) {
	switch {
	case c.proven != nil:
		return nil, refuse(loginInitiatorError, "CHAP goes on after its end")
	case c.challenge == nil:
		return c.begin(out, keys)
	}
	return c.finish(out, keys)
}

// begin chooses the algorithm and makes the challenge.
func (c *chap) begin(out []byte, keys []pair) ([]byte, error) {
	offered, ok := find(keys, "CHAP_A")
	if !ok || len(keys) != 1 {
		return nil, refuse(loginInitiatorError, "CHAP begins with CHAP_A, and that alone")
	}
	if c.algorithm = chooseAlgorithm(offered); c.algorithm == nil {
		return nil, refuse(loginAuthFailure, "no CHAP algorithm of %.80q is known here; 5, 6, 7 and 8 are", offered)
	}
	// A challenge is as long as the digest, and never used again.
	fresh := make([]byte, 1+c.algorithm.hash().Size())
	c.random(fresh)
	c.id, c.challenge = fresh[0], fresh[1:]
	out = appendPair(out, "CHAP_A", c.algorithm.number)
	out = appendPair(out, "CHAP_I", strconv.Itoa(int(c.id)))
	return appendPair(out, "CHAP_C", formatBinary(c.challenge)), nil
}

// chooseAlgorithm takes the strongest of those offered.
func chooseAlgorithm(list string) *algorithm {
	for i := range algorithms {
		for offered := range strings.SplitSeq(list, ",") {
			if offered == algorithms[i].number {
				return &algorithms[i]
			}
		}
	}
	return nil
}

// finish checks the initiator's response, and then answers its challenge, if there
// is one: who has not proved itself gets nothing to find our secret by.
func (c *chap) finish(out []byte, keys []pair) ([]byte, error) {
	user, named := find(keys, "CHAP_N")
	value, answered := find(keys, "CHAP_R")
	id, identified := find(keys, "CHAP_I")
	challenge, challenged := find(keys, "CHAP_C")
	if _, again := find(keys, "CHAP_A"); again || !named || !answered || identified != challenged {
		return nil, refuse(loginInitiatorError, "CHAP ends with CHAP_N and CHAP_R, and CHAP_I and CHAP_C if the target shall prove itself")
	}
	who, err := c.verify(user, value)
	if err != nil {
		return nil, err
	}
	if challenged {
		if out, err = c.prove(out, who, id, challenge); err != nil {
			return nil, err
		}
	}
	c.proven = who
	return out, nil
}

// verify finds the user and checks its response. What an unknown user costs is what
// a wrong response costs.
func (c *chap) verify(user, value string) (*Auth, error) {
	got, ok := parseBinary(value)
	if !ok || len(got) != c.algorithm.hash().Size() {
		return nil, refuse(loginAuthFailure, "CHAP_R of user %.80q is no digest of algorithm %s", user, c.algorithm.number)
	}
	var who *Auth
	shared := c.dummy
	for i := range c.accepted {
		if a := &c.accepted[i]; a.Initiator.User == user {
			who, shared = a, a.Initiator.Secret
		}
	}
	right := subtle.ConstantTimeCompare(got, c.algorithm.response(c.id, shared, c.challenge)) == 1
	switch {
	case who == nil:
		return nil, refuse(loginAuthFailure, "CHAP user %.80q is not one that this initiator may log in as", user)
	case !right:
		return nil, refuse(loginAuthFailure, "the secret of CHAP user %.80q is wrong", user)
	}
	return who, nil
}

// prove answers the initiator's challenge.
func (c *chap) prove(out []byte, who *Auth, id, value string) ([]byte, error) {
	n, ok := parseNumber(id)
	challenge, valid := parseBinary(value)
	switch {
	case !who.Target.set():
		return nil, refuse(loginAuthFailure, "the initiator wants the target to prove itself, and there is no secret for that with user %q", who.Initiator.User)
	case !ok || n > 255 || !valid:
		return nil, refuse(loginAuthFailure, "CHAP_I=%.20q or CHAP_C is malformed", id)
	case bytes.Equal(challenge, c.challenge):
		return nil, refuse(loginAuthFailure, "the initiator sends our own challenge back to us: somebody reflects the login")
	}
	out = appendPair(out, "CHAP_N", who.Target.User)
	return appendPair(out, "CHAP_R", formatBinary(c.algorithm.response(byte(n), who.Target.Secret, challenge))), nil
}
