// Package transport is the one port between the nodes of a cluster: TLS 1.3 over TCP,
// with certificates of the cluster's own CA at both ends, and with a Protocol, by ALPN
// (RFC 7301), for everything that nodes tell each other.
//
// A Conn that comes out of Dial or a Listener has a peer whose name and key are proven,
// who was in the cluster a moment ago, and who has said the same of this node. When the
// list of nodes changes, Recheck closes what is open with those that are no longer on
// it. Only the Join protocol needs no certificate: it carries one bounded request.
//
// What strangers can make this node spend is bounded by Limits, and never at the cost
// of nodes: see strangers. DESIGN.md tells how a handshake goes, and who sends.
package transport
