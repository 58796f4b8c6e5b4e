package iscsi

import (
	"fmt"
	"net"
	"strings"
)

// Access lets an initiator, or all whose name begins in some way, log in to a
// target. Names are compared byte by byte, as RFC 7143 section 4.2.7 wants it; a
// name is a claim that only CHAP proves.
type Access struct {
	// Initiator is an iSCSI name, or the beginning of one and an asterisk:
	// iqn.1993-08.org.debian:*. The asterisk alone is everybody.
	Initiator string
	// Auth is how it proves itself. Several entries with the same Initiator and
	// different users stand beside each other.
	Auth Auth
}

// Anyone is the access list of a target that is open to everybody.
func Anyone() []Access { return []Access{{Initiator: "*"}} }

// matches tells whether the entry is for an initiator.
func (a *Access) matches(name string) bool {
	if prefix, ok := strings.CutSuffix(a.Initiator, "*"); ok {
		return strings.HasPrefix(name, prefix)
	}
	return name == a.Initiator
}

// allowed returns how an initiator may prove itself: the Auths of the entries that
// fit it most closely, which is the one with its name, or else the one with the
// longest beginning of it. So an entry for one host, with a secret, is not undone by
// one for all hosts of its kind. Empty: it may not log in. One without credentials
// stands alone (CheckAccess): no proof is needed.
func allowed(list []Access, name string) (auths []Auth) {
	closest := ""
	for i := range list {
		if a := &list[i]; a.matches(name) && closer(a.Initiator, closest) {
			closest = a.Initiator
		}
	}
	for i := range list {
		if list[i].Initiator == closest && closest != "" {
			auths = append(auths, list[i].Auth)
		}
	}
	return auths
}

// closer tells whether pattern a is closer to a name that both match than b.
func closer(a, b string) bool {
	wildA, wildB := strings.HasSuffix(a, "*"), strings.HasSuffix(b, "*")
	if wildA != wildB {
		return wildB || b == ""
	}
	return len(a) > len(b)
}

// permits tells whether one of auths lets in who has proved to be the user; "": who
// has proved nothing.
func permits(auths []Auth, user string) bool {
	for i := range auths {
		if a := &auths[i]; !a.Initiator.set() || a.Initiator.User == user {
			return true
		}
	}
	return false
}

func (a *Access) check() error {
	prefix, wild := strings.CutSuffix(a.Initiator, "*")
	switch {
	case !wild && !isName(a.Initiator):
		return fmt.Errorf("initiator %q is no iSCSI name; use one like iqn.1993-08.org.debian:01:abc, or its beginning and an asterisk", a.Initiator)
	case strings.ContainsAny(prefix, "*,/ \x00"):
		return fmt.Errorf("initiator %q: an asterisk stands at the end, after the beginning of an iSCSI name", a.Initiator)
	}
	if err := a.Auth.Check(); err != nil {
		return fmt.Errorf("initiator %s: %w", a.Initiator, err)
	}
	return nil
}

// CheckAccess tells what is wrong with an access list: each entry, and what does not
// go together.
func CheckAccess(list []Access) error {
	users := map[[2]string]bool{}
	free := map[string]bool{}
	for i := range list {
		a := &list[i]
		if err := a.check(); err != nil {
			return err
		}
		key := [2]string{a.Initiator, a.Auth.Initiator.User}
		if users[key] {
			return fmt.Errorf("initiator %s stands twice in the list, with the same user", a.Initiator)
		}
		users[key] = true
		free[a.Initiator] = free[a.Initiator] || !a.Auth.Initiator.set()
	}
	for key := range users {
		if key[1] != "" && free[key[0]] {
			return fmt.Errorf("initiator %s stands in the list with a secret and without one: it would need none", key[0])
		}
	}
	return nil
}

// CheckSecrets sees to it that no secret serves both directions, wherever the two
// stand: an initiator could make us answer our own challenge (RFC 7143 section
// 12.1.3).
func CheckSecrets(auths []Auth) error {
	initiators := map[string]string{} // users by secret
	for i := range auths {
		if in := &auths[i].Initiator; in.set() {
			initiators[in.Secret.Reveal()] = in.User
		}
	}
	for i := range auths {
		a := &auths[i]
		if user, both := initiators[a.Target.Secret.Reveal()]; both && a.Target.set() {
			return fmt.Errorf("user %q has the secret by which the target proves itself to user %q; RFC 7143 section 12.1.3 wants different ones", user, a.Initiator.User)
		}
	}
	return nil
}

// directory is the targets and who may use them, as they are at one time. It is
// never changed, only replaced.
type directory struct {
	targets   []*Target
	byName    map[string]*Target
	discovery Auth
}

// maxTargets bounds what one answer to SendTargets may become.
const maxTargets = 4096

// CheckTargets tells what is wrong with targets, their access lists and the credentials
// for discovery, and would keep New or SetTargets from taking them.
func CheckTargets(targets []Target, discovery Auth) error {
	_, err := newDirectory(targets, discovery)
	return err
}

// newDirectory checks the targets and copies them.
func newDirectory(targets []Target, discovery Auth) (*directory, error) {
	if len(targets) > maxTargets {
		return nil, fmt.Errorf("%d targets, more than %d", len(targets), maxTargets)
	}
	if err := discovery.Check(); err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	d := &directory{byName: map[string]*Target{}, discovery: discovery}
	auths := []Auth{discovery}
	for i := range targets {
		t := targets[i].clone()
		if err := t.check(); err != nil {
			return nil, err
		}
		if d.byName[t.Name] != nil {
			return nil, fmt.Errorf("target name %q is configured twice", t.Name)
		}
		d.targets, d.byName[t.Name] = append(d.targets, t), t
		for _, a := range t.Access {
			auths = append(auths, a.Auth)
		}
	}
	return d, CheckSecrets(auths)
}

// admit finds the target that an initiator names, who has come through a listener, and
// how it may prove itself.
func (d *directory) admit(target, initiator string, via net.Listener) (*Target, []Auth, error) {
	t := d.byName[target]
	if t == nil || !t.through(via) {
		return nil, nil, refuse(loginNotFound, "there is no target %.223q at this portal", target)
	}
	auths := allowed(t.Access, initiator)
	if len(auths) == 0 {
		return nil, nil, refuse(loginForbidden, "the initiator is not on the access list of target %s", t.Name)
	}
	return t, auths, nil
}

// visible are the targets that an initiator is told of: those that it may log in to.
func (d *directory) visible(initiator string) (list []*Target) {
	for _, t := range d.targets {
		if len(allowed(t.Access, initiator)) > 0 {
			list = append(list, t)
		}
	}
	return list
}
