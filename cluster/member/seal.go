package member

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/twinlun/twinlun/cluster/identity"
)

// A sealed secret, for the catalog, is
//
//	 0   1  1, the version
//	 1   8  the beginning of the fingerprint of the CA's key: which one has sealed it
//	 9  12  nonce, random
//	21   …  the secret, by AES-256-GCM (NIST SP 800-38D), and 16 bytes of tag; the bytes
//	        before the nonce are authenticated, too
//
// The key is derived from the CA's (identity.CA.DeriveKey): all nodes with replicas have
// it, and no witness.
const (
	sealVersion = 1
	sealPin     = 8
	sealHead    = 1 + sealPin
)

// MaxSecret is the longest secret that Seal takes, in bytes; sealed it fits into the
// catalog.
const MaxSecret = 512

// ErrNoKey: this node cannot open what is sealed.
var ErrNoKey = errors.New("a witness has no key for the cluster's secrets")

// Seal encrypts a secret so that any node with replicas can Unseal it. The same secret
// looks different each time.
func (m *Member) Seal(secret []byte) ([]byte, error) { return seal(m.id.Authority(), secret) }

// Unseal is the reverse of Seal. What was changed, or sealed elsewhere, is an error.
func (m *Member) Unseal(sealed []byte) ([]byte, error) { return unseal(m.id.Authority(), sealed) }

// sealer is the cipher, and how what it seals begins.
func sealer(ca *identity.CA) (c cipher.AEAD, head []byte, err error) {
	if ca == nil {
		return nil, nil, ErrNoKey
	}
	key, err := ca.DeriveKey("secrets in the catalog")
	if err != nil {
		return nil, nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, nil, err
	}
	pin := ca.Fingerprint()
	c, err = cipher.NewGCM(block)
	return c, append([]byte{sealVersion}, pin[:sealPin]...), err
}

func seal(ca *identity.CA, secret []byte) ([]byte, error) {
	if len(secret) > MaxSecret {
		return nil, fmt.Errorf("seal a secret: it has %d bytes, and may have %d", len(secret), MaxSecret)
	}
	c, head, err := sealer(ca)
	if err != nil {
		return nil, fmt.Errorf("seal a secret: %w", err)
	}
	nonce := make([]byte, c.NonceSize())
	rand.Read(nonce) // never fails
	return c.Seal(append(bytes.Clone(head), nonce...), nonce, secret, head), nil
}

func unseal(ca *identity.CA, sealed []byte) ([]byte, error) {
	c, head, err := sealer(ca)
	if err != nil {
		return nil, fmt.Errorf("open a sealed secret: %w", err)
	}
	most := sealHead + c.NonceSize() + MaxSecret + c.Overhead()
	switch {
	case len(sealed) < sealHead+c.NonceSize() || len(sealed) > most:
		return nil, fmt.Errorf("open a sealed secret: it has %d bytes", len(sealed))
	case sealed[0] != sealVersion:
		return nil, fmt.Errorf("open a sealed secret: it is of version %d, and this program knows version %d: install the same version at all nodes", sealed[0], sealVersion)
	case !bytes.Equal(sealed[:sealHead], head):
		return nil, errors.New("open a sealed secret: it was sealed with the key of another CA; enter the secret anew")
	}
	nonce, rest := sealed[sealHead:sealHead+c.NonceSize()], sealed[sealHead+c.NonceSize():]
	secret, err := c.Open(nil, nonce, rest, head)
	if err != nil {
		return nil, errors.New("open a sealed secret: it was changed; enter the secret anew")
	}
	return secret, nil
}
