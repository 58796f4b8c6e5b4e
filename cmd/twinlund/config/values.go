package config

import (
	"encoding/hex"
	"fmt"
	"math"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// integer is the set function of a whole number from lo to hi.
func integer(field func(*Config) *int, lo, hi int) func(*Config, string) error {
	return func(c *Config, v string) error {
		n, err := strconv.Atoi(v)
		if err != nil || n < lo || n > hi {
			return fmt.Errorf("%q is not a whole number from %d to %d", v, lo, hi)
		}
		*field(c) = n
		return nil
	}
}

// duration is the set function of a time above zero.
func duration(field func(*Config) *time.Duration) func(*Config, string) error {
	return func(c *Config, v string) (err error) {
		*field(c), err = parseDuration(v)
		return err
	}
}

func parseDuration(v string) (time.Duration, error) {
	d, err := time.ParseDuration(v)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%q is not a time; write it like 500ms or 2s", v)
	}
	return d, nil
}

var sizeUnits = []struct {
	name  string
	bytes int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"", 1}}

// ParseSize reads a number of bytes: "65536", "64KiB", "10GiB", "1TiB".
func ParseSize(v string) (int64, error) {
	for _, u := range sizeUnits {
		digits, ok := strings.CutSuffix(v, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/u.bytes {
			break
		}
		return n * u.bytes, nil
	}
	return 0, fmt.Errorf("%q is not a number of bytes; write it like 65536, 64KiB, 10GiB or 1TiB", v)
}

// ParseBlockSize reads the size of a LUN's logical blocks, in bytes. The coherence
// protocol's own block has 4096, and hosts that write smaller ones share it.
func ParseBlockSize(v string) (int64, error) {
	n, err := ParseSize(v)
	if err != nil || n != 512 && n != 4096 {
		return 0, fmt.Errorf("%q is no size of blocks; it is 512, which every host takes, or 4096", v)
	}
	return n, nil
}

// FormatSize is a number of bytes as ParseSize reads it, as short as is exact.
func FormatSize(n int64) string {
	for i := len(sizeUnits) - 2; i >= 0; i-- {
		if u := sizeUnits[i]; n != 0 && n%u.bytes == 0 {
			return fmt.Sprintf("%d%s", n/u.bytes, u.name)
		}
	}
	return strconv.FormatInt(n, 10)
}

func parseGroup(v string) (uint16, error) {
	n, err := strconv.ParseUint(v, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not a portal group tag; that is a number from 1 to 65535", v)
	}
	return uint16(n), nil
}

// ParseUUID reads a UUID in the usual form, 8-4-4-4-12 hexadecimal digits.
func ParseUUID(v string) (id [16]byte, err error) {
	raw, err := hex.DecodeString(strings.ReplaceAll(v, "-", ""))
	if err != nil || len(raw) != 16 || len(v) != 36 || FormatUUID([16]byte(raw)) != strings.ToLower(v) {
		return id, fmt.Errorf("%q is not a UUID; make one with uuidgen, or cat /proc/sys/kernel/random/uuid", v)
	}
	return [16]byte(raw), nil
}

// FormatUUID is the usual form of a UUID.
func FormatUUID(id [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

var namePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

func checkName(v string) error {
	if !namePattern.MatchString(v) {
		return fmt.Errorf("%q is not a name; that is 1 to 63 of a-z, 0-9, '.', '_', '-', a letter or digit first", v)
	}
	return nil
}

var iqnPattern = regexp.MustCompile(`^iqn\.[0-9]{4}-(0[1-9]|1[0-2])\.[a-z0-9.-]+(:[a-z0-9.:-]+)?$`)

// checkIQN wants the form of RFC 7143 section 4.2.7.4, in lower case as hosts
// compare names byte by byte.
func checkIQN(v string) error {
	if !iqnPattern.MatchString(v) || len(v) > 223 {
		return fmt.Errorf("%q is not an iSCSI name like iqn.2026-01.org.example:disks", v)
	}
	return nil
}

// checkAddress accepts host:port, and "".
func checkAddress(v string) error {
	if v == "" {
		return nil
	}
	_, port, err := net.SplitHostPort(v)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("%q is not an address like 192.0.2.1:3260", v)
	}
	return nil
}

// parseListen reads a list of addresses.
func parseListen(v string) ([]string, error) {
	all := strings.FieldsFunc(v, func(r rune) bool { return r == ',' || r == ' ' })
	for _, a := range all {
		if err := checkAddress(a); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// checkLoopback accepts host:port on loopback, and "".
func checkLoopback(v string) error {
	if v == "" {
		return nil
	}
	if a, err := netip.ParseAddrPort(v); err != nil || !a.Addr().IsLoopback() {
		return fmt.Errorf("%q is not a loopback address like 127.0.0.1:7490; the status page has no authentication", v)
	}
	return nil
}
