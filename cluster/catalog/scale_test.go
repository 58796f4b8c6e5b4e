package catalog

import (
	"bytes"
	"fmt"
	"runtime"
	"sync"
	"testing"
)

// large has 10,000 hosts in groups, all LUNs that are possible, and mappings for all.
var large = sync.OnceValue(func() *State {
	r := cluster(infallible{})
	c := &change{State: *r.s, index: r.index + 1}
	c.core.Index++
	c.core.Decided = 1
	c.targets.set(iqn, Target{Name: iqn})
	for i := range MaxLUNs {
		l := lun(100+i, fmt.Sprint("lun", i), "a b")
		c.putLUN(LUN{ID: l.ID, Name: l.Name, Number: uint16(i), Size: l.Size, BlockSize: 512, ExtentSize: l.ExtentSize, NAA: l.NAA, Replicas: l.Replicas,
			Preferred: "a", Loss: Hold, Revision: 1, Term: 1, Serving: []NodeID{"a", "b"}, Decided: 1, Chain: []Epoch{{1, l.Epoch}}})
	}
	for i := range 10000 {
		group := fmt.Sprint("group", i%1000)
		if i < 1000 {
			c.groups.set(group, Group{group, 1})
			for n := range 16 {
				c.putMapping(Mapping{iqn, Subject{Group: group}, uint16(n), id(100 + (i*16+n)%MaxLUNs)})
			}
		}
		c.putHost(Host{Name: fmt.Sprint("host", i), Initiators: []string{fmt.Sprint("iqn.1993-08.org.debian:01:", i)}, Group: group, Revision: 1})
	}
	if err := c.check(); err != nil {
		panic(err)
	}
	return &c.State
})

// infallible is a testing.TB for what cannot fail.
type infallible struct{ testing.TB }

func (infallible) Helper() {}

// TestLarge: a command costs what it changes, and not what there is; and a snapshot of
// everything is read again.
func TestLarge(t *testing.T) {
	s := large()
	for _, c := range []struct {
		name  string
		body  Body
		bytes uint64 // what it may allocate at most; the state has some ten megabytes
	}{
		{"a host", &PutHost{Name: "host77", Initiators: []string{"iqn.x:new"}, Group: "group3"}, 200 << 10},
		{"a mapping for a group", &Map{Mapping{iqn, Subject{Group: "group5"}, 100, id(3000)}}, 200 << 10},
		{"a LUN taken", &TakeAlone{Steps{"a", id(1), []Step{{LUN: id(200), Term: 1}}}}, 200 << 10},
		{"a reservation", &ReserveOut{LUN: id(200), From: Nexus{"iqn.x", 1}, NewKey: 1}, 200 << 10},
	} {
		raw, err := Command{ID: id(9), Time: start, Body: c.body}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		apply := func() {
			if _, res, err := s.Apply(s.Index()+1, raw); err != nil || res.Error != nil {
				t.Fatal(c.name, err, res.Error)
			}
		}
		if got := allocated(apply); got > c.bytes {
			t.Errorf("%s allocates %d bytes, want at most %d", c.name, got, c.bytes)
		}
	}
	text := bytesOf(t, s)
	back, err := Read(bytes.NewReader(text))
	if err != nil || !back.Equal(s) {
		t.Errorf("%d bytes of a snapshot: %v", len(text), err)
	}
}

// allocated is how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestTakeAll: everything that two nodes share, in one command.
func TestTakeAll(t *testing.T) {
	s := large()
	all := Steps{Node: "a", Epoch: id(1)}
	for l := range s.LUNs() {
		all.LUNs = append(all.LUNs, Step{LUN: l.ID, Term: l.Term})
	}
	raw, err := Command{ID: id(9), Time: start, Body: &TakeAlone{all}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	next, res, err := s.Apply(s.Index()+1, raw)
	if err != nil || res.Error != nil || res.Done != MaxLUNs {
		t.Fatalf("%v, %+v", err, res.Outcome)
	}
	for l := range next.LUNs() {
		if !l.Alone("a") || l.Term != 2 {
			t.Fatalf("LUN %+v", l)
		}
	}
	if events := next.core.Events - s.core.Events; events != 1 {
		t.Errorf("%d events", events)
	}
}

// TestReaders read while the next states are made; the race detector looks on.
func TestReaders(t *testing.T) {
	r := whole(t)
	s := r.s
	want := bytesOf(t, s)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				var b bytes.Buffer
				if _, err := s.WriteTo(&b); err != nil || !bytes.Equal(b.Bytes(), want) {
					t.Errorf("a reader sees another state: %v", err)
				}
				h, _ := s.HostOf("iqn.1993-08.org.debian:01:db1")
				if n := count(s.View(iqn, &h)); n != 1 {
					t.Errorf("a reader sees %d mappings", n)
				}
			}
		})
	}
	for i := range 50 {
		r.must(&PutHost{Name: "db1", Initiators: []string{fmt.Sprint("iqn.x:", i)}, Group: "db"}, serving(t, fmt.Sprint("a takes ", i+1), 20),
			&Map{Mapping{iqn, Subject{Group: "db"}, uint16(i + 10), id(20)}}, &Unmap{iqn, Subject{Group: "db"}, uint16(i + 10)})
	}
	wg.Wait()
}

func BenchmarkApply(b *testing.B) {
	s := large()
	for _, c := range []Body{
		&PutHost{Name: "host77", Initiators: []string{"iqn.x:new"}, Group: "group3"},
		&TakeAlone{Steps{"a", id(1), []Step{{LUN: id(200), Term: 1}}}},
		&ReserveOut{LUN: id(200), From: Nexus{"iqn.x", 1}, NewKey: 1},
	} {
		raw, _ := Command{ID: id(9), Time: start, Body: c}.Encode()
		b.Run(c.Kind(), func(b *testing.B) {
			b.ReportAllocs()
			for range b.N {
				s.Apply(s.Index()+1, raw)
			}
		})
	}
	b.Run("snapshot", func(b *testing.B) {
		for range b.N {
			b.SetBytes(int64(len(bytesOf(b, s))))
		}
	})
	text := bytesOf(b, s)
	b.Run("read", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		for range b.N {
			if _, err := Read(bytes.NewReader(text)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
