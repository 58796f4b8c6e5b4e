package scsi

import (
	"slices"

	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"github.com/twinlun/twinlun/target/sam"
)

// physicalBlock is told as the physical block size: what the replica and the
// coherence protocol work with.
const physicalBlock = 4096

// capacity16Size is the length of READ CAPACITY (16) parameter data.
const capacity16Size = 32

// newModel builds gotgt's model of a logical unit. Its size is left 0, and set
// in a copy for each command that needs it: a LUN can grow.
func newModel(l LUN, shift uint) api.SCSILu {
	lu := api.SCSILu{
		BlockShift:     shift,
		SCSIVendorID:   l.Vendor,
		SCSIProductID:  l.Product,
		DeviceProtocol: newProtocol(),
		PerformCommand: perform,
	}
	lu.Attrs = api.SCSILuPhyAttribute{
		SCSISN: l.Serial, VendorID: l.Vendor, ProductID: l.Product, ProductRev: l.Revision,
		// SAM-5, iSCSI, SPC-4, SBC-3; no version claimed (SPC-4 table 154).
		VersionDesction:  [8]uint16{0x00a0, 0x0960, 0x0460, 0x04c0},
		DeviceType:       api.TYPE_DISK,
		ThinProvisioning: true,
		Online:           true,
	}
	for 1<<(shift+uint(lu.Attrs.Lbppbe)) < physicalBlock {
		lu.Attrs.Lbppbe++
	}
	return lu
}

// protocol is gotgt's device protocol for disks, its operation table cut down to
// the functions that are kept.
type protocol struct{ gotgt.SBCSCSIDeviceProtocol }

// newProtocol keeps what TestModel proves right, and refuses all else.
func newProtocol() protocol {
	p := protocol{gotgt.NewSBCDevice(api.TYPE_DISK).(gotgt.SBCSCSIDeviceProtocol)}
	for code := range p.SCSIDeviceOps {
		switch api.SCSICommandType(code) {
		case api.TEST_UNIT_READY, api.READ_CAPACITY:
		case api.SERVICE_ACTION_IN:
			p.SCSIDeviceOps[code] = gotgt.NewSCSIDeviceOperation(refuse, []*gotgt.SCSIServiceAction{{
				ServiceAction:      uint8(api.SAI_READ_CAPACITY_16),
				CommandPerformFunc: gotgt.SBCReadCapacity16,
			}}, 0)
		default:
			p.SCSIDeviceOps[code] = gotgt.NewSCSIDeviceOperation(refuse, nil, 0)
		}
	}
	return p
}

// refuse stands where gotgt's function would lie, panic or reach its globals.
func refuse(int, *api.SCSICommand) api.SAMStat { return api.SAMStatCheckCondition }

// perform is the model's entry. gotgt's own one answers GOOD to what it does not
// know.
func perform(host int, cmd *api.SCSICommand) api.SAMStat {
	p := cmd.Device.DeviceProtocol
	op := p.PerformCommand(int(cmd.SCB[0])).(gotgt.SCSIDeviceOperation)
	if op.ServiceAction == nil {
		return op.CommandPerformFunc(host, cmd)
	}
	action, ok := p.PerformServiceAction(int(cmd.SCB[0]), cmd.SCB[1]&0x1f).(*gotgt.SCSIServiceAction)
	if !ok {
		return refuse(host, cmd)
	}
	return action.CommandPerformFunc(host, cmd)
}

// ask has the model carry out a CDB, which must be one of ours or have passed
// operation.check, with a zeroed buffer of the full size.
func (u *unit) ask(cdb []byte, size int) ([]byte, bool) {
	lu := u.lu
	lu.Size = uint64(u.disk.Size())
	in := api.SCSIDataBuffer{Buffer: make([]byte, size), Length: uint32(size)}
	cmd := api.SCSICommand{OpCode: cdb[0], Device: &lu, SCB: cdb, SCBLength: len(cdb), InSDBBuffer: &in}
	stat := lu.PerformCommand(0, &cmd)
	return in.Buffer, stat.Stat == api.SAM_STAT_GOOD
}

func testUnitReady(v *view, c *sam.Command) sense {
	if _, ready := v.unit.ask(c.CDB, 0); !ready {
		return sense{key: gotgt.NOT_READY, code: codeBecomingReady}
	}
	return sense{}
}

func readCapacity10(v *view, c *sam.Command) ([]byte, sense) {
	data, ok := v.unit.ask(c.CDB, 8)
	if !ok {
		return nil, illegal(gotgt.ASC_INVALID_FIELD_IN_CDB)
	}
	return data, sense{}
}

// readCapacity16 asks with an allocation length of our own: the model leaves
// fields out below its full size. LBPRZ is not in the model.
func readCapacity16(v *view, c *sam.Command) ([]byte, sense) {
	cdb := slices.Clone(c.CDB[:16])
	copy(cdb[10:14], []byte{0, 0, 0, capacity16Size})
	data, ok := v.unit.ask(cdb, capacity16Size)
	if !ok {
		return nil, illegal(gotgt.ASC_INVALID_FIELD_IN_CDB)
	}
	data[14] |= 0x40
	return data, sense{}
}
