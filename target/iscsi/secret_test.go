package iscsi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// TestSecretHides prints a secret in every way, alone and inside of things.
func TestSecretHides(t *testing.T) {
	const text = "correct horse battery"
	secret := NewSecret(text)
	type inner struct{ c Credentials } // fmt cannot call methods of what it cannot see
	things := []any{secret, &secret, oneWay, &oneWay, inner{oneWay.Initiator}, []Auth{oneWay}, map[string]Secret{"a": secret}, &chap{accepted: []Auth{oneWay}}}
	var log bytes.Buffer
	loggers := []*slog.Logger{slog.New(slog.NewTextHandler(&log, nil)), slog.New(slog.NewJSONHandler(&log, nil))}
	var out strings.Builder
	for _, thing := range things {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%p"} {
			fmt.Fprintf(&out, verb+"\n", thing)
		}
		b, _ := json.Marshal(thing)
		out.Write(b)
		for _, l := range loggers {
			l.Info("look", "thing", thing)
		}
	}
	fmt.Fprint(&out, secret.String(), secret.Check(), NewSecret("too short").Check(), log.String())
	shown := strings.ToLower(out.String())
	for _, bad := range []string{text, fmt.Sprintf("%x", text), "99 111 114", "too short"} {
		if at := strings.Index(shown, bad); at >= 0 {
			t.Errorf("it shows: …%s…", shown[max(0, at-200):min(at+200, len(shown))])
		}
	}
}

func TestAuthRefused(t *testing.T) {
	good := func(n int) Secret { return NewSecret(strings.Repeat("s", n)) }
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
		"a line break":                       {Initiator: Credentials{"me", NewSecret("0123456789ab\n")}},
		"the initiator has none":             {Target: Credentials{"us", good(12)}},
		"mutual user \"us\": a secret of 2":  {Initiator: Credentials{"me", good(12)}, Target: Credentials{"us", good(2)}},
		"the same secret for both":           {Initiator: Credentials{"me", good(12)}, Target: Credentials{"us", good(12)}},
	} {
		if err := a.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want …%s…", err, want)
		}
	}
}
