// Package identity says who is a node of a cluster, and proves it.
//
// A cluster is its own certificate authority (CA): an ECDSA P-256 key that signs for
// names below CLUSTER.twinlun and for nothing else. A node is a name and a key of its
// own, made where it lives and never sent; its certificate has the one name
// NODE.CLUSTER.twinlun, lives for CertificateLife and is renewed by a Renewer at two
// thirds of that, for the same key. So a node is known for good by its key's
// Fingerprint, and whoever keeps the list of nodes can tell a removed one.
//
// A new node joins with a Token that an operator carries to it: it says where the
// cluster is, which CA to believe, and a secret that is good for one node, once.
//
// A node's folder, mode 0700, has
//
//	ca.crt    the CA's certificate, PEM; several while one takes the place of another
//	ca.key    the CA's key, PEM PKCS #8, mode 0600; only where certificates are issued
//	node.key  the node's key, PEM PKCS #8, mode 0600
//	node.crt  the node's certificate, PEM
//
// Each is replaced as a whole and is flushed before anything relies on it. node.crt
// comes last: with it the folder is complete. DESIGN.md tells why it is so.
package identity
