package iscsi

import (
	"net"
	"runtime"
	"sync"
	"testing"
	"time"
)

// aside is a test as a goroutine beside it sees it: what is fatal ends that goroutine.
type aside struct{ testing.TB }

func (a aside) Fatal(args ...any) {
	a.Helper()
	a.Error(args...)
	runtime.Goexit()
}

func (a aside) Fatalf(format string, args ...any) {
	a.Helper()
	a.Errorf(format, args...)
	runtime.Goexit()
}

// guest connects initiator port n from an address of this host, in 127.0.0.0/8: every
// such address counts as a host of its own. Any goroutine may call it.
func (r *rig) guest(from string, n int) *initiator {
	r.t.Helper()
	t := aside{r.t}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := d.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	isid := [6]byte{0x80, 9, 9, 9, byte(n >> 8), byte(n)}
	return &initiator{t: t, conn: conn, cmdSN: 100, expSN: 7, isid: isid, pongs: true}
}

// vanish ends the connection with a reset, whatever is under way.
func (i *initiator) vanish() {
	i.t.Helper()
	if err := i.conn.(*net.TCPConn).SetLinger(0); err != nil {
		i.t.Fatal(err)
	}
	i.conn.Close()
}

// drain sends a NOP-Out and takes all that comes before its answer; it returns how many
// PDUs there were of each kind.
func (i *initiator) drain() map[byte]int {
	i.t.Helper()
	h := i.request(bitImmediate | opNopOut)
	h.put32(20, noTag)
	i.send(h, nil)
	seen := map[byte]int{}
	for {
		r, err := i.tryRecv()
		if err != nil {
			i.t.Fatal(err)
		}
		if r.opcode() == opNopIn && r.tag() == h.tag() {
			return seen
		}
		seen[r.opcode()]++
	}
}

// The healthy session has the first 1 MiB of the disk to itself.
const (
	healthyBytes = 1 << 20
	healthyFrom  = "127.0.0.1"
	guestBlock   = healthyBytes / blockSize // where the others' begin
)

var healthyKeys = []string{"MaxBurstLength=1048576", "MaxRecvDataSegmentLength=262144"}

// healthy is a session that writes and verifies its own data as long as the test takes,
// whatever others do.
type healthy struct {
	t      *testing.T
	rounds chan struct{} // gets one at the end of a round, if somebody waits for it
	quit   chan struct{}
	done   chan struct{} // closed when the goroutine has ended
}

// healthy starts it. With again it logs out and in after each round.
func (r *rig) healthy(again bool) *healthy {
	h := &healthy{r.t, make(chan struct{}), make(chan struct{}), make(chan struct{})}
	i := r.guest(healthyFrom, 0xffff)
	i.login(healthyKeys...)
	go h.run(r, i, again)
	return h
}

// run is the goroutine of the healthy session. It owns the initiator.
func (h *healthy) run(r *rig, i *initiator, again bool) {
	defer close(h.done)
	defer func() { i.conn.Close() }()
	images := [][]byte{pattern(1, healthyBytes), pattern(77, healthyBytes), pattern(154, healthyBytes)}
	for n := 0; ; n++ {
		data := images[n%len(images)]
		i.writeThrough(0, data, 0, 0, 256<<10)
		i.readBack(0, data, 256<<10, 1<<20)
		select {
		case <-h.quit:
			i.logout()
			return
		case h.rounds <- struct{}{}:
		default:
		}
		if again {
			i.logout()
			i.conn.Close()
			i = r.guest(healthyFrom, 0xffff)
			i.login(healthyKeys...)
		}
	}
}

// works waits until n rounds have begun and ended from now on.
func (h *healthy) works(n int) {
	h.t.Helper()
	for range n + 1 { // the first may have begun before
		select {
		case <-h.rounds:
		case <-h.done:
			h.t.Fatal("the healthy session is no more")
		}
	}
}

// stop lets it finish its round and log out.
func (h *healthy) stop() {
	close(h.quit)
	<-h.done
}

// within polls until the condition holds, for as long as nobody would wait in vain.
func within(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it does not come about that %s", what)
		}
	}
}

// heap is what is in use, without garbage; sync.Pool lets go after the second time.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestSessionsComeAndGo has 200 sessions at once, which write, read and go: in order, by
// a reset, or by one in the midst of commands. They disturb nobody, and leave nothing.
func TestSessionsComeAndGo(t *testing.T) {
	const guests, size = 200, 4096
	r := newRig(t, Limits{MaxSessions: guests + 1, MaxLogins: guests + 1, MaxLoginsPerHost: guests + 1})
	within(t, "the listener is served", func() bool { return r.listening() })
	goroutines, before := runtime.NumGoroutine(), heap()
	h := r.healthy(false)

	var all, in sync.WaitGroup
	in.Add(guests)
	leave := make(chan struct{})
	for n := range guests {
		all.Go(func() {
			once := sync.OnceFunc(in.Done)
			defer once() // also when it fails
			i := r.guest("127.0.0.2", n)
			defer i.conn.Close()
			i.login()
			once()
			<-leave
			i.visit(n, uint32(guestBlock+n*size/blockSize), pattern(n, size))
		})
	}
	in.Wait()
	if got := len(r.srv.sessions.all()); got != guests+1 {
		t.Errorf("%d sessions", got)
	}
	close(leave)
	h.works(1)
	all.Wait()
	within(t, "only the healthy session is left", func() bool { return len(r.srv.sessions.all()) == 1 && r.disk.open() == 1 })
	// Some may have been aborted before a worker took them.
	if began, ended := len(r.disk.hung), len(r.disk.freed); began != ended || began == 0 {
		t.Errorf("%d commands began to hang, %d of them ended with their sessions", began, ended)
	}
	h.works(1)
	h.stop()

	within(t, "nobody is logging in", func() bool { return r.srv.strangersLeft() == 0 })
	within(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines })
	// A session's read buffer alone, 200 times, is three times as much.
	within(t, "the memory of 200 sessions is free again", func() bool { return heap()-before <= 4<<20 })
}

// listening tells whether Serve has begun.
func (r *rig) listening() bool {
	r.srv.mu.Lock()
	defer r.srv.mu.Unlock()
	return len(r.srv.listeners) > 0
}

// visit is what the n-th guest does after its login.
func (i *initiator) visit(n int, lba uint32, data []byte) {
	i.t.Helper()
	i.writeThrough(lba, data, 512, 0, 1024)
	i.readBack(lba, data, 8192, 256<<10)
	switch n % 3 {
	case 0:
		i.logout()
	case 1:
		i.send(i.scsi(bitFinal, 0, opHang, 0, 0), nil)
		i.send(i.scsi(isWrite, 4096, write10, lba, 8), data[:512])
		if seen := i.drain(); seen[opR2T] != 1 {
			i.t.Errorf("before the end came %v", seen)
		}
		i.vanish()
	case 2:
		i.vanish()
	}
}

// TestPromisesOfManySessions: sessions that announce all the data that they may, and
// send none, take as much memory as the limits say and no more; those that are at work
// do not miss it.
func TestPromisesOfManySessions(t *testing.T) {
	const guests, window, size = 5, 64, 1 << 20
	r := newRig(t, Limits{SessionMemory: maxTransfer, CommandWindow: window})
	h := r.healthy(false)
	h.works(1) // what it takes itself counts as taken before
	before := heap()
	var in []*initiator
	for n := range guests {
		i := r.guest("127.0.0.2", n)
		defer i.conn.Close()
		i.login("InitialR2T=No", "MaxBurstLength=1048576")
		promise := byte(bitWrite) // unsolicited data follows
		if n%2 == 1 {
			promise = isWrite // R2Ts ask for it, as far as there is memory
		}
		for range window {
			i.send(i.scsi(promise, size, write10, guestBlock, size/blockSize), nil)
		}
		seen := i.drain()
		if n%2 == 0 && seen[opR2T] > 0 || n%2 == 1 && seen[opR2T] > maxTransfer/size || seen[opSCSIResp] > 0 {
			t.Errorf("guest %d got %v", n, seen)
		}
		in = append(in, i)
	}
	h.works(2)
	const bound = guests*(maxTransfer+(window+immediateLimit)*64<<10) + 16<<20
	if grown := heap() - before; grown > bound || grown < guests*maxTransfer/2 {
		t.Errorf("%d promises of %d bytes take %d bytes, where %d may be taken", guests*window, size, grown, bound)
	}
	for _, i := range in {
		i.vanish()
	}
	within(t, "only the healthy session is left", func() bool { return len(r.srv.sessions.all()) == 1 })
	h.works(1)
	// What ends a session still holds its buffers for a moment.
	within(t, "the memory of the promises is free again", func() bool { return heap()-before <= 16<<20 })
	h.stop()
}
