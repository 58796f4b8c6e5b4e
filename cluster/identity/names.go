package identity

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"strings"
)

// MaxNode is the longest name of a node, in bytes: a label of a DNS name (RFC 1035
// section 2.3.4).
const MaxNode = 63

// CheckNode tells what is wrong with a node's name. A name is part of a DNS name, and
// those do not tell capital letters from small ones.
func CheckNode(name string) error {
	if name == "" || len(name) > MaxNode {
		return fmt.Errorf("a node's name has 1 to %d characters, not %d", MaxNode, len(name))
	}
	for _, c := range []byte(name) {
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-') {
			return fmt.Errorf("a node's name %.70q: only small letters, digits and hyphens are possible", name)
		}
	}
	if name[0] == '-' || name[len(name)-1] == '-' {
		return fmt.Errorf("a node's name %q: a hyphen cannot be its first or last character", name)
	}
	return nil
}

// ClusterID tells clusters apart. It is random, and no secret.
type ClusterID [16]byte

// NewClusterID makes one.
func NewClusterID() (id ClusterID) {
	rand.Read(id[:]) // never fails
	return id
}

// String is 32 hexadecimal digits.
func (id ClusterID) String() string { return hex.EncodeToString(id[:]) }

const topDomain = "twinlun"

// domain is what the names of all nodes end with.
func (id ClusterID) domain() string { return id.String() + "." + topDomain }

// ServerName is the name in a node's certificate.
func (id ClusterID) ServerName(node string) string { return node + "." + id.domain() }

// nodeOf is the reverse of ServerName.
func (id ClusterID) nodeOf(serverName string) (node string, err error) {
	node, ours := strings.CutSuffix(serverName, "."+id.domain())
	if !ours {
		return "", fmt.Errorf("%.150q is no node of the cluster %v", serverName, id)
	}
	return node, CheckNode(node)
}

// clusterOf takes the cluster's id out of a CA certificate.
func clusterOf(ca *x509.Certificate) (id ClusterID, err error) {
	if len(ca.PermittedDNSDomains) != 1 {
		return id, fmt.Errorf("the CA certificate %q is not that of a cluster", ca.Subject)
	}
	text, ours := strings.CutSuffix(ca.PermittedDNSDomains[0], "."+topDomain)
	raw, err := hex.DecodeString(text)
	if err != nil || !ours || len(raw) != len(id) {
		return id, fmt.Errorf("the CA certificate %q is for %.150q, which is no cluster", ca.Subject, ca.PermittedDNSDomains[0])
	}
	return ClusterID(raw), nil
}

// Fingerprint names a public key: the SHA-256 of its SubjectPublicKeyInfo (RFC 5280
// section 4.1.2.7). That of a node stays when its certificate is renewed.
type Fingerprint [sha256.Size]byte

// String is 64 hexadecimal digits.
func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// FingerprintOf names a key of this package's kind.
func FingerprintOf(key crypto.PublicKey) (Fingerprint, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return Fingerprint{}, fmt.Errorf("fingerprint of a public key: %w", err)
	}
	return sha256.Sum256(der), nil
}

func fingerprintOf(cert *x509.Certificate) Fingerprint {
	return sha256.Sum256(cert.RawSubjectPublicKeyInfo)
}
