package catalog

import (
	"errors"
	"fmt"
)

// Code says what kind of error a command met.
type Code string

// The codes. Values are in snapshots and the API, and never change.
const (
	Invalid     Code = "invalid"       // Field says what; nothing in the catalog would help
	NotFound    Code = "not-found"     // what the command is about does not exist
	Conflict    Code = "conflict"      // not as long as something else is as it is
	Changed     Code = "changed"       // somebody else changed it meanwhile (IfRevision)
	StaleTerm   Code = "stale-term"    // who serves has changed meanwhile, for all LUNs of the command
	Full        Code = "full"          // a bound of the catalog is reached
	Unsupported Code = "unsupported"   // not by all nodes of the cluster, or not yet by anybody
	NoToken     Code = "token-unknown" // no such join token
	TokenUsed   Code = "token-used"
	TokenOld    Code = "token-expired"
	NameTaken   Code = "name-taken" // by a node, or one that was removed
)

// Error is why a command was refused. It changed nothing.
type Error struct {
	Code    Code   `json:"code"`
	Field   string `json:"field,omitempty"` // of the command's body, if it is about one
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"` // what the operator can do
}

// Error is the message, with the field and the hint.
func (e *Error) Error() string {
	text := e.Message
	if e.Field != "" {
		text = e.Field + ": " + text
	}
	if e.Hint != "" {
		text += "; " + e.Hint
	}
	return text
}

// CodeOf is the code of an error of this package; "" for others.
func CodeOf(err error) Code {
	if e := new(Error); errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func invalid(field, format string, args ...any) error {
	return &Error{Code: Invalid, Field: field, Message: fmt.Sprintf(format, args...)}
}

func notFound(what, name string) error {
	return &Error{Code: NotFound, Message: fmt.Sprintf("there is no %s %s", what, name)}
}

func conflict(hint, format string, args ...any) error {
	return &Error{Code: Conflict, Message: fmt.Sprintf(format, args...), Hint: hint}
}

func full(what string, most int) error {
	return &Error{Code: Full, Message: fmt.Sprintf("there are %d %s, and no more are possible", most, what),
		Hint: "remove some that are not needed"}
}

// ErrCannotRead is in the error of Apply when a node cannot read what the cluster has
// agreed upon. It must not go on: what it skipped it would never know of.
var ErrCannotRead = errors.New("this node cannot read the cluster's commands")

// tooNew and unreadable are what stops a node. Both name ErrCannotRead.
func tooNew(what string, version, known int) error {
	return fmt.Errorf("%w: it is older than the cluster's %s (version %d, this program knows %d); upgrade it",
		ErrCannotRead, what, version, known)
}

func unreadable(err error) error {
	return fmt.Errorf("%w: %w; upgrade it, or if all nodes run the same version report this as a bug", ErrCannotRead, err)
}
