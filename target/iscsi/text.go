package iscsi

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Bounds of a text that an initiator sends, in one PDU or in several (C bit).
// An answer to maxKeys keys fits into a login response's 8 KiB.
const (
	maxText     = 16 << 10
	maxKeys     = 64
	maxKeySize  = 63  // RFC 7143 section 6.1
	maxValue    = 255 // RFC 7143 section 6.1; of keys other than the two of longestValue
	loginMaxPDU = 8192
)

var errText = errors.New("malformed text (the initiator breaks RFC 7143 section 6.1)")

// pair is a key and its value.
type pair struct{ key, value string }

// parseText cuts a text into its pairs: key=value, each ended by a zero byte;
// the last may lack it. A key that comes twice is an error (RFC 7143 section
// 6.3: no parameter is negotiated twice).
func parseText(text []byte) ([]pair, error) {
	var pairs []pair
	for len(text) > 0 {
		item, rest, _ := bytes.Cut(text, []byte{0})
		text = rest
		if len(item) == 0 {
			continue // zeros at the end are common
		}
		p, err := parsePair(item)
		if err != nil {
			return nil, err
		}
		if len(pairs) == maxKeys {
			return nil, fmt.Errorf("more than %d keys in one text: %w", maxKeys, errText)
		}
		if _, twice := find(pairs, p.key); twice {
			return nil, fmt.Errorf("key %s twice: %w", p.key, errText)
		}
		pairs = append(pairs, p)
	}
	return pairs, nil
}

func parsePair(item []byte) (pair, error) {
	key, value, ok := strings.Cut(string(item), "=")
	switch {
	case !ok:
		return pair{}, fmt.Errorf("%.32q has no equals sign: %w", item, errText)
	case !isKey(key):
		return pair{}, fmt.Errorf("%.80q is no key: %w", key, errText)
	case len(value) > longestValue(key):
		return pair{}, fmt.Errorf("value of %s is %d bytes long, more than %d: %w", key, len(value), longestValue(key), errText)
	}
	return pair{key, value}, nil
}

// longestValue is what a key's value may have, in bytes.
func longestValue(key string) int {
	if key == "CHAP_C" || key == "CHAP_R" {
		return maxBinaryText
	}
	return maxValue
}

// isKey tells whether s is a key-name (RFC 7143 section 6.1), or the one key that
// starts with a small letter, iSCSIProtocolLevel (RFC 7144), and its like.
func isKey(s string) bool {
	letter := func(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
	if len(s) == 0 || len(s) > maxKeySize || !letter(s[0]) {
		return false
	}
	for _, c := range []byte(s) {
		if !letter(c) && (c < '0' || c > '9') && !strings.ContainsRune(".-+@_#/", rune(c)) {
			return false
		}
	}
	return true
}

func find(pairs []pair, key string) (value string, ok bool) {
	for _, p := range pairs {
		if p.key == key {
			return p.value, true
		}
	}
	return "", false
}

// appendPair writes a pair as it stands on the wire.
func appendPair(text []byte, key, value string) []byte {
	text = append(text, key...)
	text = append(text, '=')
	text = append(text, value...)
	return append(text, 0)
}

// collector puts a text together that comes in several PDUs.
type collector struct{ text []byte }

// add takes the next piece. When it is the last, add returns the whole text.
func (c *collector) add(piece []byte, more bool) (text []byte, complete bool, err error) {
	if len(c.text)+len(piece) > maxText {
		return nil, false, fmt.Errorf("text of more than %d bytes: %w", maxText, errText)
	}
	c.text = append(c.text, piece...)
	if more {
		return nil, false, nil
	}
	text, c.text = c.text, nil
	return text, true, nil
}

// sender cuts a text into the pieces that its receiver takes.
type sender struct{ text []byte }

func (o *sender) pending() bool { return len(o.text) > 0 }

// next returns the next piece, of at most size bytes, and whether more follow.
func (o *sender) next(size int) (piece []byte, more bool) {
	n := min(len(o.text), size)
	piece, o.text = o.text[:n], o.text[n:]
	return piece, o.pending()
}

// parseNumber reads a decimal or hexadecimal constant (RFC 7143 section 6.1).
func parseNumber(s string) (uint64, bool) {
	base := 10
	if len(s) > 2 && (s[:2] == "0x" || s[:2] == "0X") {
		s, base = s[2:], 16
	}
	n, err := strconv.ParseUint(s, base, 64)
	return n, err == nil
}
