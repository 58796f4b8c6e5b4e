// Package lab is a small network in which tests break things: nodes (sites, witness,
// hosts) in network namespaces of their own, joined by a router in another one, with
// lines that are cut and healed one direction at a time; processes that run on a node;
// and disks that fill up or turn read-only. Nothing of it is reachable from the machine
// itself, and all of it goes with the test.
//
// Each node has one address, at the end of a pair of virtual cables to the router:
//
//	a 10.77.1.2 ── 10.77.1.1 ┐
//	b 10.77.2.2 ── 10.77.2.1 ┼ router
//	witness 10.77.3.2 ── …   ┘
//
// A router rather than a bridge: what it is told to drop is gone without a word, as
// in a switch that has failed. The same rule on a node itself would tell its sender, who
// learns at once what it has to find out by waiting.
//
// The namespaces are named twlab-PID-N-NODE, after the process that made them; what a
// dead process has left is removed by the next one.
package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// prefix of all that a lab leaves in the system: namespaces, and folders of disks.
const prefix = "twlab-"

// maxNodes is what the third byte of the addresses has room for.
const maxNodes = 250

// labs counts those of this process.
var labs atomic.Int64

// Lab is one network. One goroutine at a time may change its lines.
type Lab struct {
	t      testing.TB
	name   string // twlab-PID-N
	router *Node
	nodes  []*Node
	cuts   map[line]bool // what is dropped now
}

// Node is one machine of the network.
type Node struct {
	Name string
	Addr netip.Addr
	lab  *Lab
	path string // of the namespace
}

// New makes a network of nodes with these names, letters and digits. Without root, or
// without the program ip, the test is skipped.
func New(t testing.TB, names ...string) *Lab {
	t.Helper()
	need(t)
	if len(names) > maxNodes {
		t.Fatalf("lab: %d nodes; it has room for %d", len(names), maxNodes)
	}
	l := &Lab{t: t, name: fmt.Sprintf("%s%d-%d", prefix, os.Getpid(), labs.Add(1)), cuts: map[line]bool{}}
	t.Cleanup(l.remove)
	if err := l.build(names); err != nil {
		t.Fatal(err)
	}
	return l
}

// need skips the test where there can be no lab, and cleans up after the dead.
func need(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a lab needs root, for network namespaces and mounts")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("a lab needs the program ip; on Debian: apt-get install iproute2")
	}
	if err := removeLeftovers(); err != nil {
		t.Logf("what an earlier lab has left: %v", err)
	}
}

func (l *Lab) build(names []string) (err error) {
	if l.router, err = l.addNode("router"); err != nil {
		return err
	}
	for _, name := range names {
		if err := l.join(name); err != nil {
			return err
		}
	}
	return l.router.Inside(func() error {
		return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0)
	})
}

func (l *Lab) join(name string) error {
	n, err := l.addNode(name)
	if err != nil {
		return err
	}
	l.nodes = append(l.nodes, n)
	return l.connect(n, len(l.nodes))
}

// Add makes one more node.
func (l *Lab) Add(name string) (*Node, error) {
	if len(l.nodes) >= maxNodes {
		return nil, fmt.Errorf("lab: it has room for %d nodes", maxNodes)
	}
	if err := l.join(name); err != nil {
		return nil, err
	}
	return l.nodes[len(l.nodes)-1], nil
}

// addNode makes a namespace with nothing in it but loopback.
func (l *Lab) addNode(name string) (*Node, error) {
	n := &Node{Name: name, lab: l}
	if err := ip("netns", "add", n.namespace()); err != nil {
		return nil, err
	}
	n.path = "/run/netns/" + n.namespace()
	return n, ip("-n", n.namespace(), "link", "set", "lo", "up")
}

// connect lays the cable between a node and the router; see the package comment.
func (l *Lab) connect(n *Node, i int) error {
	n.Addr = netip.AddrFrom4([4]byte{10, 77, byte(i), 2})
	gateway, port := fmt.Sprintf("10.77.%d.1", i), fmt.Sprintf("port%d", i)
	node, router := n.namespace(), l.router.namespace()
	return firstError(
		func() error {
			return ip("link", "add", "eth0", "netns", node, "type", "veth", "peer", "name", port, "netns", router)
		},
		func() error { return ip("-n", node, "addr", "add", n.Addr.String()+"/24", "dev", "eth0") },
		func() error { return ip("-n", node, "link", "set", "eth0", "up") },
		func() error { return ip("-n", router, "addr", "add", gateway+"/24", "dev", port) },
		func() error { return ip("-n", router, "link", "set", port, "up") },
		func() error { return ip("-n", node, "route", "add", "default", "via", gateway) },
	)
}

func firstError(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// remove takes the namespaces away. What runs in them has been ended before: those
// clean-ups were registered later.
func (l *Lab) remove() {
	for _, n := range append(l.nodes, l.router) {
		if n == nil || n.path == "" {
			continue
		}
		if err := ip("netns", "del", n.namespace()); err != nil {
			l.t.Errorf("remove the lab: %v", err)
		}
	}
}

// Node finds one by its name.
func (l *Lab) Node(name string) *Node {
	l.t.Helper()
	for _, n := range l.nodes {
		if n.Name == name {
			return n
		}
	}
	l.t.Fatalf("lab: there is no node %q", name)
	return nil
}

func (n *Node) namespace() string { return n.lab.name + "-" + n.Name }

// At is an address on the node.
func (n *Node) At(port uint16) string { return netip.AddrPortFrom(n.Addr, port).String() }

// Inside runs f in a thread that is in the node's network: sockets that f opens itself,
// not in goroutines of its own, and processes that it starts belong to the node, for good.
func (n *Node) Inside(f func() error) error {
	done := make(chan error)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and nobody else gets one
		// that is in the wrong network.
		runtime.LockOSThread()
		err := enter(n.path)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// enter moves the calling thread into a network namespace.
func enter(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Setns(fd, unix.CLONE_NEWNET)
		unix.Close(fd)
	}
	if err != nil {
		return fmt.Errorf("enter the network namespace %s: %w", path, err)
	}
	return nil
}

// DialContext connects from the node to an address, a literal IP address with a port:
// names would be looked up by other threads, elsewhere.
func (n *Node) DialContext(ctx context.Context, network, address string) (conn net.Conn, err error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("dial from %s: %w", n.Name, err)
	}
	err = n.Inside(func() (err error) {
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Listen listens on the node, in the test's process.
func (n *Node) Listen(port uint16) (l net.Listener, err error) {
	err = n.Inside(func() (err error) {
		l, err = net.Listen("tcp", n.At(port))
		return err
	})
	return l, err
}

// ip runs the program of that name.
func ip(args ...string) error { return run("ip", args...) }

// run runs a program that is over soon.
func run(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), errors.Join(err, errors.New(strings.TrimSpace(string(out)))))
	}
	return nil
}
