package iscsi

import (
	"errors"
	"strings"
	"testing"

	"github.com/twinlun/twinlun/secret"
)

// counting is a source of "random" bytes for tests: 0, 1, 2 …; the identifier is
// then 0, and the challenge 010203….
func counting(p []byte) {
	for i := range p {
		p[i] = byte(i)
	}
}

var (
	oneWay = Auth{Initiator: Credentials{"host", secret.New("correct horse battery")}}
	mutual = Auth{Initiator: oneWay.Initiator, Target: Credentials{"disks", secret.New("the target proves it")}}
)

// Digests of 00 "correct horse battery" 01020304…, with a challenge as long as the
// digest, and of c8 "the target proves it" and four times deadbeef.
var digests = map[string]struct {
	challenge, response, proof string
}{
	"8": {"0x0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20",
		"0xfc1cccaf9dafdfe85f84d80c9fbd3a3e22b2715b54af4422cc7f699f98d6cf0f",
		"0x2aca223a2abe8b2e1d4376838e0f78e64ebcaea575ff9bdbf7ce4722ba73e989"},
	"7": {"0x0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20",
		"0x3c488c298772a2ca3c9f0021e92e42a80047139436e96a445dd862668c510f7a",
		"0x17a4e1220156f662ffe6e3b7a612be4cefdd60473d61d56919f80b03266e68cd"},
	"6": {"0x0102030405060708090a0b0c0d0e0f1011121314",
		"0x0ad217b5bfb81d886535f05e2c006c8f7c6f9a45",
		"0xef6facbe1aac290d5f57216c462350f5f636c01b"},
	"5": {"0x0102030405060708090a0b0c0d0e0f10",
		"0xeba93a38b255633929c28b7654865113",
		"0x6b948a2a956f55c309cad435f6b0b8c8"},
}

// TestCHAPDigests goes through a mutual authentication with every algorithm.
func TestCHAPDigests(t *testing.T) {
	for number, d := range digests {
		c := &chap{accepted: []Auth{mutual}, random: counting}
		out, err := c.step(nil, []pair{{"CHAP_A", number}})
		if want := keys("CHAP_A="+number, "CHAP_I=0", "CHAP_C="+d.challenge); err != nil || string(out) != string(want) {
			t.Errorf("%s: %q, %v, not %q", number, out, err, want)
			continue
		}
		out, err = c.step(nil, []pair{{"CHAP_N", "host"}, {"CHAP_R", d.response}, {"CHAP_I", "200"}, {"CHAP_C", "0x" + strings.Repeat("deadbeef", 4)}})
		if want := keys("CHAP_N=disks", "CHAP_R="+d.proof); err != nil || string(out) != string(want) || c.proven == nil {
			t.Errorf("%s: %q, %v, not %q", number, out, err, want)
		}
	}
}

func TestChooseAlgorithm(t *testing.T) {
	for list, want := range map[string]string{
		"5": "5", "5,6,7,8": "8", "5,7": "7", "6,5": "6", "129,5": "5", "": "", "9": "", "05": "", " 5": "", "5;7": "",
	} {
		got := ""
		if a := chooseAlgorithm(list); a != nil {
			got = a.number
		}
		if got != want {
			t.Errorf("of %q algorithm %q is chosen, not %q", list, got, want)
		}
	}
}

// TestCHAPRefused has a status for everything that can be wrong.
func TestCHAPRefused(t *testing.T) {
	md5 := digests["5"]
	name, response := pair{"CHAP_N", "host"}, pair{"CHAP_R", md5.response}
	id, challenge := pair{"CHAP_I", "1"}, pair{"CHAP_C", "0xabcd"}
	begin := []pair{{"CHAP_A", "5"}}
	for _, c := range []struct {
		name  string
		auth  Auth
		steps [][]pair // the last one is refused
		want  loginStatus
	}{
		{"no algorithm in common", oneWay, [][]pair{{{"CHAP_A", "1,2"}}}, loginAuthFailure},
		{"response first", oneWay, [][]pair{{name, response}}, loginInitiatorError},
		{"all at once", oneWay, [][]pair{{{"CHAP_A", "5"}, name, response}}, loginInitiatorError},
		{"algorithm again", oneWay, [][]pair{begin, {{"CHAP_A", "5"}, name, response}}, loginInitiatorError},
		{"no name", oneWay, [][]pair{begin, {response}}, loginInitiatorError},
		{"no response", oneWay, [][]pair{begin, {name}}, loginInitiatorError},
		{"challenge without identifier", mutual, [][]pair{begin, {name, response, challenge}}, loginInitiatorError},
		{"identifier without challenge", mutual, [][]pair{begin, {name, response, id}}, loginInitiatorError},
		{"another user", oneWay, [][]pair{begin, {{"CHAP_N", "Host"}, response}}, loginAuthFailure},
		{"the target's user", mutual, [][]pair{begin, {{"CHAP_N", "disks"}, response}}, loginAuthFailure},
		{"empty user", oneWay, [][]pair{begin, {{"CHAP_N", ""}, response}}, loginAuthFailure},
		{"wrong response", oneWay, [][]pair{begin, {name, {"CHAP_R", md5.proof}}}, loginAuthFailure},
		{"half a response", oneWay, [][]pair{begin, {name, {"CHAP_R", md5.response[:18]}}}, loginAuthFailure},
		{"empty response", oneWay, [][]pair{begin, {name, {"CHAP_R", "0x"}}}, loginAuthFailure},
		{"response in decimal", oneWay, [][]pair{begin, {name, {"CHAP_R", "1234"}}}, loginAuthFailure},
		{"our challenge back", mutual, [][]pair{begin, {name, response, id, {"CHAP_C", md5.challenge}}}, loginAuthFailure},
		{"our challenge back in base64", mutual, [][]pair{begin, {name, response, id, {"CHAP_C", "0bAQIDBAUGBwgJCgsMDQ4PEA=="}}}, loginAuthFailure},
		{"no secret of ours", oneWay, [][]pair{begin, {name, response, id, challenge}}, loginAuthFailure},
		{"identifier of two bytes", mutual, [][]pair{begin, {name, response, {"CHAP_I", "256"}, challenge}}, loginAuthFailure},
		{"no number", mutual, [][]pair{begin, {name, response, {"CHAP_I", "x"}, challenge}}, loginAuthFailure},
		{"empty challenge", mutual, [][]pair{begin, {name, response, id, {"CHAP_C", "0x"}}}, loginAuthFailure},
		{"long challenge", mutual, [][]pair{begin, {name, response, id, {"CHAP_C", "0x" + strings.Repeat("ab", 1025)}}}, loginAuthFailure},
		{"again after the end", mutual, [][]pair{begin, {name, response, id, challenge}, {name, response}}, loginInitiatorError},
	} {
		ch := &chap{accepted: []Auth{c.auth}, random: counting, dummy: secret.New("nobody knows")}
		for k, step := range c.steps {
			out, err := ch.step(nil, step)
			var refused *loginError
			switch last := k == len(c.steps)-1; {
			case !last && err != nil:
				t.Errorf("%s: step %d: %v", c.name, k, err)
			case last && (!errors.As(err, &refused) || refused.status != c.want || len(out) > 0):
				t.Errorf("%s: %q, %v, not status %#04x", c.name, out, err, uint16(c.want))
			case last && ch.proven != nil && len(c.steps) < 3:
				t.Errorf("%s: it counts as proven", c.name)
			}
		}
	}
}

// TestCHAPUsers: the name says which of several secrets counts.
func TestCHAPUsers(t *testing.T) {
	other := Auth{Initiator: Credentials{"other", secret.New("another long secret")}}
	for user, want := range map[string]bool{"host": true, "other": false} {
		c := &chap{accepted: []Auth{other, oneWay}, random: counting}
		if _, err := c.step(nil, []pair{{"CHAP_A", "5"}}); err != nil {
			t.Fatal(err)
		}
		_, err := c.step(nil, []pair{{"CHAP_N", user}, {"CHAP_R", digests["5"].response}})
		if (err == nil) != want || want && c.proven.Initiator.User != user {
			t.Errorf("host's response by user %s: %v", user, err)
		}
	}
}

func TestParseBinary(t *testing.T) {
	long := strings.Repeat("5a", maxBinary)
	for _, c := range []struct {
		in, want string
		corrupt  bool
	}{
		{in: "0x00", want: "\x00"},
		{in: "0X0aFf", want: "\x0a\xff"},
		{in: "0bCv8=", want: "\x0a\xff"},
		{in: "0BAA==", want: "\x00"},
		{in: "0x" + long, want: strings.Repeat("Z", maxBinary)},
		{in: "0x" + long + "5a", corrupt: true},
		{in: "", corrupt: true},
		{in: "0x", corrupt: true},
		{in: "0b", corrupt: true},
		{in: "0xa", corrupt: true},
		{in: "0x0g", corrupt: true},
		{in: "0bCv8", corrupt: true},
		{in: "0bCv9=", corrupt: true}, // bits that belong to no byte
		{in: "0bCv\n8=", corrupt: true},
		{in: "0bC v8", corrupt: true},
		{in: "255", corrupt: true},
		{in: "1x00", corrupt: true},
	} {
		got, ok := parseBinary(c.in)
		if ok == c.corrupt || ok && string(got) != c.want {
			t.Errorf("%.40q: % x, %v", c.in, got, ok)
		}
	}
}

func FuzzParseBinary(f *testing.F) {
	f.Add("0x0102ff")
	f.Add("0bAQIDBAUGBwgJCgsMDQ4PEA==")
	f.Fuzz(func(t *testing.T, s string) {
		b, ok := parseBinary(s)
		if !ok {
			return
		}
		if len(b) == 0 || len(b) > maxBinary {
			t.Fatalf("%d bytes", len(b))
		}
		if again, ok := parseBinary(formatBinary(b)); !ok || string(again) != string(b) {
			t.Fatalf("% x written and read is % x", b, again)
		}
	})
}
