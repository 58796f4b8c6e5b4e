package iscsi

import (
	"testing"

	"github.com/twinlun/twinlun/target/sam"
)

// manage sends an immediate task management request about a command, and waits
// for the response.
func (i *initiator) manage(f sam.TaskFunction, about header, want byte) *received {
	i.t.Helper()
	i.sendManage(f, about)
	return i.managed(want)
}

func (i *initiator) sendManage(f sam.TaskFunction, about header) {
	i.t.Helper()
	h := i.request(bitImmediate | opTaskMgmt)
	h[1] |= byte(f)
	copy(h[8:16], about[8:16])
	h.put32(20, about.tag())
	h.put32(32, about.u32(24))
	i.send(h, nil)
}

func (i *initiator) managed(want byte) *received {
	i.t.Helper()
	r := i.recv(opTaskResp)
	if r.header[2] != want || r.tag() != i.tag {
		i.t.Fatalf("task management response % x, not %d", r.header, want)
	}
	return r
}

func TestAbortTask(t *testing.T) {
	r := newRig(t, Limits{})
	i := r.login()
	h := i.scsi(bitFinal, 0, opHang, 0, 0)
	i.send(h, nil)
	<-r.disk.hung
	other := h
	other[9] = 1
	i.manage(sam.AbortTask, other, tmfNoTask) // the tag, on another LUN
	i.manage(sam.AbortTask, h, tmfComplete)
	if len(r.disk.freed) != 1 {
		t.Fatal("the response came before the command's end")
	}
	i.manage(sam.AbortTask, h, tmfNoTask)
	i.echo() // and no answer of the command
	h = i.scsi(bitFinal, 0, 0, 0, 0)
	h.put32(16, other.tag()) // the tag is free again
	i.send(h, nil)
	i.status(h.tag(), 0)
}

// TestAbortWhileDataComes aborts a write between its R2T and its data.
func TestAbortWhileDataComes(t *testing.T) {
	i := newRig(t, Limits{}).login("ImmediateData=No")
	h := i.scsi(isWrite, 1024, write10, 0, 2)
	i.send(h, nil)
	tag := i.recv(opR2T).u32(20)
	i.manage(sam.AbortTask, h, tmfComplete)
	i.sendData(h.tag(), tag, pattern(0, 1024), 0, 1024, 512)
	i.echo()
	i.readBack(0, make([]byte, 1024), 8192, 1<<20)
}

// TestAbortUnreceived names the next command as one that got lost: its CmdSN
// counts as received.
func TestAbortUnreceived(t *testing.T) {
	i := newRig(t, Limits{}).login()
	lost := i.scsi(bitFinal, 0, 0, 0, 0)
	if r := i.manage(sam.AbortTask, lost, tmfComplete); r.u32(28) != i.cmdSN {
		t.Errorf("ExpCmdSN %d, not %d", r.u32(28), i.cmdSN)
	}
	h := i.scsi(bitFinal, 0, 0, 0, 0)
	i.send(h, nil)
	i.status(h.tag(), 0)
}

func TestTaskFunctions(t *testing.T) {
	var lun1 header
	lun1[9] = 1
	for _, c := range []struct {
		name   string
		f      sam.TaskFunction
		about  header
		want   byte
		ends   int // of two own commands
		others bool
		reset  bool
	}{
		{"abort task set", sam.AbortTaskSet, header{}, tmfComplete, 2, false, false},
		{"abort task set of no LUN", sam.AbortTaskSet, lun1, tmfNoLUN, 0, false, false},
		{"clear task set", sam.ClearTaskSet, header{}, tmfComplete, 2, true, false},
		{"clear task set of no LUN", sam.ClearTaskSet, lun1, tmfNoLUN, 0, false, false},
		{"LUN reset", sam.LogicalUnitReset, header{}, tmfComplete, 2, true, true},
		{"LUN reset of no LUN", sam.LogicalUnitReset, lun1, tmfNoLUN, 0, false, false},
		{"warm reset", sam.TargetWarmReset, header{}, tmfComplete, 2, true, true},
		{"clear ACA", sam.ClearACA, header{}, tmfNotSupported, 0, false, false},
		{"reassign", taskReassign, header{}, tmfNoReassign, 0, false, false},
		{"unknown", 99, header{}, tmfNotSupported, 0, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, Limits{})
			a, b := r.login(), r.dial()
			b.isid[0]++
			b.login()
			for _, i := range []*initiator{a, a, b} {
				i.send(i.scsi(bitFinal, 0, opHang, 0, 0), nil)
				<-r.disk.hung
			}
			a.manage(c.f, c.about, c.want)
			ends := c.ends
			if c.others {
				ends++
			}
			if len(r.disk.freed) != ends {
				t.Errorf("%d commands ended before the response, not %d", len(r.disk.freed), ends)
			}
			r.disk.mu.Lock()
			if reset := len(r.disk.resets) > 0; reset != c.reset {
				t.Errorf("resets %v", r.disk.resets)
			}
			r.disk.mu.Unlock()
			a.echo()
			b.echo()
		})
	}
}

func TestColdReset(t *testing.T) {
	r := newRig(t, Limits{})
	a, b := r.login(), r.dial()
	b.isid[0]++
	b.login()
	a.manage(sam.TargetColdReset, header{}, tmfComplete)
	a.closed()
	b.closed()
	r.login().echo()
}

// TestManageInOrder sends a request that is not immediate.
func TestManageInOrder(t *testing.T) {
	r := newRig(t, Limits{})
	i := r.login()
	i.send(i.scsi(bitFinal, 0, opHang, 0, 0), nil)
	h := i.request(opTaskMgmt)
	h[1] |= byte(sam.AbortTaskSet)
	i.send(h, nil)
	i.managed(tmfComplete)
	i.echo()
}
