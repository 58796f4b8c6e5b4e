package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Bounds of a Token.
const (
	// MaxTokenLife: what lies around for longer is found by somebody else.
	MaxTokenLife = 7 * 24 * time.Hour
	// MaxAddresses, in a token and of a node, are enough for two sites with two each, and
	// as many again.
	MaxAddresses = 8
	maxAddress   = 255 // a long DNS name, with a port
	// MaxTokenText is how much text ParseToken takes, in bytes: longer than any token,
	// with a line break after each few characters.
	MaxTokenText = 8 << 10

	secretSize = 24 // 192 bits: nobody guesses it, however often he may try
)

// tokenPrefix lets a token be recognised where it should not be: in a repository, in
// a log.
const tokenPrefix = "twinlun-join-"

// Token is what a new node needs to join a cluster. As text it is tokenPrefix and, in
// base64 (RFC 4648 section 5, without padding), big endian:
//
//	 0   1  1, the version
//	 1  16  cluster
//	17  32  fingerprint of the CA's key
//	49  24  secret
//	73   8  when it expires, seconds since 1970
//	81   1  number of addresses, 1 to 8; each:
//	        length u8, host:port
//	 …   4  CRC-32C of everything before: a token is often copied by hand
type Token struct {
	Cluster   ClusterID
	Authority Fingerprint
	Secret    Secret
	Expires   time.Time // whole seconds
	Addresses []string  // of nodes that issue certificates, host:port
}

// Secret lets one node into a cluster, once.
type Secret [secretSize]byte

// String hides it: it must not get into a log.
func (Secret) String() string { return "(secret)" }

// GoString hides it, too.
func (Secret) GoString() string { return "(secret)" }

// TokenHash is what the cluster keeps of a token. Who reads it cannot join with it.
type TokenHash [sha256.Size]byte

// Hash is what the cluster knows the secret by.
func (s Secret) Hash(cluster ClusterID) TokenHash {
	h := sha256.New()
	h.Write([]byte("twinlun join token\x00"))
	h.Write(cluster[:])
	h.Write(s[:])
	return TokenHash(h.Sum(nil))
}

// Equal compares in a time that does not tell how much is equal.
func (h TokenHash) Equal(other TokenHash) bool {
	return subtle.ConstantTimeCompare(h[:], other[:]) == 1
}

const tokenVersion = 1

const tokenHead = 1 + 16 + sha256.Size + secretSize + 8 + 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// NewToken makes a token for the authority's cluster. Its hash must be in the catalog
// before anybody uses it.
func (ca *CA) NewToken(addresses []string, now time.Time, life time.Duration) (*Token, error) {
	t := &Token{Cluster: ca.cluster, Authority: ca.Fingerprint(), Expires: now.Add(life).Truncate(time.Second), Addresses: addresses}
	rand.Read(t.Secret[:]) // never fails
	if life <= 0 || life > MaxTokenLife {
		return nil, fmt.Errorf("make a token: it can be good for up to %v, not %v", MaxTokenLife, life)
	}
	if err := t.check(); err != nil {
		return nil, fmt.Errorf("make a token: %w", err)
	}
	return t, nil
}

func (t *Token) check() error {
	return checkAddresses(t.Addresses)
}

func checkAddresses(list []string) error {
	if len(list) == 0 || len(list) > MaxAddresses {
		return fmt.Errorf("%d addresses: there must be 1 to %d", len(list), MaxAddresses)
	}
	for _, a := range list {
		if err := checkAddress(a); err != nil {
			return err
		}
	}
	return nil
}

// checkAddress takes host:port, in characters that can be printed.
func checkAddress(a string) error {
	host, port, err := net.SplitHostPort(a)
	if err != nil || host == "" || len(a) > maxAddress {
		return fmt.Errorf("the address %.300q: it must be host:port, or [IPv6 address]:port", a)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("the address %q: its port must be 1 to 65535", a)
	}
	for _, c := range []byte(host) {
		if c <= ' ' || c > '~' {
			return fmt.Errorf("the address %q: its host has a character that no host name has", a)
		}
	}
	return nil
}

// Text is the token as it is given to people.
func (t *Token) Text() string {
	b := make([]byte, 0, 256)
	b = append(b, tokenVersion)
	b = append(b, t.Cluster[:]...)
	b = append(b, t.Authority[:]...)
	b = append(b, t.Secret[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(t.Expires.Unix()))
	b = append(b, byte(len(t.Addresses)))
	for _, a := range t.Addresses {
		b = append(b, byte(len(a)))
		b = append(b, a...)
	}
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(b)
}

// ParseToken reads what Text has made. White space is passed over anywhere in it: mail
// programs break lines.
func ParseToken(text string) (*Token, error) {
	t, err := parseToken(text)
	if err != nil {
		return nil, fmt.Errorf("this is no join token: %w; copy it once more, all of it", err)
	}
	return t, nil
}

func parseToken(text string) (*Token, error) {
	if len(text) > MaxTokenText {
		return nil, fmt.Errorf("it has %d characters", len(text))
	}
	text = strings.Map(func(c rune) rune {
		if unicode.IsSpace(c) {
			return -1
		}
		return c
	}, text)
	coded, ok := strings.CutPrefix(text, tokenPrefix)
	if !ok {
		return nil, fmt.Errorf("it does not begin with %s", tokenPrefix)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(coded)
	if err != nil {
		return nil, errors.New("it has characters that do not belong in it, or some are missing")
	}
	return decodeToken(b)
}

func decodeToken(b []byte) (*Token, error) {
	if len(b) < tokenHead+crc32.Size {
		return nil, errors.New("its end is missing")
	}
	b, sum := b[:len(b)-crc32.Size], binary.BigEndian.Uint32(b[len(b)-crc32.Size:])
	if crc32.Checksum(b, castagnoli) != sum {
		return nil, errors.New("its checksum is wrong: a character is missing or wrong")
	}
	if b[0] != tokenVersion {
		return nil, fmt.Errorf("it is of version %d, and this program knows version %d: install the version that the cluster runs", b[0], tokenVersion)
	}
	t := &Token{
		Cluster:   ClusterID(b[1:17]),
		Authority: Fingerprint(b[17:49]),
		Secret:    Secret(b[49:73]),
		Expires:   time.Unix(int64(binary.BigEndian.Uint64(b[73:81])), 0),
	}
	for rest := b[tokenHead:]; len(rest) > 0; {
		n := int(rest[0])
		if n > len(rest)-1 || len(t.Addresses) == MaxAddresses {
			return nil, errors.New("its addresses do not end where it ends")
		}
		t.Addresses = append(t.Addresses, string(rest[1:1+n]))
		rest = rest[1+n:]
	}
	if len(t.Addresses) != int(b[81]) {
		return nil, fmt.Errorf("it has %d addresses instead of %d", len(t.Addresses), b[81])
	}
	return t, t.check()
}

// Verify tells whether the other end of a connection, by the certificates that it has
// shown, is a node of the token's cluster: signed by the CA with the token's
// fingerprint, whose certificate it shows, too.
func (t *Token) Verify(shown []*x509.Certificate, now time.Time) error {
	if len(shown) == 0 {
		return errors.New("the other end has shown no certificate")
	}
	roots := x509.NewCertPool()
	for _, cert := range shown[1:] {
		if fingerprintOf(cert) == t.Authority {
			roots.AddCert(cert)
		}
	}
	if _, err := shown[0].Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now}); err != nil {
		return fmt.Errorf("this is not the cluster that the token is for: %w", err)
	}
	if len(shown[0].DNSNames) != 1 {
		return errors.New("this is no node of a cluster")
	}
	_, err := t.Cluster.nodeOf(shown[0].DNSNames[0])
	return err
}
