// Package secret keeps texts that nobody is to see: passwords, CHAP secrets, tokens.
//
// It promises that a Text does not show, however it is printed, logged or marshalled,
// alone or deep inside of something: fmt, log/slog, JSON, YAML and whatever else asks for
// encoding.TextMarshaler get a word in its place. Reveal is the only way to the text.
package secret

import (
	"crypto/subtle"
	"fmt"
	"log/slog"
)

// Text is a secret text. The zero value is none. It can be compared with == to the zero
// value only; two that are equal need not be so for ==.
//
// It hides behind a pointer, since fmt prints what it finds in fields that it cannot call
// methods of.
type Text struct{ text *string }

// New makes a secret of a text; "": none.
func New(text string) Text {
	if text == "" {
		return Text{}
	}
	return Text{&text}
}

// Reveal gives the text; "": there is none.
func (t Text) Reveal() string {
	if t.text == nil {
		return ""
	}
	return *t.text
}

// Equal takes the same time wherever two texts of one length differ.
func (t Text) Equal(u Text) bool {
	return subtle.ConstantTimeCompare([]byte(t.Reveal()), []byte(u.Reveal())) == 1
}

const hidden = "(hidden)"

// Format implements fmt.Formatter: the text is hidden from every verb.
func (Text) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(hidden)) }

// String hides the text.
func (Text) String() string { return hidden }

// LogValue implements slog.LogValuer.
func (Text) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText implements encoding.TextMarshaler, and with it that of JSON and YAML.
func (Text) MarshalText() ([]byte, error) { return []byte(hidden), nil }
