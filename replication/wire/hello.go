package wire

import (
	"fmt"
	"unicode"
	"unicode/utf8"
)

// The versions of the protocol that this package speaks.
const (
	MinVersion = 1
	MaxVersion = 1
)

// FeatureCompression: the sender can unpack compressed bodies.
const FeatureCompression = 1 << 0

// MaxNodeName bounds the name of a node, in bytes.
const MaxNodeName = 64

// MaxHandshakeBody bounds the bodies of Hello and Refuse: what a stranger can
// make a node take in.
const MaxHandshakeBody = 1024

// Hello is the first message of every stream: the dialer's, and then the
// listener's in answer, with the dialer's Stream, Streams and Connection. The
// layout is the same in every version of the protocol; later versions may append
// fields, which earlier ones ignore:
//
//	 0   2  lowest version
//	 2   2  highest version
//	 4   4  features
//	 8  16  token
//	24  16  connection
//	40  16  node id
//	56   4  longest body
//	60   1  stream
//	61   1  number of bulk streams
//	62   1  length of the name, 1 to MaxNodeName
//	63   …  name of the node, UTF-8
type Hello struct {
	MinVersion uint16
	MaxVersion uint16
	Features   uint32
	// Token is the same in the configuration of both nodes of a pair. It keeps
	// apart pairs that were mixed up by mistake; it is no secret and no defence.
	Token      [16]byte
	Connection [16]byte // random: joins the streams of one connection
	NodeID     [16]byte // random: tells two nodes apart that were given one name
	MaxBody    uint32   // longest body that the sender takes, in bytes
	Stream     uint8    // 0: control; 1 to Streams: bulk
	Streams    uint8    // number of bulk streams, 1 to MaxBulkStreams
	Node       string   // name of the sender
}

const minHelloSize = 63

// Kind implements Message.
func (*Hello) Kind() Kind  { return KindHello }
func (m *Hello) size() int { return minHelloSize + len(m.Node) }

func (m *Hello) check() error {
	switch {
	case m.MinVersion == 0 || m.MinVersion > m.MaxVersion:
		return fmt.Errorf("versions %d to %d", m.MinVersion, m.MaxVersion)
	case m.Streams == 0 || m.Streams > MaxBulkStreams || m.Stream > m.Streams:
		return fmt.Errorf("stream %d of %d, there can be %d", m.Stream, m.Streams, MaxBulkStreams)
	case m.Node == "" || len(m.Node) > MaxNodeName || !utf8.ValidString(m.Node):
		return fmt.Errorf("name of the node: %.80q", m.Node)
	}
	for _, c := range m.Node {
		if !unicode.IsPrint(c) {
			return fmt.Errorf("name of the node: %q", m.Node)
		}
	}
	return nil
}

func (m *Hello) appendBody(b *Batch) {
	b.u16(m.MinVersion)
	b.u16(m.MaxVersion)
	b.u32(m.Features)
	b.bytes(m.Token[:])
	b.bytes(m.Connection[:])
	b.bytes(m.NodeID[:])
	b.u32(m.MaxBody)
	b.u8(m.Stream)
	b.u8(m.Streams)
	b.u8(uint8(len(m.Node)))
	b.bytes([]byte(m.Node))
}

func (m *Hello) parseBody(p *parser) {
	m.MinVersion = p.u16()
	m.MaxVersion = p.u16()
	m.Features = p.u32()
	m.Token = p.array16()
	m.Connection = p.array16()
	m.NodeID = p.array16()
	m.MaxBody = p.u32()
	m.Stream = p.u8()
	m.Streams = p.u8()
	m.Node = string(p.bytes(int(p.u8())))
	p.rest = nil // a later version's fields
}

// Agree is what two nodes speak with each other: the newest version and the
// features that both know. Both sides come to the same result.
func Agree(a, b *Hello) (version uint16, features uint32, err error) {
	version = min(a.MaxVersion, b.MaxVersion)
	if version < max(a.MinVersion, b.MinVersion) {
		return 0, 0, fmt.Errorf("no common version of the protocol: %s speaks %d to %d, %s speaks %d to %d; upgrade the older one",
			a.Node, a.MinVersion, a.MaxVersion, b.Node, b.MinVersion, b.MaxVersion)
	}
	return version, a.Features & b.Features, nil
}
