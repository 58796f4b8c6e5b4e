package iscsi

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twinlun/twinlun/secret"
)

// TestSecretHides prints what has secrets in it, and what is wrong with one.
func TestSecretHides(t *testing.T) {
	var out strings.Builder
	for _, thing := range []any{oneWay, &oneWay, []Access{{"*", oneWay}}, &chap{accepted: []Auth{oneWay}}, &directory{discovery: oneWay}} {
		fmt.Fprintf(&out, "%v %+v %#v %x\n", thing, thing, thing, thing)
	}
	for _, bad := range []string{"horse", "horse\nhorse horse"} {
		fmt.Fprintln(&out, Credentials{"me", secret.New(bad)}.Check())
	}
	if shown := out.String(); strings.Contains(shown, "horse") || strings.Contains(shown, fmt.Sprintf("%x", "horse")) || strings.Count(shown, "hidden") < 16 {
		t.Errorf("it shows, or something else was printed: %s", shown)
	}
}

func TestAuthRefused(t *testing.T) {
	good := func(n int) secret.Text { return secret.New(strings.Repeat("s", n)) }
	for _, n := range []int{minSecret, maxSecret} {
		if err := (Auth{Initiator: Credentials{"me", good(n)}}).Check(); err != nil {
			t.Errorf("a secret of %d bytes: %v", n, err)
		}
	}
	if err := (Auth{}).Check(); err != nil {
		t.Error(err)
	}
	for want, a := range map[string]Auth{
		"a secret of 11 bytes: at least 12":  {Initiator: Credentials{"me", good(11)}},
		"a secret of 257 bytes: at most 256": {Initiator: Credentials{"me", good(257)}},
		"a secret of 0 bytes":                {Initiator: Credentials{User: "me"}},
		"without a user":                     {Initiator: Credentials{Secret: good(12)}},
		"longer than 255":                    {Initiator: Credentials{strings.Repeat("u", 256), good(12)}},
		"control characters":                 {Initiator: Credentials{"a\x00b", good(12)}},
		"a line break":                       {Initiator: Credentials{"me", secret.New("0123456789ab\n")}},
		"the initiator has none":             {Target: Credentials{"us", good(12)}},
		"mutual user \"us\": a secret of 2":  {Initiator: Credentials{"me", good(12)}, Target: Credentials{"us", good(2)}},
		"the same secret for both":           {Initiator: Credentials{"me", good(12)}, Target: Credentials{"us", good(12)}},
	} {
		if err := a.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want …%s…", err, want)
		}
	}
}
