package iscsi

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// floods are what a hostile host does, each in a connection of its own, until it has
// had its fill or the target closes the connection.
var floods = map[string]func(t *testing.T, r *rig, n int){
	"pings whose answers are not read": func(t *testing.T, r *rig, n int) {
		i := r.guest("127.0.0.3", n)
		defer i.conn.Close()
		i.login("MaxRecvDataSegmentLength=262144")
		h := i.request(bitImmediate | opNopOut)
		h.put32(20, noTag)
		b := i.encode(h, nil, make([]byte, 64<<10))
		const enough = 256 << 20
		sent := 0
		for ; sent < enough; sent += len(b) {
			if _, err := i.conn.Write(b); err != nil {
				var ne net.Error
				if errors.As(err, &ne) && ne.Timeout() {
					t.Error("the target neither reads nor closes the connection")
				}
				return
			}
		}
		t.Errorf("the target took %d bytes whose answers were not read", sent)
	},
	"text requests": func(t *testing.T, r *rig, n int) {
		i := r.guest("127.0.0.4", n)
		defer i.conn.Close()
		i.login()
		for range 20 {
			for k := range 100 { // inside the command window
				h := i.request(opText)
				h.put32(20, noTag)
				text := []byte("SendTargets=\x00X-a=b\x00MaxRecvDataSegmentLength=8192\x00")
				if k%2 == 1 { // the beginning of a text that never ends
					h[1] = bitContinue
					text = pattern(k, 4096)
				}
				i.send(h, text)
			}
			if seen := i.drain(); seen[opTextResp]+seen[opReject] != 100 || seen[opTextResp] < 50 {
				t.Errorf("100 text requests got %v", seen)
				return
			}
		}
		i.logout()
	},
	"logins that never end": func(t *testing.T, r *rig, n int) {
		for range 3 {
			i := r.guest("127.0.0.2", n)
			rounds := i.loginForever()
			i.conn.Close()
			if rounds > maxLoginRequests {
				t.Errorf("a login of %d requests", rounds)
			}
		}
	},
	"connections that say nothing, or nonsense": func(t *testing.T, r *rig, n int) {
		for k := range 40 {
			i := r.guest("127.0.0.2", n)
			if k%2 == 1 { // the others wait for their turn to be thrown out
				_, _ = i.conn.Write(pattern(k, 100)) // which may not be taken
				i.closed()
			}
			i.conn.Close()
		}
		i := r.guest("127.0.0.2", n)
		i.closed() // after LoginTimeout, or at once
		i.conn.Close()
	},
}

// loginForever keeps a login going until the target has enough of it, and returns how
// many requests were answered with success.
func (i *initiator) loginForever() (rounds int) {
	i.t.Helper()
	b := i.encode(i.loginHeader(stageOperational, 0, false), nil, keys(hostName, "TargetName="+testIQN))
	for ; ; rounds++ {
		if _, err := i.conn.Write(b); err != nil {
			return rounds
		}
		r, err := i.tryRecv()
		if err != nil || r.loginStatus() != loginSuccess {
			return rounds
		}
		b = i.encode(i.loginHeader(stageOperational, 0, false), nil, nil)
	}
}

// TestFloods lets all floods loose at once, from several connections each, while a
// session of another host works, logs out and logs in again.
func TestFloods(t *testing.T) {
	const each = 4 // which may log in at once
	r := newRig(t, Limits{
		MaxLogins: 16, MaxLoginsPerHost: 6, LoginTimeout: 8 * time.Second, WriteTimeout: 8 * time.Second, // for the healthy one, too
	})
	h := r.healthy(true)
	before := heap()
	var all sync.WaitGroup
	port := 0
	for _, flood := range floods {
		for range each {
			n := port
			port++
			all.Go(func() { flood(t, r, n) })
		}
	}
	h.works(3)
	all.Wait()
	within(t, "only the healthy session is left", func() bool { return len(r.srv.sessions.all()) <= 1 })
	h.works(1)
	h.stop()
	within(t, "nobody is logging in", func() bool { return r.srv.strangersLeft() == 0 })
	within(t, "the memory of the floods is free again", func() bool { return heap()-before <= 8<<20 })
}

// TestLoginsOverTheLimit: with all places of its host taken by logins that do not go on, a
// connection is closed at once; another host gets in, and so does this one when they go.
func TestLoginsOverTheLimit(t *testing.T) {
	const places = 3
	r := newRig(t, Limits{MaxLogins: 2 * places, MaxLoginsPerHost: places, LoginTimeout: time.Minute})
	h := r.healthy(true)
	var taken []*initiator
	for n := range places {
		i := r.guest("127.0.0.2", n)
		i.send(i.loginHeader(stageOperational, 0, false), keys(hostName, "TargetName="+testIQN))
		i.recv(opLoginResp)
		taken = append(taken, i)
	}
	var all sync.WaitGroup
	for n := range 100 {
		all.Go(func() {
			i := r.guest("127.0.0.2", n)
			defer i.conn.Close()
			i.closed()
		})
	}
	all.Wait()
	h.works(2)
	for n, i := range taken {
		if n%2 == 0 {
			i.vanish()
		} else {
			i.conn.Close()
		}
	}
	within(t, "the places are free", func() bool {
		i := r.guest("127.0.0.2", 0)
		defer i.conn.Close()
		_, err := i.conn.Write(i.encode(i.loginHeader(stageOperational, 0, false), nil, keys(hostName, "TargetName="+testIQN)))
		if err == nil {
			_, err = io.ReadFull(i.conn, make([]byte, headerSize))
		}
		return err == nil
	})
	h.stop()
}
