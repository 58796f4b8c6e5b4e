package identity

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// Node is who this node is: its name, its key, its present certificate, and the
// authorities that it believes. It may be used from any goroutine.
type Node struct {
	// Fixed by newNode.
	name        string
	cluster     ClusterID
	dir         string // "": it is kept nowhere
	key         *ecdsa.PrivateKey
	authorities []*x509.Certificate
	roots       *x509.CertPool
	ca          *CA // nil: this node does not issue certificates

	present atomic.Pointer[tls.Certificate] // replaced when it is renewed
}

// Peer is a node as its certificate shows it.
type Peer struct {
	Node string
	Key  Fingerprint
}

func (p Peer) String() string { return fmt.Sprintf("%s (key %.16s)", p.Node, p.Key) }

// newNode puts a node together, and checks that the parts belong together. Whether
// the certificate is good now is another question: see Check.
func newNode(dir string, key *ecdsa.PrivateKey, cert *x509.Certificate, authorities []*x509.Certificate, ca *CA) (*Node, error) {
	cluster, err := checkAuthorities(authorities)
	if err != nil {
		return nil, err
	}
	n := &Node{cluster: cluster, dir: dir, key: key, authorities: authorities, roots: x509.NewCertPool(), ca: ca}
	for _, a := range authorities {
		n.roots.AddCert(a)
	}
	if ca != nil && ca.cluster != cluster {
		return nil, fmt.Errorf("the CA's key is that of the cluster %v, its certificate that of %v", ca.cluster, cluster)
	}
	self, err := n.check(cert, cert.NotBefore)
	if err != nil {
		return nil, err
	}
	n.name = self.Node
	n.present.Store(n.chain(cert))
	return n, nil
}

// check takes a certificate for this node, as of a time.
func (n *Node) check(cert *x509.Certificate, at time.Time) (self Peer, err error) {
	if !n.key.PublicKey.Equal(cert.PublicKey) {
		return self, errors.New("the certificate is for another key than that of this node")
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: n.roots, CurrentTime: at}); err != nil {
		return self, fmt.Errorf("the certificate of this node is not from its cluster: %w", err)
	}
	self, err = n.PeerOf(cert)
	if err == nil && n.name != "" && self.Node != n.name {
		err = fmt.Errorf("the certificate is for the node %s, and this one is %s", self.Node, n.name)
	}
	return self, err
}

// chain is what this node shows: its certificate, and that of the CA, which a node
// that joins compares with its token.
func (n *Node) chain(cert *x509.Certificate) *tls.Certificate {
	chain := [][]byte{cert.Raw}
	for _, a := range n.authorities {
		if cert.CheckSignatureFrom(a) == nil {
			chain = append(chain, a.Raw)
			break
		}
	}
	return &tls.Certificate{Certificate: chain, PrivateKey: n.key, Leaf: cert}
}

// NewNode makes a node with a new key, kept in memory alone, which does not issue
// certificates.
func (ca *CA) NewNode(name string, now time.Time, life time.Duration) (*Node, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	cert, err := ca.Issue(name, key.Public(), now, life)
	if err != nil {
		return nil, err
	}
	return newNode("", key, cert, []*x509.Certificate{ca.cert}, nil)
}

// Name is the node's name.
func (n *Node) Name() string { return n.name }

// Cluster is the cluster that the node belongs to.
func (n *Node) Cluster() ClusterID { return n.cluster }

// Self is the node as others see it.
func (n *Node) Self() Peer { return Peer{n.name, fingerprintOf(n.present.Load().Leaf)} }

// Roots are the authorities that the node believes.
func (n *Node) Roots() *x509.CertPool { return n.roots }

// Authority signs for the cluster; nil: not at this node.
func (n *Node) Authority() *CA { return n.ca }

// Certificate is the present one, with its key and its chain: for a handshake, not to
// be kept.
func (n *Node) Certificate() *tls.Certificate { return n.present.Load() }

// Check tells whether the node's certificate is good at a time.
func (n *Node) Check(now time.Time) error {
	cert := n.present.Load().Leaf
	switch {
	case now.Before(cert.NotBefore):
		return fmt.Errorf("the certificate of %s begins at %v, and the clock says %v: set the clock", n.name, cert.NotBefore, now.UTC())
	case now.After(cert.NotAfter):
		return fmt.Errorf("the certificate of %s has ended at %v, and the clock says %v: if the clock is right, this node was away for too long, and has to be removed from the cluster and joined anew", n.name, cert.NotAfter, now.UTC())
	}
	return nil
}

// PeerOf says whose certificate it is. That the certificate is from the cluster's CA
// and good now is checked before, by crypto/tls.
func (n *Node) PeerOf(cert *x509.Certificate) (p Peer, err error) {
	if len(cert.DNSNames) != 1 {
		return p, fmt.Errorf("the certificate has %d names instead of one", len(cert.DNSNames))
	}
	if err := checkKey(cert.PublicKey); err != nil {
		return p, err
	}
	p.Node, err = n.cluster.nodeOf(cert.DNSNames[0])
	p.Key = fingerprintOf(cert)
	return p, err
}

// Replace has the node show another certificate from now on, and keeps it. Nothing
// changes for connections that are up.
func (n *Node) Replace(der []byte, now time.Time) error {
	cert, err := x509.ParseCertificate(der)
	if err == nil {
		_, err = n.check(cert, now)
	}
	if err == nil && n.dir != "" {
		err = writeCertificates(n.dir, certificateFile, []*x509.Certificate{cert})
	}
	if err != nil {
		return fmt.Errorf("new certificate for %s: %w", n.name, err)
	}
	n.present.Store(n.chain(cert))
	return nil
}
