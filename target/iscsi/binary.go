package iscsi

import (
	"encoding/base64"
	"encoding/hex"
	"strings"
)

// maxBinary is the longest binary value of CHAP, in bytes (RFC 7143 section
// 12.1.3), maxBinaryText what it takes as a text in hexadecimal digits.
const (
	maxBinary     = 1024
	maxBinaryText = 2 + 2*maxBinary
)

// parseBinary reads a large-binary-value: 0x and hexadecimal digits, or 0b and
// base64 (RFC 7143 section 6.1).
func parseBinary(s string) ([]byte, bool) {
	if len(s) < 2 || len(s) > maxBinaryText {
		return nil, false
	}
	var b []byte
	var err error
	switch digits := s[2:]; s[:2] {
	case "0x", "0X":
		b, err = hex.DecodeString(digits)
	case "0b", "0B":
		if strings.ContainsAny(digits, "\r\n") {
			return nil, false // which the decoder would pass over
		}
		b, err = base64.StdEncoding.Strict().DecodeString(digits)
	default:
		return nil, false
	}
	return b, err == nil && len(b) > 0 && len(b) <= maxBinary
}

// formatBinary writes a large-binary-value.
func formatBinary(b []byte) string { return "0x" + hex.EncodeToString(b) }
