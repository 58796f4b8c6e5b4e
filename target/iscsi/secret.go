package iscsi

import (
	"errors"
	"fmt"
	"strings"

	"github.com/twinlun/twinlun/secret"
)

// Bounds of a CHAP secret, in bytes. RFC 7143 section 12.1.3 wants 96 bits at
// least: with less, who has heard one login can find the secret by trying. More
// than 256 bytes are a file given by mistake.
const (
	minSecret = 12
	maxSecret = 256
)

// checkSecret tells what is wrong with a secret of CHAP, without telling the secret.
func checkSecret(t secret.Text) error {
	s := t.Reveal()
	switch n := len(s); {
	case n < minSecret:
		return fmt.Errorf("a secret of %d bytes: at least %d are needed (RFC 7143 section 12.1.3), better random ones", n, minSecret)
	case n > maxSecret:
		return fmt.Errorf("a secret of %d bytes: at most %d are allowed", n, maxSecret)
	case strings.ContainsAny(s, "\x00\r\n"):
		return errors.New("a secret with a line break or a zero byte in it: no initiator can be given that")
	}
	return nil
}

// Credentials are what one side proves itself by. The zero value: it does not.
type Credentials struct {
	User   string // CHAP_N, 1 to 255 bytes
	Secret secret.Text
}

func (c Credentials) set() bool { return c != Credentials{} }

// Check tells what is wrong with credentials that are given.
func (c Credentials) Check() error {
	switch {
	case c.User == "":
		return errors.New("a secret without a user")
	case len(c.User) > maxValue || strings.ContainsFunc(c.User, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("user %.80q is longer than %d bytes, or has control characters", c.User, maxValue)
	}
	if err := checkSecret(c.Secret); err != nil {
		return fmt.Errorf("user %q: %w", c.User, err)
	}
	return nil
}

// Auth says how the two sides of a login prove who they are, by CHAP (RFC 7143
// section 12.1.3).
type Auth struct {
	// Initiator is what the initiator proves itself by. None: it needs no proof.
	Initiator Credentials
	// Target is what the target proves itself by, to initiators that ask for it.
	Target Credentials
}

// Check tells what is wrong.
func (a Auth) Check() error {
	if !a.Initiator.set() {
		if a.Target.set() {
			return errors.New("the target has a secret to prove itself by, and the initiator has none: CHAP is either for the initiator or for both")
		}
		return nil
	}
	if err := a.Initiator.Check(); err != nil || !a.Target.set() {
		return err
	}
	if err := a.Target.Check(); err != nil {
		return fmt.Errorf("mutual %w", err)
	}
	if a.Initiator.Secret.Equal(a.Target.Secret) {
		// Else an initiator could answer our challenge with our own answer to it.
		return fmt.Errorf("user %q: the same secret for both directions; RFC 7143 section 12.1.3 wants two", a.Initiator.User)
	}
	return nil
}
