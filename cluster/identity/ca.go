package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"
)

const (
	// CertificateLife is how long a node's certificate is good. It is renewed after two
	// thirds: a month is left to notice that renewing fails.
	CertificateLife = 90 * 24 * time.Hour
	// authorityLife is longer than the hardware lives: a cluster whose CA has expired is
	// dead at once, with nobody having done anything.
	authorityLife = 20 * 365 * 24 * time.Hour
	// clockSkew is how much earlier a certificate begins, so that a node whose clock is
	// behind takes it.
	clockSkew = time.Hour
)

// CA signs the certificates of a cluster's nodes.
type CA struct {
	cluster ClusterID
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey
}

// NewCA makes the authority of a new cluster, or another one of a cluster.
func NewCA(cluster ClusterID, now time.Time) (*CA, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "twinlun cluster " + cluster.String()},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(authorityLife),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
		PermittedDNSDomainsCritical: true, PermittedDNSDomains: []string{cluster.domain()},
	}
	cert, err := sign(template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return &CA{cluster, cert, key}, nil
}

func newKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return key, nil
}

// sign makes a certificate with a random serial number.
func sign(template, parent *x509.Certificate, pub crypto.PublicKey, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	serial := make([]byte, 16)
	rand.Read(serial)                 // never fails
	serial[0] = serial[0]&0x7f | 0x40 // positive, and of one length
	template.SerialNumber = new(big.Int).SetBytes(serial)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// DeriveKey is a key of 32 bytes that only nodes with the CA's key can have, another one
// for each purpose (HKDF, RFC 5869, with SHA-256). Replacing the CA replaces it.
func (ca *CA) DeriveKey(purpose string) ([]byte, error) {
	secret, err := ca.key.Bytes()
	if err != nil {
		return nil, fmt.Errorf("derive a key: %w", err)
	}
	return hkdf.Key(sha256.New, secret, ca.cluster[:], "twinlun "+purpose, sha256.Size)
}

// Cluster is whose authority this is.
func (ca *CA) Cluster() ClusterID { return ca.cluster }

// Fingerprint is that of the CA's key: what a Token pins.
func (ca *CA) Fingerprint() Fingerprint { return fingerprintOf(ca.cert) }

// Issue makes a node's certificate, good from now on for life. It ends no later than
// the authority does.
func (ca *CA) Issue(node string, key crypto.PublicKey, now time.Time, life time.Duration) (*x509.Certificate, error) {
	if err := errors.Join(CheckNode(node), checkKey(key)); err != nil {
		return nil, fmt.Errorf("issue a certificate: %w", err)
	}
	end := now.Add(life)
	if end.After(ca.cert.NotAfter) {
		end = ca.cert.NotAfter
	}
	name := ca.cluster.ServerName(node)
	return sign(&x509.Certificate{
		Subject:     pkix.Name{CommonName: node},
		DNSNames:    []string{name},
		NotBefore:   now.Add(-clockSkew),
		NotAfter:    end,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},

		BasicConstraintsValid: true,
	}, ca.cert, key, ca.key)
}

// checkKey: other kinds of keys, or much larger ones, would let a stranger say how
// much time is spent on him.
func checkKey(key crypto.PublicKey) error {
	if k, ok := key.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() {
		return fmt.Errorf("a key of the kind %T: it must be ECDSA P-256", key)
	}
	return nil
}

// newAuthority puts an authority together that was kept or sent.
func newAuthority(cert *x509.Certificate, key *ecdsa.PrivateKey) (*CA, error) {
	cluster, err := clusterOf(cert)
	if err != nil {
		return nil, err
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, errors.New("the CA's key and its certificate do not belong together")
	}
	return &CA{cluster, cert, key}, nil
}

// checkAuthorities tells what is wrong with a list of CA certificates, and whose
// cluster they are for.
func checkAuthorities(list []*x509.Certificate) (id ClusterID, err error) {
	if len(list) == 0 || len(list) > maxAuthorities {
		return id, fmt.Errorf("%d CA certificates: 1 to %d are possible", len(list), maxAuthorities)
	}
	for i, cert := range list {
		cluster, err := clusterOf(cert)
		switch {
		case err != nil:
			return id, err
		case i > 0 && cluster != id:
			return id, fmt.Errorf("CA certificates of two clusters, %v and %v", id, cluster)
		case !cert.IsCA || !cert.PermittedDNSDomainsCritical || checkKey(cert.PublicKey) != nil:
			return id, fmt.Errorf("the certificate %q is not that of a CA", cert.Subject)
		case !bytes.Equal(cert.RawIssuer, cert.RawSubject):
			return id, fmt.Errorf("the CA certificate %q is not its own issuer", cert.Subject)
		}
		id = cluster
	}
	return id, nil
}

// maxAuthorities: one, and one that takes its place; some more, should an operator
// begin that again before it has ended.
const maxAuthorities = 4
