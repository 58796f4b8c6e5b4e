package main

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"time"

	"github.com/twinlun/twinlun/replication/emulator"
)

// reference is a plain TCP connection over a line of its own, equal to a pair's.
// Its far end takes messages of 8 bytes length and as much data, and answers each
// with 64 bytes, as long as a small frame.
type reference struct {
	listener net.Listener
	line     *emulator.Line
	conn     net.Conn
}

// answerSize is as long as a small frame of the link.
const answerSize = 64

func newReference(state emulator.State) (r *reference, err error) {
	r = new(reference)
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if r.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return r, err
	}
	go answer(r.listener)
	r.line, err = emulator.Start(emulator.Config{Listen: "127.0.0.1:0", Target: r.listener.Addr().String(), State: state})
	if err != nil {
		return r, err
	}
	if r.conn, err = net.Dial("tcp", r.line.Addr()); err != nil {
		return r, err
	}
	_, err = r.roundTrip() // the line has dialed when this is back
	return r, err
}

// answer is the far end. It ends with the first connection, or with the listener.
func answer(l net.Listener) {
	conn, err := l.Accept()
	if err != nil {
		return
	}
	defer conn.Close()
	buf := make([]byte, 1<<20)
	for {
		if _, err := io.ReadFull(conn, buf[:8]); err != nil {
			return
		}
		for left := int64(binary.BigEndian.Uint64(buf)); left > 0; {
			n, err := conn.Read(buf[:min(left, int64(len(buf)))])
			if err != nil {
				return
			}
			left -= int64(n)
		}
		if _, err := conn.Write(buf[:answerSize]); err != nil {
			return
		}
	}
}

// send takes data to the far end, over and over until it is size bytes, and waits for
// the answer.
func (r *reference) send(data []byte, size int64) (time.Duration, error) {
	var head [answerSize]byte
	binary.BigEndian.PutUint64(head[:], uint64(size))
	began := time.Now()
	buffers := net.Buffers{head[:8]}
	for left := size; left > 0; left -= min(left, int64(len(data))) {
		buffers = append(buffers, data[:min(left, int64(len(data)))])
	}
	if _, err := buffers.WriteTo(r.conn); err != nil {
		return 0, err
	}
	_, err := io.ReadFull(r.conn, head[:])
	return time.Since(began), err
}

// roundTrip sends a small message.
func (r *reference) roundTrip() (time.Duration, error) {
	var data [answerSize - 8]byte
	return r.send(data[:], int64(len(data)))
}

func (r *reference) close() error {
	var errs []error
	if r.conn != nil {
		errs = append(errs, r.conn.Close())
	}
	if r.line != nil {
		errs = append(errs, r.line.Close())
	}
	if r.listener != nil {
		errs = append(errs, r.listener.Close())
	}
	return errors.Join(errs...)
}
