package identity

import (
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// ErrExists: the folder belongs to a node already.
var ErrExists = errors.New("there is a node's identity already")

// Found makes a new cluster, and its first node, in a folder where no node is.
func Found(dir, node string, now time.Time) (*Node, error) {
	n, err := found(dir, node, now)
	if err != nil {
		return nil, fmt.Errorf("make a cluster in %s: %w", dir, err)
	}
	return n, nil
}

func found(dir, node string, now time.Time) (*Node, error) {
	if err := errors.Join(CheckNode(node), vacant(dir)); err != nil {
		return nil, err
	}
	ca, err := NewCA(NewClusterID(), now)
	if err != nil {
		return nil, err
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	cert, err := ca.Issue(node, key.Public(), now, CertificateLife)
	if err != nil {
		return nil, err
	}
	if err := writeKey(dir, keyFile, key); err != nil {
		return nil, err
	}
	return settle(dir, key, cert, []*x509.Certificate{ca.cert}, ca)
}

// settle writes a node's folder, where its key is already.
func settle(dir string, key *ecdsa.PrivateKey, cert *x509.Certificate, authorities []*x509.Certificate, ca *CA) (*Node, error) {
	n, err := newNode(dir, key, cert, authorities, ca)
	if err != nil {
		return nil, err
	}
	if ca != nil {
		err = writeKey(dir, authorityKeyFile, ca.key)
	} else if err = os.Remove(filepath.Join(dir, authorityKeyFile)); errors.Is(err, fs.ErrNotExist) {
		err = nil // nothing was left of another cluster
	}
	if err != nil {
		return nil, err
	}
	if err := writeCertificates(dir, authorityFile, authorities); err != nil {
		return nil, err
	}
	return n, writeCertificates(dir, certificateFile, []*x509.Certificate{cert})
}

// vacant makes the folder if need be, and refuses one that is complete. What an
// interrupted attempt has left may be replaced.
func vacant(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	_, err := os.Lstat(filepath.Join(dir, certificateFile))
	switch {
	case err == nil:
		return fmt.Errorf("%w: move the folder away, if the node is to belong to another cluster", ErrExists)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return nil
}

// Open takes up a node's identity. fs.ErrNotExist: there is none; this node has
// neither founded nor joined a cluster. Where certificates are issued, one that has
// ended is replaced.
func Open(dir string, now time.Time) (*Node, error) {
	n, err := open(dir)
	if err != nil {
		return nil, fmt.Errorf("identity of this node: %w", err)
	}
	if ends := n.present.Load().Leaf.NotAfter; n.ca != nil && now.After(ends) {
		if err := n.issueOwn(now); err != nil {
			return nil, err
		}
	}
	return n, nil
}

func open(dir string) (*Node, error) {
	certs, err := readCertificates(dir, certificateFile)
	if err != nil {
		return nil, err
	}
	key, err := readKey(dir, keyFile)
	if err != nil {
		return nil, incomplete(err)
	}
	authorities, err := readCertificates(dir, authorityFile)
	if err != nil {
		return nil, incomplete(err)
	}
	ca, err := openAuthority(dir, authorities)
	if err != nil {
		return nil, err
	}
	n, err := newNode(dir, key, certs[0], authorities, ca)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; bring the folder back from a copy, all files of one time", dir, err)
	}
	return n, nil
}

// incomplete keeps a file that is missing from being taken for a node that is new.
func incomplete(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%v: bring it back from a copy, or remove this node from the cluster and join it anew", err)
	}
	return err
}

// openAuthority is nil where no certificates are issued. The key is that of the first
// CA certificate: the one that signs now.
func openAuthority(dir string, authorities []*x509.Certificate) (*CA, error) {
	key, err := readKey(dir, authorityKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	ca, err := newAuthority(authorities[0], key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, authorityKeyFile), err)
	}
	return ca, nil
}

// issueOwn signs this node's own certificate.
func (n *Node) issueOwn(now time.Time) error {
	cert, err := n.ca.Issue(n.name, n.key.Public(), now, CertificateLife)
	if err != nil {
		return err
	}
	return n.Replace(cert.Raw, now)
}

// keepKey is the key of a node that is about to join: the one of an earlier attempt,
// or a new one.
func keepKey(dir string) (*ecdsa.PrivateKey, error) {
	key, err := readKey(dir, keyFile)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if key, err = newKey(); err != nil {
		return nil, err
	}
	return key, writeKey(dir, keyFile, key)
}
