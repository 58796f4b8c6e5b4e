package catalog

import (
	"encoding/hex"
	"fmt"
	"time"
)

// NodeID is a node's name, which is also in its certificate. Names are not used again.
type NodeID string

// UUID names LUNs, commands and the like. As text it is 8-4-4-4-12 hexadecimal digits,
// in small letters.
type UUID [16]byte

// String is its text.
func (u UUID) String() string {
	h := hex.EncodeToString(u[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// MarshalText is its text.
func (u UUID) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText reads its text.
func (u *UUID) UnmarshalText(text []byte) error {
	id, err := ParseUUID(string(text))
	*u = id
	return err
}

// ParseUUID reads the text of a UUID.
func ParseUUID(text string) (u UUID, err error) {
	if len(text) == 36 {
		_, err = hex.Decode(u[:], []byte(text[:8]+text[9:13]+text[14:18]+text[19:23]+text[24:]))
	}
	if err != nil || u.String() != text {
		return UUID{}, fmt.Errorf("%.40q is no UUID like 6ba7b810-9dad-11d1-80b4-00c04fd430c8", text)
	}
	return u, nil
}

func (u UUID) zero() bool    { return u == UUID{} }
func (u UUID) key() string   { return string(u[:]) }
func uuidOf(key string) UUID { return UUID([]byte(key)) }

// Hash is a SHA-256: of a token, or of a node's public key. As text it is 64 hexadecimal
// digits.
type Hash [32]byte

// String is its text.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText is its text.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads its text.
func (h *Hash) UnmarshalText(text []byte) error { return unhex(h[:], text) }

func (h Hash) key() string { return string(h[:]) }

// NAA is a LUN's identifier for hosts (SPC-4 7.8.6.6): 16 bytes, or 8 and then zeros. As
// text it is 32 hexadecimal digits.
type NAA [16]byte

// String is its text.
func (n NAA) String() string { return hex.EncodeToString(n[:]) }

// MarshalText is its text.
func (n NAA) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText reads its text.
func (n *NAA) UnmarshalText(text []byte) error { return unhex(n[:], text) }

func unhex(to, text []byte) error {
	if len(text) != 2*len(to) {
		return fmt.Errorf("%.70q does not have %d hexadecimal digits", text, 2*len(to))
	}
	_, err := hex.Decode(to, text)
	return err
}

// Stamp is a time of day, in milliseconds since 1970, by the clock of the node that
// proposed a command. Clocks differ: nothing but display and the expiry of tokens
// depends on it.
type Stamp int64

// StampOf is the Stamp of a time.
func StampOf(t time.Time) Stamp { return Stamp(t.UnixMilli()) }

// Time is the time of a Stamp.
func (s Stamp) Time() time.Time { return time.UnixMilli(int64(s)).UTC() }

// Duration is a time.Duration whose text is like 500ms.
type Duration time.Duration

// String is its text.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText is its text.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads its text.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}
