package iscsi

import (
	"fmt"
	"maps"
	"slices"
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

// TestAbortWhileDataComes ends a write between its R2T and its data, by whatever function:
// it is answered at once, for some initiators send no data any more; what others send
// still, before the response or after, goes nowhere; and the tag can be used again.
func TestAbortWhileDataComes(t *testing.T) {
	for _, f := range []sam.TaskFunction{sam.AbortTask, sam.AbortTaskSet, sam.ClearTaskSet, sam.LogicalUnitReset, sam.TargetWarmReset} {
		i := newRig(t, Limits{}).login("ImmediateData=No", "InitialR2T=No")
		h := i.scsi(isWrite, 2048, write10, 0, 4)
		i.send(h, nil)
		tag := i.recv(opR2T).u32(20)
		early := i.scsi(bitWrite, 2048, write10, 0, 4) // unsolicited data follows
		i.send(early, nil)
		data := pattern(0, 2048)
		i.send(i.dataOut(h.tag(), tag, 0, 0, false), data[:512])
		i.manage(f, h, tmfComplete)
		i.send(i.dataOut(h.tag(), tag, 1, 512, true), data[512:])
		if f == sam.AbortTask {
			i.manage(f, early, tmfComplete)
		}
		i.send(i.dataOut(early.tag(), noTag, 0, 0, true), data)
		i.echo()
		i.readBack(0, make([]byte, 2048), 8192, 1<<20)
		again := i.scsi(isWrite, 1024, write10, 0, 2)
		again.put32(16, h.tag())
		i.send(again, nil)
		i.sendData(h.tag(), i.recv(opR2T).u32(20), data, 0, 1024, 512)
		i.status(h.tag(), 0)
		i.readBack(0, data[:1024], 8192, 1<<20)
	}
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
		// Those of RFC 7144, which are for who has agreed upon iSCSIProtocolLevel 2.
		{"query task", 9, header{}, tmfNotSupported, 0, false, false},
		{"query task set", 10, header{}, tmfNotSupported, 0, false, false},
		{"I_T nexus reset", 11, header{}, tmfNotSupported, 0, false, false},
		{"query asynchronous event", 12, header{}, tmfNotSupported, 0, false, false},
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

// second logs another initiator port in.
func (r *rig) second(extra ...string) *initiator {
	r.t.Helper()
	i := r.dial()
	i.isid[0]++
	i.login(extra...)
	return i
}

// enders are the ways to end the commands of all on LUN 0.
var enders = map[string]func(i *initiator){
	"clear task set": func(i *initiator) { i.manage(sam.ClearTaskSet, header{}, tmfComplete) },
	"LUN reset":      func(i *initiator) { i.manage(sam.LogicalUnitReset, header{}, tmfComplete) },
	"warm reset":     func(i *initiator) { i.manage(sam.TargetWarmReset, header{}, tmfComplete) },
	"preempt and abort": func(i *initiator) {
		h := i.scsi(bitFinal, 0, opPreempt, 0, 0)
		i.send(h, nil)
		i.status(h.tag(), 0)
	},
}

// TestTaskAborted has commands ended by another initiator, one that runs, and one
// that waits for data: with TAS both are told so, without it nothing comes, and
// data that was under way is dropped.
func TestTaskAborted(t *testing.T) {
	for name, end := range enders {
		for _, tas := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, TAS %v", name, tas), func(t *testing.T) {
				r := newRig(t, Limits{})
				r.disk.tas = tas // before anyone logs in
				a, b := r.login(), r.second("ImmediateData=No")
				hung := b.scsi(bitFinal, 0, opHang, 0, 0)
				b.send(hung, nil)
				<-r.disk.hung
				write := b.scsi(isWrite, 512, write10, 0, 1)
				b.send(write, nil)
				tag := b.recv(opR2T).u32(20)
				end(a)
				if tas {
					got := map[uint32]byte{}
					for range 2 {
						p := b.recv(opSCSIResp)
						got[p.tag()] = p.header[3]
					}
					aborted := byte(sam.TaskAborted)
					if want := map[uint32]byte{hung.tag(): aborted, write.tag(): aborted}; !maps.Equal(got, want) {
						t.Errorf("answers %x, not %x", got, want)
					}
				}
				b.sendData(write.tag(), tag, pattern(1, 512), 0, 512, 512)
				b.echo()
				b.readBack(0, make([]byte, 512), 8192, 1<<20)
			})
		}
	}
}

// TestClearedByAnother looks who hears that his commands were cleared: those who
// had some, and no answer to them.
func TestClearedByAnother(t *testing.T) {
	r := newRig(t, Limits{})
	a, b, idle := r.login(), r.second(), r.dial()
	idle.isid[0] += 2
	idle.login()
	for _, i := range []*initiator{a, b, b} {
		i.send(i.scsi(bitFinal, 0, opHang, 0, 0), nil)
		<-r.disk.hung
	}
	a.manage(sam.ClearTaskSet, header{}, tmfComplete)
	r.disk.mu.Lock()
	defer r.disk.mu.Unlock()
	if want := []string{fmt.Sprintf("%x", b.isid)}; !slices.Equal(r.disk.told, want) {
		t.Errorf("told are %v, not %v", r.disk.told, want)
	}
}

// TestPreemptEachOther has two initiators end each other's commands, with TAS, so
// that one of them at least is told, and neither waits for the other.
func TestPreemptEachOther(t *testing.T) {
	r := newRig(t, Limits{})
	r.disk.tas = true
	both := []*initiator{r.login(), r.second()}
	for range 200 {
		for _, i := range both {
			i.send(i.scsi(bitFinal, 0, opPreempt, 0, 0), nil)
		}
		for _, i := range both {
			if s := i.recv(opSCSIResp).header[3]; s != 0 && s != byte(sam.TaskAborted) {
				t.Fatalf("status %#02x", s)
			}
		}
	}
}

// TestOwnAbortPrevails aborts a command that another initiator aborted already,
// and that has not ended: no answer may come after that to the own abort.
func TestOwnAbortPrevails(t *testing.T) {
	s := &session{queue: newQueue(), seq: &sequenceNumbers{}, srv: &Server{}}
	s.tasks.byTag = map[uint32]*command{}
	c := newCommand(s)
	s.tasks.add(c)
	all := func(*command) bool { return true }
	for _, tell := range []func(*command) bool{all, nil, all} {
		s.tasks.abort(all, tell, newFence())
	}
	if ok, _ := s.tasks.finish(c, s.queue); ok || len(s.queue.items) != 0 {
		t.Error("an aborted command is answered")
	}
}

// TestWrittenLUN names one logical unit in two ways.
func TestWrittenLUN(t *testing.T) {
	for _, c := range []struct {
		a, b [8]byte
		same bool
	}{
		{[8]byte{0, 5}, [8]byte{0x40, 5}, true},
		{[8]byte{0, 5}, [8]byte{0, 5}, true},
		{[8]byte{0, 5}, [8]byte{0x41, 5}, false},
		{[8]byte{0, 5}, [8]byte{0x40, 6}, false},
		{[8]byte{0, 5}, [8]byte{0x40, 5, 1}, false},
	} {
		if sameLUN(c.a, c.b) != c.same || sameLUN(c.b, c.a) != c.same {
			t.Errorf("%x and %x", c.a, c.b)
		}
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

// TestResetByWhoLeaves: others have lost their commands to a reset, and hear of it also
// when the session that asked for it is gone before they have ended.
func TestResetByWhoLeaves(t *testing.T) {
	r := newRig(t, Limits{})
	a := r.login()
	leaving := r.srv.sessions.all()[0]
	b := r.second()
	b.send(b.scsi(bitFinal, 0, opHang, 0, 0), nil)
	<-r.disk.hung
	r.disk.mu.Lock() // keeps the command from ending
	a.sendManage(sam.LogicalUnitReset, header{})
	<-r.disk.freed
	a.conn.Close()
	<-leaving.ctx.Done()
	r.disk.mu.Unlock()
	<-leaving.ended
	r.disk.mu.Lock()
	defer r.disk.mu.Unlock()
	if !slices.Equal(r.disk.resets, []sam.TaskFunction{sam.LogicalUnitReset}) {
		t.Errorf("resets %v", r.disk.resets)
	}
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
