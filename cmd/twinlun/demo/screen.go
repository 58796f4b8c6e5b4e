package demo

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/twinlun/twinlun/cmd/twinlund/config"
)

// screen prints lines, and under them the status, which on a terminal is drawn
// over. Its methods may be called concurrently.
type screen struct {
	w    io.Writer
	live bool

	mu    sync.Mutex
	drawn []string // the status lines at the bottom of the terminal
}

// print writes text above the status.
func (s *screen) print(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rubLocked()
	fmt.Fprintln(s.w, text)
	s.drawLocked()
}

// status shows new status lines.
func (s *screen) status(lines []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.live {
		fmt.Fprintln(s.w, strings.Join(lines, "\n"))
		return
	}
	s.rubLocked()
	s.drawn = lines
	s.drawLocked()
}

// rubLocked takes the status off the terminal: up to its first line, and clear.
func (s *screen) rubLocked() {
	if len(s.drawn) > 0 {
		fmt.Fprintf(s.w, "\x1b[%dA\r\x1b[J", len(s.drawn))
	}
}

// drawLocked switches line wrapping off meanwhile: a wrapped line could not be taken
// back.
func (s *screen) drawLocked() {
	if len(s.drawn) > 0 {
		fmt.Fprintf(s.w, "\x1b[?7l%s\n\x1b[?7h", strings.Join(s.drawn, "\n"))
	}
}

// IsTerminal tells whether a file is a terminal.
func IsTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// welcome tells what a person can do now.
func (d *demo) welcome() string {
	a, b := d.sites[0].portal, d.sites[1].portal
	return fmt.Sprintf(`
Both sites serve one LUN of %[5]s. Try, in another terminal:

  iscsi-ls -s iscsi://%[1]s
  qemu-io -f raw -c 'write -P 0x5a 0 1M' iscsi://%[1]s/%[3]s/0    # write at site a
  qemu-io -f raw -c 'read -P 0x5a 0 1M' iscsi://%[2]s/%[3]s/0     # read it at site b, at once
  qemu-io -f raw -c 'write -P 0xa5 1M 1M' iscsi://%[2]s/%[3]s/0   # and the other way round
  qemu-io -f raw -c 'read -P 0xa5 1M 1M' iscsi://%[1]s/%[3]s/0

as root, with open-iscsi, for a disk of this machine at each site:

  iscsiadm -m discovery -t st -p %[1]s
  iscsiadm -m node -T %[3]s -p %[1]s --login
  (a file system goes to one site at a time: unmount it before it is mounted at the other)

  kill -9 %[6]d                                                    # site a; it comes back, b serves meanwhile
  curl -X PUT -d '{"cut":"both"}' http://%[4]s/        # cut the link; "none" heals it
  curl -X PUT -d '{"delay":"25ms"}' http://%[4]s/      # make it longer

  twinlun status --socket %[7]s     # the cluster

Ctrl-C ends the demo.
`, a, b, IQN, d.ctrl, config.FormatSize(d.lun.Size), d.sites[0].currentPID(), d.sites[0].file("api.sock"))
}
