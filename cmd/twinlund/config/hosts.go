package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"

	"github.com/spf13/viper"

	"github.com/twinlun/twinlun/secret"
	"github.com/twinlun/twinlun/target/iscsi"
)

// maxSecretFile bounds a file with one secret, in bytes.
const maxSecretFile = 4096

// proof is how the two sides of a login prove themselves, as it stands in the
// configuration: each secret either itself, or in a file.
type proof struct {
	user, targetUser     string
	secret, targetSecret secret.Text
	file, targetFile     string
}

// auth reads the files, and checks all.
func (p *proof) auth(c *Config) (a iscsi.Auth, err error) {
	if a.Initiator, err = c.credentials("", p.user, p.secret, p.file); err != nil {
		return a, err
	}
	if a.Target, err = c.credentials("target-", p.targetUser, p.targetSecret, p.targetFile); err != nil {
		return a, err
	}
	return a, a.Check()
}

// credentials are those of one side, whose keys have the prefix.
func (c *Config) credentials(prefix, user string, text secret.Text, file string) (iscsi.Credentials, error) {
	none := text == secret.Text{}
	switch {
	case !none && file != "":
		return iscsi.Credentials{}, fmt.Errorf("%ssecret and %ssecret-file: only one of them is allowed", prefix, prefix)
	case user == "" && (!none || file != ""):
		return iscsi.Credentials{}, fmt.Errorf("%suser: is missing, and there is a secret for it", prefix)
	case user != "" && none && file == "":
		return iscsi.Credentials{}, fmt.Errorf("%ssecret: is missing, for the user %q; it stands there or in %ssecret-file", prefix, user, prefix)
	}
	if file != "" {
		var err error
		if text, err = c.readSecret(file); err != nil {
			return iscsi.Credentials{}, fmt.Errorf("%ssecret-file: %w", prefix, err)
		}
	}
	return iscsi.Credentials{User: user, Secret: text}, nil
}

// readSecret reads a file with nothing but a secret, and perhaps a line break.
func (c *Config) readSecret(path string) (secret.Text, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // no waiting at pipes
	if err != nil {
		return secret.Text{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return secret.Text{}, err
	}
	if !info.Mode().IsRegular() {
		return secret.Text{}, fmt.Errorf("%s is no ordinary file", path)
	}
	c.warnReadable(path, info, "has a secret")
	text, err := io.ReadAll(io.LimitReader(f, maxSecretFile))
	if err != nil {
		return secret.Text{}, err
	}
	text = bytes.TrimRight(text, "\r\n")
	if len(text) == 0 {
		return secret.Text{}, fmt.Errorf("%s is empty; a secret of 12 bytes or more is wanted", path)
	}
	return secret.New(string(text)), nil
}

// warnReadable adds a warning if everybody on this machine can read the file.
func (c *Config) warnReadable(path string, info os.FileInfo, has string) {
	if info.Mode().Perm()&0o004 != 0 {
		c.Warnings = append(c.Warnings, fmt.Sprintf("%s %s, and everybody on this machine can read it; chmod o-r %s", path, has, path))
	}
}

// host reads one entry of hosts.
func (e element) host(c *Config) (a iscsi.Access, err error) {
	a.Initiator = e["initiator"]
	if a.Initiator == "" {
		return a, errors.New(`initiator: is missing; it is an iSCSI name, or its beginning and an asterisk`)
	}
	p := proof{
		user: e["user"], secret: secret.New(e["secret"]), file: e["secret-file"],
		targetUser: e["target-user"], targetSecret: secret.New(e["target-secret"]), targetFile: e["target-secret-file"],
	}
	if a.Auth, err = p.auth(c); err != nil {
		return a, err
	}
	return a, iscsi.CheckAccess([]iscsi.Access{a})
}

// lookAtFile warns if everybody can read a configuration with secrets in it.
func (c *Config) lookAtFile(path string, v *viper.Viper) error {
	if path == "" || !hasSecret(v.AllSettings()) {
		return nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	c.warnReadable(path, info, "has secrets")
	return nil
}

// hasSecret looks for keys of secrets, at every depth.
func hasSecret(value any) bool {
	switch v := value.(type) {
	case map[string]any:
		for key, below := range v {
			if isSecret(key) || hasSecret(below) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, hasSecret)
	}
	return false
}
