package e2e

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

const (
	everybody = "hosts: [{initiator: \"*\"}]\n"
	smallLUN  = "{number: 0, name: disk, uuid: 6ba7b810-9dad-11d1-80b4-00c04fd430c8, size: 64MiB, preferred: a}"
	largeLUN  = "{number: 0, name: disk, uuid: 6ba7b810-9dad-11d1-80b4-00c04fd430c8, size: 96MiB, preferred: a}"
	secondLUN = "{number: 1, name: other, uuid: 6ba7b811-9dad-11d1-80b4-00c04fd430c8, size: 16MiB, preferred: b}"
)

// TestLinuxChange: a LUN grows, and another one comes and goes, as the Linux initiator
// sees it, while there is load.
func TestLinuxChange(t *testing.T) {
	t.Parallel()
	needVM(t)
	p := startPairWith(t, "["+smallLUN+"]", everybody)
	shared := t.TempDir()
	done := make(chan struct{})
	changed := make(chan struct{})
	go func() {
		defer close(changed)
		p.obey(shared, done, []order{
			{"grow", "[" + largeLUN + "]", []int64{96 << 20}},
			{"come", "[" + largeLUN + ", " + secondLUN + "]", []int64{96 << 20, 16 << 20}},
			{"go", "[" + largeLUN + "]", []int64{96 << 20}},
		})
	}()
	defer func() {
		close(done)
		<-changed
	}()
	var ports []string
	for _, portal := range p.portals {
		_, port, err := net.SplitHostPort(portal)
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, port)
	}
	inVM(t, "change.sh", []string{"-s", shared}, append(ports, pairIQN)...)
}

// order is what the guest may ask for, and how the sites are then.
type order struct {
	name  string
	luns  string
	sizes []int64
}

// obey does what the guest asks for by files in a folder, until done.
func (p *pair) obey(folder string, done <-chan struct{}, orders []order) {
	for _, o := range orders {
		path := filepath.Join(folder, o.name)
		for !exists(path) {
			select {
			case <-done:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
		err := p.reconfigure(o.luns, everybody, o.sizes...)
		if err == nil {
			err = os.Remove(path)
		}
		if err != nil {
			p.t.Errorf("%s: %v", o.name, err)
			return
		}
	}
}
