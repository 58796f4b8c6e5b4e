package catalog

import (
	"iter"
)

// Role is what a user may do.
type Role string

// The roles.
const (
	Admin    Role = "admin"    // everything
	Operator Role = "operator" // everything but users, nodes and removing LUNs
	Viewer   Role = "viewer"   // look
)

func (r Role) check() error {
	if r != Admin && r != Operator && r != Viewer {
		return invalid("role", "%.20q is none of admin, operator, viewer", r)
	}
	return nil
}

// User is a person who administers the cluster.
type User struct {
	Name     string `json:"name"`
	Password string `json:"password"` // its hash, with how it was made; "": he cannot log in by password
	Role     Role   `json:"role"`
	Disabled bool   `json:"disabled"`
	Revision uint64 `json:"revision"`
}

// APIToken lets a program act for a user. The catalog knows only the hash of its secret.
type APIToken struct {
	ID      UUID   `json:"id"`
	Name    string `json:"name"`
	User    string `json:"user"`
	Hash    Hash   `json:"hash"`
	Role    Role   `json:"role"`
	Made    Stamp  `json:"made"`
	Expires Stamp  `json:"expires,omitempty"` // 0: never
}

// User is a user by name.
func (s *State) User(name string) (User, bool) { return s.users.get(name) }

// Users are all users, by name.
func (s *State) Users() iter.Seq[User] { return s.users.values("") }

// APITokens are all API tokens, by id.
func (s *State) APITokens() iter.Seq[APIToken] { return s.apiTokens.values("") }

// APITokenOf is the API token whose secret has this hash. Whether it has expired is for
// the caller to say, and whether its user is disabled.
func (s *State) APITokenOf(hash Hash) (APIToken, bool) {
	id, found := s.apiHashes.get(hash.key())
	if !found {
		return APIToken{}, false
	}
	return s.apiTokens.get(id.key())
}

// PutUser makes a user, or replaces what he was.
type PutUser struct {
	Expect
	Name     string `json:"name"`
	Password string `json:"password"`
	Role     Role   `json:"role"`
	Disabled bool   `json:"disabled,omitempty"`
}

// Kind is "put-user".
func (*PutUser) Kind() string { return "put-user" }

func (b *PutUser) apply(c *change) error {
	old, found := c.User(b.Name)
	if err := b.check("user", b.Name, old.Revision, found); err != nil {
		return err
	}
	u := User{b.Name, b.Password, b.Role, b.Disabled, c.index}
	if err := u.check(); err != nil {
		return err
	}
	if !found && c.users.len() >= MaxUsers {
		return full("users", MaxUsers)
	}
	if found && !u.administers() {
		if err := c.notLastAdmin(old); err != nil {
			return err
		}
	}
	c.users.set(u.Name, u)
	c.note(AccessChanged{})
	c.log(Info, "user "+u.Name, "has the role %s, disabled %t", u.Role, u.Disabled)
	return nil
}

func (u *User) check() error {
	if err := checkName("name", u.Name); err != nil {
		return err
	}
	if err := checkText("password", u.Password, maxPassword); err != nil {
		return err
	}
	return u.Role.check()
}

func (u *User) administers() bool { return u.Role == Admin && !u.Disabled }

// notLastAdmin checks that somebody else can administer the cluster without a user.
func (c *change) notLastAdmin(u User) error {
	if !u.administers() {
		return nil
	}
	for other := range c.Users() {
		if other.Name != u.Name && other.administers() {
			return nil
		}
	}
	return conflict("make another administrator first", "user %s is the only administrator", u.Name)
}

// RemoveUser removes a user and his API tokens.
type RemoveUser struct {
	Name string `json:"name"`
}

// Kind is "remove-user".
func (*RemoveUser) Kind() string { return "remove-user" }

func (b *RemoveUser) apply(c *change) error {
	u, found := c.User(b.Name)
	if !found {
		return notFound("user", b.Name)
	}
	if err := c.notLastAdmin(u); err != nil {
		return err
	}
	before := c.State
	for t := range before.APITokens() {
		if t.User == u.Name {
			c.dropAPIToken(&t)
		}
	}
	c.users.drop(u.Name)
	c.note(AccessChanged{})
	c.log(Info, "user "+u.Name, "was removed")
	return nil
}

// AddAPIToken makes an API token known.
type AddAPIToken struct {
	ID      UUID   `json:"id"`
	Name    string `json:"name"`
	User    string `json:"user"`
	Hash    Hash   `json:"hash"`
	Role    Role   `json:"role"`
	Expires Stamp  `json:"expires,omitempty"`
}

// Kind is "add-api-token".
func (*AddAPIToken) Kind() string { return "add-api-token" }

func (b *AddAPIToken) apply(c *change) error {
	t := APIToken{b.ID, b.Name, b.User, b.Hash, b.Role, c.command.Time, b.Expires}
	if err := t.check(); err != nil {
		return err
	}
	u, found := c.User(b.User)
	switch {
	case !found:
		return notFound("user", b.User)
	case u.Role.rank() < b.Role.rank():
		return conflict("choose a lesser role", "user %s is %s, and his token cannot be %s", u.Name, u.Role, b.Role)
	case b.Expires != 0 && b.Expires <= c.command.Time:
		return invalid("expires", "lies in the past")
	case c.apiTokens.has(b.ID.key()) || c.apiHashes.has(b.Hash.key()):
		return conflict("make another one", "the API token is known already")
	case c.apiTokens.len() >= MaxKeys:
		return full("API tokens", MaxKeys)
	}
	c.putAPIToken(t)
	c.note(AccessChanged{})
	c.log(Info, "user "+u.Name, "has the API token %s now, with the role %s", t.Name, t.Role)
	return nil
}

// rank orders roles: a higher one may do all that a lower one may.
func (r Role) rank() int {
	return map[Role]int{Viewer: 1, Operator: 2, Admin: 3}[r]
}

func (t *APIToken) check() error {
	switch {
	case t.ID.zero():
		return invalid("id", "is all zeros")
	case t.Hash == Hash{}:
		return invalid("hash", "is all zeros")
	}
	if err := checkName("name", t.Name); err != nil {
		return err
	}
	return t.Role.check()
}

func (c *change) putAPIToken(t APIToken) {
	c.apiTokens.set(t.ID.key(), t)
	c.apiHashes.set(t.Hash.key(), t.ID)
}

func (c *change) dropAPIToken(t *APIToken) {
	c.apiTokens.drop(t.ID.key())
	c.apiHashes.drop(t.Hash.key())
}

// RemoveAPIToken makes an API token worthless.
type RemoveAPIToken struct {
	ID UUID `json:"id"`
}

// Kind is "remove-api-token".
func (*RemoveAPIToken) Kind() string { return "remove-api-token" }

func (b *RemoveAPIToken) apply(c *change) error {
	t, found := c.apiTokens.get(b.ID.key())
	if !found {
		return notFound("API token", b.ID.String())
	}
	c.dropAPIToken(&t)
	c.note(AccessChanged{})
	c.log(Info, "user "+t.User, "has the API token %s no more", t.Name)
	return nil
}

// RoleOf is what an API token allows at a time: no more than its user may do. ok is false
// if it has expired or the user is disabled.
func (s *State) RoleOf(t APIToken, now Stamp) (role Role, ok bool) {
	u, found := s.User(t.User)
	if !found || u.Disabled || t.Expires != 0 && t.Expires <= now {
		return "", false
	}
	if u.Role.rank() < t.Role.rank() {
		return u.Role, true
	}
	return t.Role, true
}
