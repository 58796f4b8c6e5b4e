package identity

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/twinlun/twinlun/target/keep"
)

// Names in a node's folder.
const (
	authorityFile    = "ca.crt"
	authorityKeyFile = "ca.key"
	keyFile          = "node.key"
	certificateFile  = "node.crt"
)

// maxFile is the longest file that is read, in bytes: ten times what any is.
const maxFile = 64 << 10

const (
	certificateBlock = "CERTIFICATE"
	keyBlock         = "PRIVATE KEY"
)

// readFile reads a file of bounded length.
func readFile(dir, name string) (data []byte, mode os.FileMode, err error) {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	data, err = io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s is longer than %d bytes, so it is something else", f.Name(), maxFile)
	}
	return data, info.Mode(), err
}

// readKey reads a private key that nobody else can read.
func readKey(dir, name string) (*ecdsa.PrivateKey, error) {
	data, mode, err := readFile(dir, name)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, name)
	if mode.Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s has the mode %04o, so others than its owner can use it: chmod 600 it, and if somebody may have read it, remove this node from the cluster and join it anew", path, mode.Perm())
	}
	key, err := parseKeyPEM(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; bring it back from a copy, or remove this node from the cluster and join it anew", path, err)
	}
	return key, nil
}

func parseKeyPEM(data []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != keyBlock {
		return nil, errors.New("there is no private key in it")
	}
	return parseKey(block.Bytes)
}

// parseKey takes PKCS #8.
func parseKey(der []byte) (*ecdsa.PrivateKey, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("the private key in it cannot be understood: %w", err)
	}
	k, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("the private key in it is a %T, not ECDSA P-256", key)
	}
	return k, checkKey(k.Public())
}

func readCertificates(dir, name string) ([]*x509.Certificate, error) {
	data, _, err := readFile(dir, name)
	if err != nil {
		return nil, err
	}
	list, err := parseCertificatesPEM(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; bring it back from a copy", filepath.Join(dir, name), err)
	}
	return list, nil
}

func parseCertificatesPEM(data []byte) (list []*x509.Certificate, err error) {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != certificateBlock || len(list) == maxAuthorities {
			return nil, fmt.Errorf("it has more than up to %d certificates in it", maxAuthorities)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("a certificate in it cannot be understood: %w", err)
		}
		list = append(list, cert)
	}
	if len(list) == 0 {
		return nil, errors.New("there is no certificate in it")
	}
	return list, nil
}

func writeKey(dir, name string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return replaceFile(dir, name, pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der}))
}

func writeCertificates(dir, name string, list []*x509.Certificate) error {
	var text []byte
	for _, cert := range list {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: certificateBlock, Bytes: cert.Raw})...)
	}
	return replaceFile(dir, name, text)
}

// replaceFile has a file with these bytes, durably, or leaves the one that was there.
func replaceFile(dir, name string, data []byte) error {
	path := filepath.Join(dir, name)
	if err := keep.Replace(path, data); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
