package iscsi

import (
	"bytes"
	"errors"
	"net"
	"sync"
	"testing"
	"time"
)

// drip gives what is written to the connection a byte at a time.
type drip struct{ net.Conn }

func (d drip) Write(b []byte) (int, error) {
	for n := range b {
		if _, err := d.Conn.Write(b[n : n+1]); err != nil {
			return n, err
		}
	}
	return len(b), nil
}

// sip reads a few bytes at a time.
type sip struct{ net.Conn }

func (s sip) Read(p []byte) (int, error) { return s.Conn.Read(p[:min(len(p), 2000)]) }

// TestSlowWriters: login, commands, data and digests come byte by byte, in several
// sessions; they get what they ask for, and the others do not wait for them.
func TestSlowWriters(t *testing.T) {
	const writers, size = 8, 2048
	r := newRig(t, Limits{})
	h := r.healthy(false)
	var all sync.WaitGroup
	for n := range writers {
		all.Go(func() {
			i := r.guest("127.0.0.2", n)
			defer i.conn.Close()
			i.conn = drip{i.conn}
			if n%2 == 0 {
				i.login("InitialR2T=No")
			} else {
				i.login("HeaderDigest=CRC32C", "DataDigest=CRC32C", "InitialR2T=No")
			}
			i.send(i.scsi(bitFinal, 0, opHang, 0, 0), nil) // in flight all along
			data, lba := pattern(n, size), uint32(guestBlock+n*size/blockSize)
			i.writeThrough(lba, data, 512, 512, 100)
			i.readBack(lba, data, 8192, 256<<10)
			i.logout()
		})
	}
	h.works(1)
	all.Wait()
	h.works(1)
	h.stop()
}

// TestSlowReaders has more asked for than sockets hold, and read in sips, late or never.
// While it is not read, others work; what is read is right and in order.
func TestSlowReaders(t *testing.T) {
	const readers, reads, size = 6, 60, 128 << 10
	r := newRig(t, Limits{})
	want := pattern(5, 4*size)
	first := r.login(healthyKeys...)
	first.writeThrough(guestBlock, want, 0, 0, 256<<10)
	first.logout()

	h := r.healthy(false)
	var in []*initiator
	for n := range readers {
		i := r.guest("127.0.0.2", n)
		defer i.conn.Close()
		if err := i.conn.(*net.TCPConn).SetReadBuffer(32 << 10); err != nil {
			t.Fatal(err)
		}
		i.login("MaxRecvDataSegmentLength=65536")
		for range reads {
			i.send(i.scsi(isRead, size, read10, guestBlock, size/blockSize), nil)
		}
		in = append(in, i)
	}
	h.works(3) // nothing is read
	var all sync.WaitGroup
	for n, i := range in {
		switch n % 3 {
		case 0:
			i.vanish()
		case 1: // reads some, and goes
			all.Go(func() {
				i.sipData(3, want[:size])
				i.vanish()
			})
		default:
			all.Go(func() { i.sipData(reads, want[:size]) })
		}
	}
	h.works(1)
	all.Wait()
	within(t, "those that have gone are gone", func() bool { return len(r.srv.sessions.all()) == 1+readers/3 })
	h.works(1)
	h.stop()
}

// sipData takes the answers to as many reads, in any order of the tags, and compares
// their data.
func (i *initiator) sipData(reads int, want []byte) {
	i.t.Helper()
	whole := i.conn
	i.conn = sip{whole}
	defer func() { i.conn = whole }()
	at := map[uint32]int{}
	for done := 0; done < reads; {
		p := i.recv(opDataIn)
		from := at[p.tag()]
		if int(p.u32(40)) != from || from+len(p.data) > len(want) || !bytes.Equal(p.data, want[from:from+len(p.data)]) {
			i.t.Fatalf("Data-In % x after %d bytes", p.header, from)
		}
		if at[p.tag()] += len(p.data); p.flag(bitStatus) {
			if at[p.tag()] != len(want) {
				i.t.Fatalf("a read of %d bytes got %d", len(want), at[p.tag()])
			}
			done++
		}
	}
}

// TestHalfOpen has initiators that vanish without a word, with all kinds of things under
// way. The target's NOP-In finds them, and their commands end; the session that answers
// stays.
func TestHalfOpen(t *testing.T) {
	const size = 128 << 10
	r := newRig(t, Limits{PingInterval: 300 * time.Millisecond, PingTimeout: 5 * time.Second, WriteTimeout: time.Minute})
	h := r.healthy(false)
	idle := r.guest(healthyFrom, 0xfffe) // does nothing but answer
	idle.login()
	answered := make(chan error, 1)
	go func() {
		_, err := idle.tryRecv()
		answered <- err
	}()

	ways := map[string]func(i *initiator){
		"idle":              func(*initiator) {},
		"half a header":     func(i *initiator) { i.write(make([]byte, headerSize/2)) },
		"half a segment":    func(i *initiator) { i.writeHalf(4096) },
		"data announced":    func(i *initiator) { i.send(i.scsi(bitWrite, 4096, write10, guestBlock, 8), nil) },
		"data asked for":    func(i *initiator) { i.send(i.scsi(isWrite, size, write10, guestBlock, size/blockSize), nil) },
		"commands hang":     func(i *initiator) { i.hang(10) },
		"answers not taken": func(i *initiator) { i.ask(60, size) },
		"everything": func(i *initiator) {
			i.hang(10)
			i.send(i.scsi(bitWrite, 4096, write10, guestBlock, 8), nil)
			i.send(i.scsi(isWrite, size, write10, guestBlock, size/blockSize), nil)
			i.ask(60, size)
			i.writeHalf(4096)
		},
	}
	n := 0
	ended := map[string]<-chan struct{}{}
	for name, way := range ways {
		i := r.guest("127.0.0.2", n)
		defer i.conn.Close() // not before: a peer that has vanished sends no FIN
		if err := i.conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
			t.Fatal(err)
		}
		i.login("InitialR2T=No", "MaxRecvDataSegmentLength=65536")
		ended[name] = r.ended(i.tsih)
		way(i)
		n++
	}
	within(t, "commands hang", func() bool { return len(r.disk.hung) == 20 })
	h.works(1)
	for name, done := range ended {
		select {
		case <-done:
		case <-time.After(30 * time.Second):
			t.Errorf("%s: the session is still there", name)
		}
	}
	if began, over := len(r.disk.hung), len(r.disk.freed); began != over {
		t.Errorf("%d commands began to hang, %d ended", began, over)
	}
	h.works(1)
	idle.conn.Close()
	if err := <-answered; !errors.Is(err, net.ErrClosed) {
		t.Errorf("the idle session: %v", err)
	}
	h.stop()
}

// writeHalf sends a write with half of its immediate data.
func (i *initiator) writeHalf(n int) {
	i.t.Helper()
	h := i.scsi(isWrite, uint32(n), write10, guestBlock, uint16(n/blockSize))
	b := i.encode(h, nil, make([]byte, n))
	i.write(b[:len(b)-n/2])
}

// hang sends commands that last until they are aborted.
func (i *initiator) hang(n int) {
	i.t.Helper()
	for range n {
		i.send(i.scsi(bitFinal, 0, opHang, 0, 0), nil)
	}
}

// ask sends reads.
func (i *initiator) ask(n, size int) {
	i.t.Helper()
	for range n {
		i.send(i.scsi(isRead, uint32(size), read10, guestBlock, uint16(size/blockSize)), nil)
	}
}
