package scsi

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/twinlun/twinlun/target/reservation"
	"github.com/twinlun/twinlun/target/sam"
)

// The TransportID of an iSCSI initiator port (SPC-4 7.6.4.6):
//
//	offset size
//	     0    1  bits 7-6: format, 0 a device, 1 a port; bits 3-0: 5
//	     1    1  reserved
//	     2    2  length of what follows, a multiple of four, at least 20
//	     4    …  name of the device; of a port, then ",i,0x" and the ISID in hex; zeros
const (
	transportHeader  = 4
	transportLeast   = 20
	transportISCSI   = 0x05
	transportPort    = 0x40
	transportDivider = ",i,0x"
)

// portName is an initiator port's name in a TransportID.
func portName(p sam.InitiatorPort) string {
	return fmt.Sprintf("%s%s%012x", p.Name, transportDivider, p.ISID)
}

// appendTransportID appends the TransportID of an initiator port.
func appendTransportID(p []byte, name string) []byte {
	size := max(transportLeast, len(name)/4*4+4)
	p = append(p, transportPort|transportISCSI, 0)
	p = binary.BigEndian.AppendUint16(p, uint16(size))
	return append(append(p, name...), make([]byte, size-len(name))...)
}

// cutTransportID reads the first of a list of TransportIDs. The name is that of a
// port, or of a device, which has no divider in it. It is not ok if it is cut off,
// or malformed.
func cutTransportID(p []byte) (name string, rest []byte, ok bool) {
	if len(p) < transportHeader {
		return "", nil, false
	}
	size := int(binary.BigEndian.Uint16(p[2:]))
	if size < transportLeast || size%4 != 0 || size > len(p)-transportHeader {
		return "", nil, false
	}
	text, zeros, ended := bytes.Cut(p[transportHeader:transportHeader+size], []byte{0})
	rest = p[transportHeader+size:]
	// Names are compared byte by byte; ISIDs are kept in small letters.
	name = string(text)
	device, isid, hasISID := strings.Cut(name, transportDivider)
	name = device
	if hasISID {
		name += transportDivider + strings.ToLower(isid)
	}
	switch {
	case !ended || !allZero(zeros) || p[1] != 0 || len(device) == 0 || len(name) > reservation.MaxName:
		return "", nil, false
	case p[0] == transportISCSI:
		return name, rest, !hasISID
	case p[0] == transportPort|transportISCSI:
		return name, rest, hasISID && isHex(isid, 12)
	}
	return "", nil, false
}

func isHex(s string, size int) bool {
	return len(s) == size && strings.Trim(s, "0123456789abcdefABCDEF") == ""
}
