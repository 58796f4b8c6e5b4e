package iscsi

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twinlun/twinlun/secret"
)

func user(name string) Auth {
	return Auth{Initiator: Credentials{name, secret.New("a secret of " + name)}}
}

// TestAllowed: the entries that fit closest count, and no others.
func TestAllowed(t *testing.T) {
	list := []Access{
		{"iqn.1993-08.org.debian:*", user("debian")},
		{"iqn.1993-08.org.debian:01:web*", user("web")},
		{"iqn.1993-08.org.debian:01:web7", user("seven")},
		{"iqn.1993-08.org.debian:01:web7", user("sevens-other-self")},
		{"iqn.1993-08.org.debian:01:free", Auth{}},
		{"eui.*", Auth{}},
	}
	for name, want := range map[string]string{
		"iqn.1993-08.org.debian:01:db1":   "[debian]",
		"iqn.1993-08.org.debian:01:web":   "[web]",
		"iqn.1993-08.org.debian:01:web77": "[web]",
		"iqn.1993-08.org.debian:01:web7":  "[seven sevens-other-self]",
		"iqn.1993-08.org.debian:01:free":  "[]", // one that needs none
		"iqn.1993-08.org.debian:":         "[debian]",
		"eui.0123456789abcdef":            "[]",
		"iqn.1993-08.org.debian":          "",
		"iqn.1993-08.org.Debian:01:db1":   "",
	} {
		auths := allowed(list, name)
		got := ""
		if len(auths) > 0 {
			var users []string
			for _, a := range auths {
				if a.Initiator.set() {
					users = append(users, a.Initiator.User)
				}
			}
			got = fmt.Sprint(users)
		}
		if got != want {
			t.Errorf("%s: %s, not %s", name, got, want)
		}
	}
	if got := allowed(nil, testIQN); got != nil {
		t.Errorf("an empty list lets in %v", got)
	}
	if got := allowed(Anyone(), testIQN); len(got) != 1 || !permits(got, "") {
		t.Errorf("anyone is %v", got)
	}
}

func TestCheckAccess(t *testing.T) {
	for _, c := range []struct {
		list []Access
		want string
	}{
		{[]Access{{"iqn.2024-01.com.example:a", user("u")}, {"iqn.2024-01.com.example:a", user("v")}, {"*", Auth{}}}, ""},
		{[]Access{{"", Auth{}}}, "no iSCSI name"},
		{[]Access{{"host", Auth{}}}, "no iSCSI name"},
		{[]Access{{"iqn.*.com", Auth{}}}, "asterisk stands at the end"},
		{[]Access{{"iqn.**", Auth{}}}, "asterisk stands at the end"},
		{[]Access{{"iqn.a b*", Auth{}}}, "asterisk stands at the end"},
		{[]Access{{"*", user("u")}, {"*", user("u")}}, "twice in the list"},
		{[]Access{{"*", Auth{}}, {"*", user("u")}}, "with a secret and without one"},
		{[]Access{{"*", user("u")}, {"*", Auth{}}}, "with a secret and without one"},
		{[]Access{{"*", Auth{Initiator: Credentials{"u", secret.New("short")}}}}, `initiator *: user "u": a secret of 5 bytes`},
	} {
		err := CheckAccess(c.list)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%v: got %v, want …%s…", c.list, err, c.want)
		}
	}
}

// TestOneSecretInBothDirections is refused wherever the two stand.
func TestOneSecretInBothDirections(t *testing.T) {
	back := Auth{Initiator: user("a").Initiator, Target: Credentials{"us", user("b").Initiator.Secret}}
	for _, c := range []struct {
		discovery    Auth
		first, other Auth
	}{{Auth{}, back, user("b")}, {back, user("b"), user("c")}, {user("b"), back, user("c")}} {
		targets := []Target{
			{Name: testIQN, Device: newDisk(1), Access: []Access{{"iqn.2024-01.com.example:a", c.first}}},
			{Name: testIQN + "2", Device: newDisk(1), Access: []Access{{"iqn.2024-01.com.example:b", c.other}}},
		}
		if _, err := newDirectory(targets, c.discovery); err == nil || !strings.Contains(err.Error(), `user "b" has the secret by which`) {
			t.Errorf("discovery %v, entries %v and %v: %v", c.discovery, c.first, c.other, err)
		}
	}
}
