package iscsi

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"sync"

	"github.com/twinlun/twinlun/target/sam"
)

const blockSize = 512

// disk is a small device in memory. It knows TEST UNIT READY, READ (10), WRITE
// (10), opHang, which lasts until it is aborted, and opPreempt, which aborts the
// commands of all other nexuses.
type disk struct {
	mu     sync.Mutex
	data   []byte
	nexus  int // open
	resets []sam.TaskFunction
	told   []string // initiators whose commands were cleared
	tas    bool
	tasks  map[*diskNexus]sam.Tasks
	hung   chan uint32   // gets the tag of every hanging command
	freed  chan uint32   // and of every one that was aborted
	slow   chan struct{} // if there is one, writes at hand last until it is closed
}

const (
	opHang    = 0xc0
	opPreempt = 0xc1
)

func newDisk(blocks int) *disk {
	return &disk{tasks: map[*diskNexus]sam.Tasks{}, data: make([]byte, blocks*blockSize), hung: make(chan uint32, 1000), freed: make(chan uint32, 1000)}
}

func (d *disk) NewNexus(from sam.InitiatorPort, _ uint16) sam.Nexus {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.nexus++
	return &diskNexus{d, from}
}

func (d *disk) open() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.nexus
}

type diskNexus struct {
	d    *disk
	from sam.InitiatorPort
}

func (n *diskNexus) UseTasks(t sam.Tasks) {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	n.d.tasks[n] = t
}

func (n *diskNexus) TAS([8]byte) bool { return n.d.tas }

func (n *diskNexus) HasLUN(lun [8]byte) bool { return lun == [8]byte{} }

func (n *diskNexus) Close() {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	n.d.nexus--
	delete(n.d.tasks, n)
}

func (n *diskNexus) Reset(_ context.Context, f sam.TaskFunction, lun [8]byte) bool {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	if f != sam.ClearTaskSet {
		n.d.resets = append(n.d.resets, f)
	}
	return n.HasLUN(lun)
}

func (n *diskNexus) Cleared([8]byte) {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	n.d.told = append(n.d.told, fmt.Sprintf("%x", n.from.ISID))
}

func check(c *sam.Command, key, asc byte) bool {
	c.Status, c.Sense = sam.CheckCondition, newSense(key, asc, 0)
	return false
}

func (n *diskNexus) Prepare(c *sam.Command) bool {
	if !n.HasLUN(c.LUN) {
		return check(c, 5, 0x25)
	}
	from := int(binary.BigEndian.Uint32(c.CDB[2:])) * blockSize
	size := int(binary.BigEndian.Uint16(c.CDB[7:])) * blockSize
	switch c.CDB[0] {
	case 0x00, opHang, opPreempt:
		return true
	case 0x28, 0x2a:
		if from+size > len(n.d.data) {
			return check(c, 5, 0x21)
		}
		c.Needed = uint32(size)
		if c.CDB[0] == 0x28 {
			c.WantIn = uint32(size)
		} else {
			c.WantOut = uint32(size)
		}
		return true
	}
	return check(c, 5, 0x20)
}

func (n *diskNexus) Execute(c *sam.Command) {
	from := int(binary.BigEndian.Uint32(c.CDB[2:])) * blockSize
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	switch c.CDB[0] {
	case 0x28:
		c.InLen = uint32(copy(c.In, n.d.data[from:]))
	case 0x2a:
		copy(n.d.data[from:], c.Out)
	case opHang:
		n.d.mu.Unlock()
		n.d.hang(c.Ctx, c.Tag)
		n.d.mu.Lock()
	case opPreempt:
		others := maps.Clone(n.d.tasks)
		delete(others, n)
		n.d.mu.Unlock()
		for _, t := range others {
			t.Abort(c.LUN, c, n.d.tas)
		}
		n.d.mu.Lock()
	}
}

// TryExecute implements sam.Trier: what begins at an even block is at hand.
func (n *diskNexus) TryExecute(c *sam.Command) bool {
	if c.CDB[0] != 0x28 && c.CDB[0] != 0x2a || c.CDB[5]&1 != 0 || !n.d.mu.TryLock() {
		return false
	}
	slow := n.d.slow
	n.d.mu.Unlock()
	if c.CDB[0] == 0x2a && slow != nil {
		n.d.hung <- c.Tag
		<-slow
	}
	n.Execute(c)
	return true
}

// slowDown has writes at hand last until the function is called that it returns.
func (d *disk) slowDown() (end func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	slow := make(chan struct{})
	d.slow = slow
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.slow = nil
		close(slow)
	}
}

func (d *disk) hang(ctx context.Context, tag uint32) {
	d.hung <- tag
	<-ctx.Done()
	d.freed <- tag
}
