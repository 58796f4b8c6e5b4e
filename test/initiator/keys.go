package initiator

import (
	"bytes"
	"strconv"
	"strings"
)

// maxText bounds the text of a login or of a discovery; 64 KiB are hundreds of
// targets.
const maxText = 64 << 10

// pair is a text key with its value (RFC 7143 section 6.1).
type pair struct{ key, value string }

func encodeKeys(keys []pair) []byte {
	var b bytes.Buffer
	for _, k := range keys {
		b.WriteString(k.key + "=" + k.value + "\x00")
	}
	return b.Bytes()
}

// parseKeys takes text apart. Keys are 1 to 63 characters, values up to 255
// (8192 bytes in the large ones, which take a length of their own that is not
// checked here).
func parseKeys(text []byte) ([]pair, error) {
	var keys []pair
	for len(text) > 0 {
		one, rest, ended := bytes.Cut(text, []byte{0})
		if !ended {
			return nil, protocolError("text key without its NUL: %.80q", one)
		}
		text = rest
		key, value, ok := strings.Cut(string(one), "=")
		if !ok || key == "" || len(key) > 63 || !keyName(key) {
			return nil, protocolError("no text key: %.80q", one)
		}
		keys = append(keys, pair{key, value})
	}
	return keys, nil
}

// keyName checks the characters of a key name (RFC 7143 section 6.1).
func keyName(s string) bool {
	for i, c := range []byte(s) {
		letter := c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
		other := c >= '0' && c <= '9' || strings.IndexByte(".-+@_/", c) >= 0
		if !letter && (i == 0 || !other) {
			return false
		}
	}
	return true
}

// parseNumber takes a numerical value, decimal or hexadecimal.
func parseNumber(s string) (int, error) {
	base := 10
	if rest, ok := strings.CutPrefix(strings.ToLower(s), "0x"); ok {
		s, base = rest, 16
	}
	n, err := strconv.ParseUint(s, base, 31)
	return int(n), err
}

func yesNo(b bool) string {
	if b {
		return "Yes"
	}
	return "No"
}

func crcOrNone(b bool) string {
	if b {
		return "CRC32C"
	}
	return "None"
}
