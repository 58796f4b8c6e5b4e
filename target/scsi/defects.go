package scsi

import (
	"github.com/gostor/gotgt/pkg/api"

	"github.com/twinlun/twinlun/target/sam"
)

// codeReadDefects12 is READ DEFECT DATA (12), which gotgt has no name for.
const codeReadDefects12 = api.SCSICommandType(0xb7)

// defectOperations make READ DEFECT DATA (10) and (12), SBC-3 5.18 and 5.19. Media
// have kept their defects to themselves for decades: the lists that were asked for
// (REQ_PLIST, REQ_GLIST) are there, in the format that was asked for, and empty.
func defectOperations() []operation {
	const bits = 0x1f // REQ_PLIST, REQ_GLIST, format
	return []operation{
		answers(operation{code: api.READ_DEFECT_DATA, action: noAction, access: accessReads,
			usage: []byte{0, 0, bits, 0, 0, 0, 0, 0xff, 0xff, 0}}, field(7, 2),
			func(_ *view, c *sam.Command) ([]byte, sense) {
				return []byte{0, c.CDB[2] & bits, 0, 0}, sense{}
			}),
		answers(operation{code: codeReadDefects12, action: noAction, access: accessReads,
			usage: []byte{0, bits, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0}}, field(6, 4),
			func(_ *view, c *sam.Command) ([]byte, sense) {
				return []byte{0, c.CDB[1] & bits, 0, 0, 0, 0, 0, 0}, sense{}
			}),
	}
}
