package demo

import (
	"fmt"
	"net"
	"strconv"
)

// Offsets from the base port, see the package comment.
const (
	statusOffset  = 1
	lineOffset    = 2
	controlOffset = 3
	nodeOffset    = 4 // of site a
	siteOffset    = 10
	peerOffset    = 12 // of site b
	backOffset    = 13
	witnessOffset = 14
	portsTaken    = 14 // the highest one
)

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// checkPorts finds a port that somebody else has, before anything is started.
func checkPorts(base int) error {
	for _, offset := range []int{0, statusOffset, lineOffset, controlOffset, nodeOffset, siteOffset, siteOffset + statusOffset, peerOffset, backOffset, witnessOffset} {
		l, err := net.Listen("tcp", address(base+offset))
		if err != nil {
			return fmt.Errorf("port %d is not free: %w; stop what has it (perhaps another demo), or choose another --base-port", base+offset, err)
		}
		l.Close()
	}
	return nil
}
