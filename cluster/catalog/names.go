package catalog

import (
	"net"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// checkName takes names that people give: letters, digits, and . _ - inside.
func checkName(field, name string) error {
	if name == "" || len(name) > maxName {
		return invalid(field, "a name has 1 to %d characters, not %d", maxName, len(name))
	}
	for i, c := range []byte(name) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("._-", rune(c))) {
			return invalid(field, "%.70q: a name has letters and digits, and after the first one also . _ -", name)
		}
	}
	return nil
}

// checkNode takes names that can stand in a certificate: DNS labels in small letters.
func checkNode(field string, name NodeID) error {
	if name == "" || len(name) > maxNode {
		return invalid(field, "a node's name has 1 to %d characters, not %d", maxNode, len(name))
	}
	for _, c := range []byte(name) {
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-') {
			return invalid(field, "%.70q: a node's name has small letters, digits and hyphens", name)
		}
	}
	if name[0] == '-' || name[len(name)-1] == '-' {
		return invalid(field, "%q: a hyphen cannot be the first or last character", name)
	}
	return nil
}

// checkISCSIName takes names of targets and initiators (RFC 7143 section 4.2.7).
func checkISCSIName(field, name string) error {
	kind, _, _ := strings.Cut(name, ".")
	known := kind == "iqn" || kind == "eui" || kind == "naa"
	if !known || len(name) < 5 || len(name) > maxISCSIName || !isISCSIText(name) {
		return invalid(field, "%.230q is no iSCSI name like iqn.2026-01.org.example:disks", name)
	}
	return nil
}

func isISCSIText(name string) bool {
	return utf8.ValidString(name) && !strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r == ',' || r == '/' || r == '*' || r == 0x7f
	})
}

// checkInitiator takes the name of an initiator, or the beginning of one and an asterisk.
func checkInitiator(field, name string) error {
	prefix, wild := strings.CutSuffix(name, "*")
	if !wild {
		return checkISCSIName(field, name)
	}
	if len(prefix) > maxISCSIName || !isISCSIText(prefix) {
		return invalid(field, "%.230q: an asterisk stands at the end, after the beginning of an iSCSI name", name)
	}
	return nil
}

// checkAddress takes host:port. Only a portal may leave the host out: then it is all
// addresses of its node.
func checkAddress(field, a string, portal bool) error {
	host, port, err := net.SplitHostPort(a)
	if err != nil || len(a) > maxAddress || host == "" && !portal {
		return invalid(field, "%.300q must be host:port, or [IPv6 address]:port", a)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port[0] == '+' {
		return invalid(field, "%q: the port must be 1 to 65535", a)
	}
	for _, c := range []byte(host) {
		if c <= ' ' || c > '~' {
			return invalid(field, "%q: the host has a character that no host name has", a)
		}
	}
	return nil
}

// checkText takes a line of text.
func checkText(field, text string, most int) error {
	switch {
	case len(text) > most:
		return invalid(field, "it has %d bytes, and may have %d", len(text), most)
	case !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl):
		return invalid(field, "%.80q has bytes that are no text", text)
	}
	return nil
}
