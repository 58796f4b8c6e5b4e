package iscsi

import (
	"errors"
	"io"
	"runtime"
	"testing"
)

// refuse sends a login that is refused, and more in the same piece, and takes the
// response.
func (i *initiator) refuse(more []byte) {
	i.t.Helper()
	request := i.encode(i.loginHeader(stageOperational, stageFullFeature, true), nil, keys(hostName, "TargetName="+testIQN+"-not"))
	i.write(append(request, more...))
	if got := i.recv(opLoginResp); got.loginStatus() != loginNotFound {
		i.t.Errorf("% x", got.header)
	}
}

func (s *Server) lingering() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.refused.conns)
}

// TestRefusedInOrder: an initiator that has sent more than its login before it is refused
// gets the response and then the end, and no reset, which may overtake the response.
func TestRefusedInOrder(t *testing.T) {
	r := newRig(t, Limits{})
	for _, more := range []int{0, 1, 10_000, lingerBytes / 2} {
		i := r.dial()
		i.refuse(make([]byte, more))
		if _, err := i.tryRecv(); !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("after a login and %d bytes: %v", more, err)
		}
		i.conn.Close()
	}
	within(t, "nobody lingers", func() bool { return r.srv.lingering() == 0 })
}

// TestRefusedFlood: who is refused and goes on sending is cut off.
func TestRefusedFlood(t *testing.T) {
	r := newRig(t, Limits{})
	i := r.dial()
	i.refuse(nil)
	for sent := 0; ; sent += 1 << 20 {
		if _, err := i.conn.Write(make([]byte, 1<<20)); err != nil {
			break
		}
		if sent > 64<<20 {
			t.Fatal("a refused connection takes whatever is sent")
		}
	}
	within(t, "it is over", func() bool { return r.srv.lingering() == 0 })
}

// TestRefusedCrowd: a host whose logins are refused, and who keeps the connections, has few
// that linger. They take no places from those that log in, and are gone soon.
func TestRefusedCrowd(t *testing.T) {
	r := newRig(t, Limits{MaxLogins: 4, MaxLoginsPerHost: 2})
	within(t, "the listener is served", func() bool { return r.listening() })
	goroutines := runtime.NumGoroutine()
	h := r.healthy(true) // logs in again and again
	for n := range 40 {
		within(t, "there is room", func() bool { return r.srv.strangersLeft() < 2 })
		i := r.guest("127.0.0.2", n)
		defer i.conn.Close()
		i.refuse(nil)
		if got := r.srv.lingering(); got > maxHostLingers {
			t.Fatalf("%d connections of a host linger", got)
		}
	}
	h.works(2)
	h.stop()
	within(t, "nobody lingers or logs in", func() bool { return r.srv.lingering()+r.srv.strangersLeft() == 0 })
	within(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines })
}
