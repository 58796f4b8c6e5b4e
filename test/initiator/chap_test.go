package initiator

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

// TestProof has digests of 01, "secret" and 02 03 that were made by another program.
func TestProof(t *testing.T) {
	for algorithm, want := range map[int]string{
		5: "f506c24f35d1c70e450edb8fdf933478", 6: "c89c16e4dae017f9f96fb7e0b771ae92805b9b3f", 7: "0139bffdf152606a2cbffc12059829afee1ca9ddf6a682afd2c3d9c5572c387b", 8: "f8d632f4120d63e6e132e32a335afbe79b4e84798b132a7a241688ff14c6fd5f",
	} {
		if got := hex.EncodeToString(proof(algorithm, 1, "secret", []byte{2, 3})); got != want {
			t.Errorf("algorithm %d: %s", algorithm, got)
		}
	}
}

// TestCHAPWithTgt proves both sides to each other with the reference target.
func TestCHAPWithTgt(t *testing.T) {
	r := tgtd(t)
	r.adm("--op new --mode account --user host --password correct-horse-battery")
	r.adm("--op bind --mode account --tid 1 --user host")
	r.adm("--op new --mode account --user disks --password the-target-proves-it")
	r.adm("--op bind --mode account --tid 1 --user disks --outgoing")
	// MD5, as tgt takes 7 for SHA-1.
	right := CHAP{User: "host", Secret: "correct-horse-battery", Algorithms: []int{5}}
	refused := func(err error) bool { var e *LoginError; return errors.As(err, &e) && e.Class == 2 }
	good := func(err error) bool { return err == nil }
	for name, c := range map[string]struct {
		change func(*CHAP)
		want   func(error) bool
	}{
		"no proof":                     {func(c *CHAP) { *c = CHAP{} }, refused},
		"one way":                      {func(*CHAP) {}, good},
		"wrong secret":                 {func(c *CHAP) { c.Secret = "incorrect-horse-battery" }, refused},
		"mutual":                       {func(c *CHAP) { c.Target, c.TargetUser = "the-target-proves-it", "disks" }, good},
		"mutual, base64":               {func(c *CHAP) { c.Target, c.Base64 = "the-target-proves-it", true }, good},
		"another secret of the target": {func(c *CHAP) { c.Target = "the-target-is-a-fake" }, func(err error) bool { return errors.Is(err, ErrTargetProof) }},
		"another target":               {func(c *CHAP) { c.Target, c.TargetUser = "the-target-proves-it", "else" }, func(err error) bool { return errors.Is(err, ErrTargetProof) }},
	} {
		o := r.options()
		o.CHAP = right
		c.change(&o.CHAP)
		s, err := Dial(t.Context(), o)
		if !c.want(err) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			s.Close()
		}
	}
}

// TestCHAPBreaches: a target that does not keep to the rules.
func TestCHAPBreaches(t *testing.T) {
	challenge := "0x" + strings.Repeat("ab", 16)
	good := [][]pair{{{"AuthMethod", "CHAP"}}, {{"CHAP_A", "5"}, {"CHAP_I", "7"}, {"CHAP_C", challenge}}}
	for name, c := range map[string][][]pair{
		"None all the same":         {{{"AuthMethod", "None"}}},
		"no word on the method":     {nil},
		"algorithm not offered":     {good[0], {{"CHAP_A", "6"}, {"CHAP_I", "7"}, {"CHAP_C", challenge}}},
		"no challenge":              {good[0], {{"CHAP_A", "5"}, {"CHAP_I", "7"}}},
		"challenge of a few bytes":  {good[0], {{"CHAP_A", "5"}, {"CHAP_I", "7"}, {"CHAP_C", "0xabcd"}}},
		"identifier of two bytes":   {good[0], {{"CHAP_A", "5"}, {"CHAP_I", "256"}, {"CHAP_C", challenge}}},
		"no proof":                  {good[0], good[1], nil},
		"a proof that is no binary": {good[0], good[1], {{"CHAP_N", "t"}, {"CHAP_R", "12"}}},
	} {
		o := serve(t, func(f *fake) {
			for k, text := range c {
				req, _ := f.expect(opLoginRequest)
				flags := byte(0)
				if k == 2 {
					flags = toOperational
				}
				f.answer(req, flags, 0, 0, encodeKeys(text))
			}
			f.drain()
		})
		o.CHAP = CHAP{User: "host", Secret: "correct-horse-battery", Target: "the-target-proves-it", Algorithms: []int{5}}
		s, err := Dial(t.Context(), o)
		var breach *ProtocolError
		if !errors.As(err, &breach) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			s.Close()
		}
	}
}
