package identity

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func testToken() *Token {
	t := &Token{Expires: time.Unix(1772370000, 0), Addresses: []string{"192.0.2.1:7480", "[2001:db8::1]:7480"}}
	for i := range t.Secret {
		t.Secret[i] = byte(0xa0 + i)
	}
	t.Cluster[0], t.Authority[31] = 1, 2
	return t
}

// The text is drawn at Token.
func TestTokenText(t *testing.T) {
	want := "01" + "01" + strings.Repeat("00", 15) + strings.Repeat("00", 31) + "02" +
		"a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7" + "0000000069a43850" + "02" +
		"0e" + hex.EncodeToString([]byte("192.0.2.1:7480")) + "12" + hex.EncodeToString([]byte("[2001:db8::1]:7480"))
	text := testToken().Text()
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(text, "twinlun-join-"))
	if err != nil || hex.EncodeToString(raw[:len(raw)-4]) != want {
		t.Errorf("%s\n%x\nwant\n%s", text, raw, want)
	}
	for _, text := range []string{text, " " + text + "\n", text[:40] + "\r\n  " + text[40:]} {
		got, err := ParseToken(text)
		if err != nil || !reflect.DeepEqual(got, testToken()) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

// Every single character that is wrong or missing is noticed.
func TestTokenDamaged(t *testing.T) {
	text := testToken().Text()
	for i := range text {
		c := byte('A')
		if text[i] == c {
			c = 'B'
		}
		for _, damaged := range []string{text[:i] + string(c) + text[i+1:], text[:i] + text[i+1:], text[:i]} {
			if got, err := ParseToken(damaged); err == nil {
				t.Errorf("%q: %+v", damaged, got)
			}
		}
	}
	for what, text := range map[string]string{
		"empty": "", "long": strings.Repeat(" ", MaxTokenText+1), "only the prefix": tokenPrefix,
	} {
		if _, err := ParseToken(text); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
}

func TestNewTokenRefuses(t *testing.T) {
	ca := newTestCA(t)
	good := []string{"a.example.org:7480"}
	for what, test := range map[string]struct {
		addresses []string
		life      time.Duration
	}{
		"no address":  {nil, time.Hour},
		"no port":     {[]string{"192.0.2.1"}, time.Hour},
		"port 0":      {[]string{"192.0.2.1:0"}, time.Hour},
		"large port":  {[]string{"192.0.2.1:65536"}, time.Hour},
		"no host":     {[]string{":7480"}, time.Hour},
		"space":       {[]string{"a b:7480"}, time.Hour},
		"long":        {[]string{strings.Repeat("a", 255) + ":7480"}, time.Hour},
		"nine":        {strings.Fields(strings.Repeat("a:1 ", 9)), time.Hour},
		"no time":     {good, 0},
		"a long time": {good, MaxTokenLife + 1},
	} {
		if _, err := ca.NewToken(test.addresses, now, test.life); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
	a, errA := ca.NewToken(good, now, time.Hour)
	b, errB := ca.NewToken(good, now, time.Hour)
	if errA != nil || errB != nil || a.Secret == b.Secret || a.Authority != ca.Fingerprint() {
		t.Errorf("%+v, %+v, %v, %v", a, b, errA, errB)
	}
}

// The secret gets neither into a log nor into what the cluster keeps.
func TestSecretIsHidden(t *testing.T) {
	token := testToken()
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		text := fmt.Sprintf(format, token)
		if strings.Contains(text, "a0a1") || strings.Contains(text, "160 161") || strings.Contains(text, "0xa0") {
			t.Errorf("%s: %s", format, text)
		}
	}
	hash := token.Secret.Hash(token.Cluster)
	if !hash.Equal(token.Secret.Hash(token.Cluster)) || hash.Equal(token.Secret.Hash(ClusterID{})) || hash.Equal(Secret{}.Hash(token.Cluster)) {
		t.Error("a hash must come from the secret and the cluster alone")
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(testToken().Text())
	f.Add(tokenPrefix)
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseToken(text)
		if err != nil {
			return
		}
		again, err := ParseToken(token.Text())
		if err != nil || !reflect.DeepEqual(token, again) {
			t.Errorf("%+v became %+v, %v", token, again, err)
		}
	})
}

// FuzzDecodeToken goes past the checksum.
func FuzzDecodeToken(f *testing.F) {
	raw, _ := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(testToken().Text(), tokenPrefix))
	f.Add(raw[:len(raw)-4])
	f.Fuzz(func(t *testing.T, b []byte) {
		token, err := ParseToken(tokenPrefix + base64.RawURLEncoding.EncodeToString(summed(b)))
		if err == nil && (len(token.Addresses) == 0 || token.check() != nil) {
			t.Errorf("%+v", token)
		}
	})
}
