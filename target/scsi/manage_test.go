package scsi

import (
	"errors"
	"testing"
)

// told is a disk that knows how much space it takes.
type told struct {
	*ram
	used, available int64
	ok              bool
}

func (d *told) Provisioning() (int64, int64, bool) { return d.used, d.available, d.ok }

// TestProvisioningLog counts in threshold sets of 1 MiB, as VPD page B2h says.
func TestProvisioningLog(t *testing.T) {
	disk := &told{newRAM(64 * 512), 5<<20 - 1, 1 << 60, true}
	h := newHosts(t, testLUN(disk))
	const available, used = "0001 03 08 ffffffff 02 000000", "0002 03 08 00000004 01 000000"
	h.wantData(h.do("12 01 b2 00ff 00", nil, 255), "00 b2 0004 0b e4 02 00")
	h.wantData(h.do("4d 00 00 00 00 0000 00ff 00", nil, 255), "00 00 0002 00 0c")
	h.wantData(h.do("4d 00 00 ff 00 0000 00ff 00", nil, 255), "40 ff 0006 0000 00ff 0c00")
	h.wantData(h.do("4d 00 4c 00 00 0000 00ff 00", nil, 255), "0c 00 0018"+available+used)
	h.wantData(h.do("4d 00 4c 00 00 0002 00ff 00", nil, 255), "0c 00 000c"+used)
	h.want(h.do("4d 00 4c 00 00 0003 00ff 00", nil, 255), "5 2400 c00005")
	h.want(h.do("4d 00 0c 00 00 0000 00ff 00", nil, 255), "5 2400 cf0002")
	h.want(h.do("4d 00 4c 01 00 0000 00ff 00", nil, 255), "5 2400 c00003")
	disk.ok = false
	h.wantData(h.do("4d 00 4c 00 00 0000 00ff 00", nil, 255), "0c 00 0000")
}

// TestDiagnostic is the self-test, and the only page.
func TestDiagnostic(t *testing.T) {
	r := newRig(t)
	for _, tt := range []struct {
		cdb, list, want, calls string
		fail                   error
	}{
		{"1d 04", "", "good", "read 0+512", nil},
		{"1d 17", "", "good", "read 0+512", nil},
		{"1d 04", "", "4 3e03", "read 0+512", errors.New("bad sector")},
		{"1d 04", "", "2 0401", "read 0+512", fails(true)},
		{"1d 00", "", "good", "", nil},
		{"1d 10 00 0004", "00000000", "good", "", nil},
		{"1d 10 00 0004", "40000000", "5 2600 800000", "", nil},
		{"1d 10 00 0004", "00000100", "5 2600 800002", "", nil},
	} {
		r.disk.fail = tt.fail
		r.want(r.do(tt.cdb, unhex(t, tt.list), 0), tt.want)
		if got := r.disk.took(); got != tt.calls {
			t.Errorf("%s: disk saw %q, want %q", tt.cdb, got, tt.calls)
		}
	}
}

// TestPortsPage lists the ports of both sites.
func TestPortsPage(t *testing.T) {
	h := newSites(t, 0)
	port := func(relative, tag string) string {
		return "0000 " + relative + " 0000 0000 0000 0028 53 98 00 24" + ascii(testName+",t,0x"+tag) + "000000"
	}
	h.wantData(h.do("12 01 88 00ff 00", nil, 255), "00 88 009c"+port("0001", "0001")+port("0002", "0002")+port("0003", "0003"))
}
