package iscsi

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"github.com/twinlun/twinlun/target/sam"
)

// with sends a command with a task attribute, and returns its header.
func (i *initiator) with(a attribute, h header, data []byte) header {
	i.t.Helper()
	h[1] |= byte(a)
	i.send(h, data)
	return h
}

// abort aborts a command, and takes the response and the answers of commands that have
// waited for it, in whatever order they come.
func (i *initiator) abort(about header, commands ...header) {
	i.t.Helper()
	i.sendManage(sam.AbortTask, about)
	want := map[uint32]bool{i.tag: true}
	for _, h := range commands {
		want[h.tag()] = true
	}
	for len(want) > 0 {
		r, err := i.tryRecv()
		if err != nil {
			i.t.Fatal(err)
		}
		switch {
		case r.opcode() == opTaskResp && r.header[2] == tmfComplete && want[r.tag()]:
			delete(want, r.tag())
		case r.opcode() == opSCSIResp && r.header[3] == 0 && want[r.tag()]:
			delete(want, r.tag())
		default:
			i.t.Fatalf("got % x where answers to %v are missing", r.header, want)
		}
	}
}

// quiet finds that nothing has been answered: what would be, was sent before the echo.
func (i *initiator) quiet() {
	i.t.Helper()
	i.echo()
	i.echo()
}

// TestAttributes: an ORDERED command waits for those before it, those behind it wait for
// it, and a HEAD OF QUEUE command waits for nothing; but those behind it wait for it.
func TestAttributes(t *testing.T) {
	r := newRig(t, Limits{})
	i := r.login()
	ready := func() header { return i.scsi(bitFinal, 0, 0, 0, 0) }
	hang := func(a attribute) header {
		h := i.with(a, i.scsi(bitFinal, 0, opHang, 0, 0), nil)
		<-r.disk.hung
		return h
	}

	first := hang(simple)
	barrier := i.with(ordered, ready(), nil)
	behind := i.with(untagged, ready(), nil)
	i.quiet()
	urgent := i.with(headOfQueue, ready(), nil)
	i.status(urgent.tag(), 0)
	i.abort(first, barrier, behind)

	before := hang(headOfQueue)
	waiting := i.with(simple, ready(), nil)
	i.quiet()
	i.abort(before, waiting)

	one, two := hang(ordered), i.with(ordered, ready(), nil) // two ORDERED ones, the second goes
	three := i.with(simple, ready(), nil)
	i.quiet()
	i.abort(two)
	i.quiet()
	i.abort(one, three)

	// What has failed already waits for nothing.
	last := hang(ordered)
	wrong := i.scsi(bitFinal, 0, 0xff, 0, 0)
	i.send(wrong, nil)
	i.status(wrong.tag(), 2)
	i.abort(last)
	plain := i.scsi(bitFinal, 0, 0, 0, 0)
	i.send(plain, nil)
	i.status(plain.tag(), 0)
}

// TestWrongAttributes: there is no ACA, and three are reserved.
func TestWrongAttributes(t *testing.T) {
	i := newRig(t, Limits{}).login()
	for a, want := range map[attribute]byte{aca: 0x49, 5: 0x0e, 6: 0x0e, 7: 0x0e} {
		h := i.with(a, i.scsi(bitFinal, 0, 0, 0, 0), nil)
		if r := i.status(h.tag(), 2); r.data[2+2] != 5 || r.data[2+12] != want {
			t.Errorf("attribute %d: sense % x", a, r.data[2:])
		}
	}
	h := i.scsi(bitFinal, 0, 0, 0, 0)
	i.send(h, nil)
	i.status(h.tag(), 0)
}

// TestOrderedMemory: commands that wait for their turn hold no memory that those before
// them need: two writes that take more than there is for both, behind an ORDERED one
// that needs all of it.
func TestOrderedMemory(t *testing.T) {
	const size = 12 << 20
	r := newRig(t, Limits{SessionMemory: maxTransfer}, func(c *Config) { c.Targets[0].Device = newDisk(1 << 16) })
	disk := r.target().Device.(*disk)
	r.disk = disk
	i := r.login("MaxBurstLength=1048576", "MaxRecvDataSegmentLength=262144")
	first := i.with(simple, i.scsi(bitFinal, 0, opHang, 0, 0), nil)
	<-disk.hung
	var writes []header
	for n, a := range []attribute{ordered, simple, simple} {
		h := i.scsi(isWrite, size, write10, uint32(n), size/blockSize)
		writes = append(writes, i.with(a, h, nil))
	}
	i.quiet()
	i.sendManage(sam.AbortTask, first)
	data := make([]byte, size)
	for left := len(writes); left > 0; {
		p, err := i.tryRecv()
		if err != nil {
			t.Fatal(err)
		}
		switch p.opcode() {
		case opR2T:
			n := int(p.tag() - writes[0].tag())
			if n > 0 && left == len(writes) {
				t.Fatalf("write %d is asked for its data before the ORDERED one has ended", n)
			}
			from, length := p.u32(40), p.u32(44)
			i.sendData(p.tag(), p.u32(20), data, int(from), int(from+length), 256<<10)
		case opSCSIResp:
			if p.header[3] != 0 {
				t.Fatalf("% x", p.header)
			}
			left--
		}
	}
}

// ledger is a disk that notes when commands begin and end.
type ledger struct {
	*disk
	mu    sync.Mutex
	begun map[uint32]int // order of events, by tag
	ended map[uint32]int
	clock int
}

type ledgerNexus struct {
	*diskNexus
	l *ledger
}

func (l *ledger) NewNexus(from sam.InitiatorPort, group uint16) sam.Nexus {
	return ledgerNexus{l.disk.NewNexus(from, group).(*diskNexus), l}
}

func (l *ledger) note(m map[uint32]int, tag uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clock++
	m[tag] = l.clock
}

func (n ledgerNexus) Execute(c *sam.Command) {
	n.l.note(n.l.begun, c.Tag)
	for range c.Tag % 7 {
		runtime.Gosched()
	}
	n.diskNexus.Execute(c)
	n.l.note(n.l.ended, c.Tag)
}

// TryExecute does what Execute does, for some commands: the reader may not ask for it out
// of turn.
func (n ledgerNexus) TryExecute(c *sam.Command) bool {
	if c.Tag%3 == 0 {
		return false
	}
	n.Execute(c)
	return true
}

// TestAttributeOrder sends commands with random attributes, and looks in which order they
// were executed.
func TestAttributeOrder(t *testing.T) {
	const commands = 2000
	l := &ledger{begun: map[uint32]int{}, ended: map[uint32]int{}}
	r := newRig(t, Limits{CommandWindow: 64}, func(c *Config) {
		l.disk = c.Targets[0].Device.(*disk)
		c.Targets[0].Device = l
	})
	i := r.login()
	random := rand.New(rand.NewPCG(1, 2))
	attributes := map[uint32]attribute{}
	var tags []uint32
	for sent, got := 0, 0; got < commands; {
		for ; sent < commands && sent-got < 64; sent++ {
			a := []attribute{untagged, simple, simple, simple, ordered, headOfQueue}[random.IntN(6)]
			h, data := i.scsi(isRead, blockSize, read10, 1, 1), []byte(nil)
			if random.IntN(2) == 0 {
				h[1], h[32], data = isWrite, write10, make([]byte, blockSize)
			}
			h = i.with(a, h, data)
			attributes[h.tag()] = a
			tags = append(tags, h.tag())
		}
		p, err := i.tryRecv()
		if err != nil {
			t.Fatal(err)
		}
		if p.opcode() == opSCSIResp || p.flag(bitStatus) {
			got++
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for n, tag := range tags {
		for _, older := range tags[max(0, n-64):n] {
			a, o := attributes[tag], attributes[older]
			if a != headOfQueue && (a == ordered || o.special()) && l.ended[older] > l.begun[tag] {
				t.Fatalf("command %d, attribute %d, began before %d, attribute %d, had ended", tag, a, older, o)
			}
		}
	}
}
