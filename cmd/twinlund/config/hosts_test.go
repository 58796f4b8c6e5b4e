package config

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/pflag"

	"github.com/twinlun/twinlun/secret"
	"github.com/twinlun/twinlun/target/iscsi"
)

func TestHosts(t *testing.T) {
	c, err := Source{File: write(t, good)}.Load()
	if err != nil {
		t.Fatal(err)
	}
	secret := func(a secret.Text, text string) bool { return a.Equal(secret.New(text)) }
	h := c.Targets[0].Hosts
	if len(h) != 2 || h[0] != (iscsi.Access{Initiator: "iqn.1993-08.org.debian:*"}) || h[1].Initiator != "iqn.1993-08.org.debian:01:web" {
		t.Errorf("hosts %v", h)
	}
	a, d := h[1].Auth, c.Discovery
	if a.Initiator.User != "web" || !secret(a.Initiator.Secret, "correct horse battery") || a.Target.User != "disks" || !secret(a.Target.Secret, "the target proves it") {
		t.Errorf("host %v", a)
	}
	if d.Initiator.User != "look" || !secret(d.Initiator.Secret, "0123456789012345") || d.Target != (iscsi.Credentials{}) {
		t.Errorf("discovery %v", d)
	}
}

// TestNothingShows prints, logs and marshals a configuration with all its secrets.
func TestNothingShows(t *testing.T) {
	c, err := Source{File: write(t, good)}.Load()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for _, thing := range []any{c, *c, c.Peer, c.Targets, c.Discovery, c.discovery} {
		fmt.Fprintf(&out, "%v %+v %#v %x\n", thing, thing, thing, thing)
		slog.New(slog.NewTextHandler(&out, nil)).Info("look", "thing", thing)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("look", "thing", thing)
	}
	for _, secret := range []string{"horse", "proves", "0123456789012345", "swordfish"} {
		if strings.Contains(out.String(), secret) || strings.Contains(out.String(), fmt.Sprintf("%x", secret)) {
			t.Errorf("it shows %s: %s", secret, &out)
		}
	}
	if c.Peer.Token.Reveal() != "swordfish" {
		t.Error("the token is not what is configured")
	}
}

// TestHostErrors changes one thing of the good file. No error shows a secret.
func TestHostErrors(t *testing.T) {
	const web = "{initiator: iqn.1993-08.org.debian:01:web, user: web, secret: correct horse battery, target-user: disks, target-secret: the target proves it}"
	for _, c := range []struct{ old, new, want string }{
		{"hosts:", "hosts: []\nxhosts:", `unknown key "xhosts"`},
		{"hosts:\n  - initiator: iqn.1993-08.org.debian:*\n  - " + web, "", `hosts: is missing, nobody could log in; list the initiators that may, or - initiator: "*"`},
		{web, "{user: web}", "hosts, entry 2: initiator: is missing"},
		{web, "{initiator: web}", `hosts, entry 2: initiator "web" is no iSCSI name`},
		{web, "{initiator: iqn.1993-08.org.debian:*}", "hosts: initiator iqn.1993-08.org.debian:* stands twice"},
		{"user: web, ", "", "hosts, entry 2: user: is missing"},
		{"secret: correct horse battery, ", "", `hosts, entry 2: secret: is missing, for the user "web"; it stands there or in secret-file`},
		{"target-user: disks, ", "", "hosts, entry 2: target-user: is missing"},
		{"user: web", "pasword: web", `unknown key "pasword"; allowed in hosts, entry 2, are initiator, luns, prefer, secret, secret-file, target-secret`},
		{"correct horse battery", "horse", `hosts, entry 2: user "web": a secret of 5 bytes: at least 12`},
		{"correct horse battery", strings.Repeat("horse", 60), "a secret of 300 bytes: at most 256"},
		{"correct horse battery", "123456789012", "hosts, entry 2: secret: a text is wanted here; put it in quotes"},
		{"correct horse battery", "[horse, horse]", "secret: a text is wanted here"},
		{"correct horse battery", "{horse: horse}", "secret: a text is wanted here"},
		{"the target proves it", "correct horse battery", "the same secret for both directions"},
		{`"0123456789012345"`, "the target proves it", "hosts and discovery: user \"look\" has the secret by which"},
		{`"0123456789012345"`, "12345678901234567", "discovery.secret: a text is wanted here"},
		{`"0123456789012345"`, "horse", "discovery: user \"look\": a secret of 5 bytes"},
		{"user: look, ", "", "discovery: user: is missing"},
		{"secret: correct", "secret-file: /dev/null, secret: correct", "only one of them is allowed"},
		{"secret: correct horse battery", "secret-file: /nonexistent/x", "hosts, entry 2: secret-file: open /nonexistent/x"},
		{"secret: correct horse battery", "secret-file: /dev/zero", "secret-file: /dev/zero is no ordinary file"},
	} {
		text := strings.Replace(good, c.old, c.new, 1)
		if text == good {
			t.Fatalf("%q is not in the good file", c.old)
		}
		_, err := Source{File: write(t, text)}.Load()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q instead of %q:\n got %v\nwant …%s…", c.new, c.old, err, c.want)
		}
		if err != nil && (strings.Contains(err.Error(), "horse") || strings.Contains(err.Error(), "123456789")) {
			t.Errorf("the error shows a secret: %v", err)
		}
	}
}

// TestSecretFiles: read to the line break, and looked at for who else can read them.
func TestSecretFiles(t *testing.T) {
	for _, c := range []struct {
		text string
		mode os.FileMode
		err  string
		warn bool
	}{
		{"correct horse battery\n", 0o600, "", false},
		{"correct horse battery", 0o640, "", false},
		{"correct horse battery\r\n", 0o644, "", true},
		{"", 0o600, "is empty", false},
		{"\n", 0o600, "is empty", false},
		{"two\nlines and more", 0o600, "a line break", false},
		{strings.Repeat("x", 1<<20), 0o600, "a secret of 4096 bytes", false},
	} {
		path := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(path, []byte(c.text), c.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		cfg, err := Source{File: write(t, strings.Replace(good, "secret: correct horse battery", "secret-file: "+path, 1))}.Load()
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%.30q: got %v, want …%s…", c.text, err, c.err)
			}
			continue
		}
		if err != nil || !cfg.Targets[0].Hosts[1].Auth.Initiator.Secret.Equal(secret.New("correct horse battery")) {
			t.Errorf("%.30q: %v", c.text, err)
			continue
		}
		if warned := len(cfg.Warnings) == 1 && strings.Contains(cfg.Warnings[0], path+" has a secret, and everybody"); warned != c.warn {
			t.Errorf("mode %v: warnings %q", c.mode, cfg.Warnings)
		}
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (Source{File: write(t, strings.Replace(good, "secret: correct horse battery", "secret-file: "+pipe, 1))}).Load(); err == nil || !strings.Contains(err.Error(), "no ordinary file") {
		t.Errorf("a pipe: %v", err)
	}
}

func TestReadableConfiguration(t *testing.T) {
	path := write(t, good)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := Source{File: path}.Load()
	if err != nil || len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], path+" has secrets, and everybody") {
		t.Errorf("%v, %v", c, err)
	}
}

// TestSecretsElsewhere: by the environment, and never by flags.
func TestSecretsElsewhere(t *testing.T) {
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	AddFlags(flags)
	if flags.Lookup("discovery-user") == nil || flags.Lookup("discovery-secret") != nil || flags.Lookup("discovery-target-secret") != nil || flags.Lookup("peer-token") != nil {
		t.Error("flags: users and files are wanted, secrets are not")
	}
	c, err := Source{File: write(t, good), Environ: []string{"TWINLUN_DISCOVERY_SECRET=001234567890123"}}.Load()
	if err != nil || !c.Discovery.Initiator.Secret.Equal(secret.New("001234567890123")) {
		t.Errorf("%v", err)
	}
}
