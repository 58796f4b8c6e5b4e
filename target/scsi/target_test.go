package scsi

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/twinlun/twinlun/target/sam"
)

// TestNoLUN is what a logical unit that does not exist answers.
func TestNoLUN(t *testing.T) {
	r := newRig(t)
	for _, lun := range []string{
		"0001 0000 00000000", // not there, peripheral device addressing
		"4001 0000 00000000", // not there, flat space addressing
		"0100 0000 00000000", // bus identifier 1
		"c101 0000 00000000", // well known: REPORT LUNS
		"8000 0000 00000000", // logical unit addressing
		"0000 0001 00000000", // second level
		"0000 0000 00000001", // fourth level
	} {
		address := [8]byte(unhex(t, lun))
		do := func(cdb string) *sam.Command {
			p := unhex(t, cdb)
			return run(r.nexus, address, append(p, make([]byte, 16-len(p))...), nil, 512)
		}
		r.wantData(do("12 00 00 0008 00"), "7f 00 06 12 5b 18 10 02")
		r.wantData(do("12 01 00 00ff 00"), "7f 00 0001 00")
		r.want(do("12 01 83 00ff 00"), "5 2400 c00002")
		r.wantData(do("03 00 00 00 ff 00"), "70 00 05 00000000 0a 00000000 2500 00 000000")
		for _, cdb := range []string{"00", "28 00 00000000 00 0001 00", "25", "1a 00 3f 00 ff 00",
			"a0 00 00 000000 000000ff 00 00", "5e", "ff"} {
			r.want(do(cdb), "5 2500")
		}
		if r.nexus.HasLUN(address) || r.nexus.Reset(context.Background(), sam.LogicalUnitReset, address) {
			t.Errorf("LUN %s: exists", lun)
		}
	}
}

// TestEmptyTarget has no LUN 0, and answers REPORT LUNS there all the same.
func TestEmptyTarget(t *testing.T) {
	target := quietTarget()
	r := &rig{t: t, target: target, nexus: target.NewNexus(testPort, 1)}
	r.wantData(r.do("a0 00 00 000000 000000ff 00 00", nil, 255), zeros(8))
	r.want(r.do("00", nil, 0), "5 2500")
	for _, number := range []uint16{maxLUN, 256, 255, 7} {
		if err := target.AddLUN(number, testLUN(newRAM(4096))); err != nil {
			t.Fatal(err)
		}
	}
	r.wantData(r.do("a0 00 00 000000 000000ff 00 00", nil, 255),
		"00000020 00000000 0007000000000000 00ff000000000000 4100000000000000 7fff000000000000")
	for _, lun := range []string{"0007", "00ff", "40ff", "4100", "7fff"} {
		if !r.nexus.HasLUN([8]byte(unhex(t, lun+zeros(6)))) {
			t.Errorf("LUN %s: not there", lun)
		}
	}
	if r.nexus.HasLUN([8]byte{0x7f, 0xfe}) {
		t.Error("LUN 7ffe: there")
	}
}

// TestUnitAttention runs scripts. Steps: a CDB, and the outcome it must have;
// "again", "reset", "warm" and "cold" are events, "other" is what a second
// initiator hears.
func TestUnitAttention(t *testing.T) {
	for _, tt := range []struct{ name, script string }{
		{"power on is told once", "00=6 2900; 00=good"},
		{"every command but three tells it", "28=6 2900; 28=good"},
		{"an unknown command tells it", "ff=6 2900; ff=5 2000"},
		{"a bad CDB tells it", "0001=6 2900; 0001=5 2400 c80001"},
		{"INQUIRY does not", "12=good; 00=6 2900"},
		{"REPORT LUNS does not", "a0=good; 00=6 2900"},
		{"REQUEST SENSE is told", "03=good; 00=good"},
		{"LUN reset is told to all", "00=6 2900; other 00=6 2900; reset; other 00=6 2903; other 00=good; 00=6 2903; 00=good"},
		{"warm reset", "00=6 2900; warm; 00=6 2902; 00=good"},
		{"cold reset", "00=6 2900; cold; 00=6 2900; 00=good"},
		{"resets supersede", "00=6 2900; reset; warm; cold; 00=6 2900; 00=good"},
		{"hard reset supersedes", "00=6 2900; reset; warm; 00=6 2902; 00=good"},
		{"coming back", "00=6 2900; again; 00=6 2907; 00=good"},
		{"coming back untold", "again; 00=6 2900; 00=good"},
		{"coming back after a reset", "00=6 2900; gone; reset; again; 00=6 2903; 00=good"},
		{"new LUN", "00=6 2900; add; 00=6 3f0e; 00=good"},
		{"new LUN, found", "00=6 2900; add; a0=good; 00=good"},
		{"LUN gone", "00=6 2900; add; 00=6 3f0e; remove; 00=6 3f0e; 00=good"},
		{"two conditions", "add; 00=6 2900; 00=6 3f0e; 00=good"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScript(t)
			for _, step := range strings.Split(tt.script, "; ") {
				s.step(step)
			}
		})
	}
}

type script struct {
	*rig
	other, admin *rig
}

func newScript(t *testing.T) *script {
	target := quietTarget()
	if err := target.AddLUN(0, testLUN(newRAM(4096))); err != nil {
		t.Fatal(err)
	}
	nexus := func(name string) *rig {
		return &rig{t: t, target: target, nexus: target.NewNexus(sam.InitiatorPort{Name: name}, 1)}
	}
	return &script{nexus("one"), nexus("other"), nexus("admin")}
}

func (s *script) step(step string) {
	s.t.Helper()
	switch step {
	case "again":
		s.nexus.Close()
		s.nexus.Close() // twice is once
		s.nexus = s.target.NewNexus(sam.InitiatorPort{Name: "one"}, 1)
	case "gone":
		s.nexus.Close()
	case "reset":
		s.admin.nexus.Reset(context.Background(), sam.LogicalUnitReset, [8]byte{})
	case "warm":
		s.admin.nexus.Reset(context.Background(), sam.TargetWarmReset, [8]byte{})
	case "cold":
		s.admin.nexus.Reset(context.Background(), sam.TargetColdReset, [8]byte{})
	case "add":
		if err := s.target.AddLUN(1, testLUN(newRAM(4096))); err != nil {
			s.t.Fatal(err)
		}
	case "remove":
		if err := s.target.RemoveLUN(1); err != nil {
			s.t.Fatal(err)
		}
	default:
		r := s.rig
		if rest, ok := strings.CutPrefix(step, "other "); ok {
			r, step = s.other, rest
		}
		cdb, want, _ := strings.Cut(step, "=")
		r.want(r.do(cdb, nil, 0), want)
	}
}

// TestRequestSenseData returns the unit attention as data.
func TestRequestSenseData(t *testing.T) {
	s := newScript(t)
	s.wantData(s.do("03 00 00 00 ff 00", nil, 255), "70 00 06 00000000 0a 00000000 2900 00 000000")
	s.wantData(s.do("03 00 00 00 ff 00", nil, 255), "70 00 00 00000000 0a 00000000 0000 00 000000")
	s.wantData(s.other.do("03 01 00 00 ff 00", nil, 255), "72 06 2900 00000000")
}

// TestRemovedBetween removes a LUN after a command was prepared.
func TestRemovedBetween(t *testing.T) {
	r := newRig(t)
	c := &sam.Command{CDB: unhex(t, "28 00 00000000 00 0001 00 000000000000")}
	if !r.nexus.Prepare(c) {
		t.Fatal("not prepared")
	}
	if err := r.target.RemoveLUN(0); err != nil {
		t.Fatal(err)
	}
	c.In = make([]byte, 512)
	r.nexus.Execute(c)
	r.want(c, "5 2500")
}

// TestReplacedBetween puts another LUN under the number after a write was
// prepared, which must reach neither.
func TestReplacedBetween(t *testing.T) {
	r := newRig(t)
	c := &sam.Command{CDB: unhex(t, "2a 00 00000000 00 0001 00 000000000000"), Out: make([]byte, 512)}
	if !r.nexus.Prepare(c) {
		t.Fatal("not prepared")
	}
	if err := r.target.RemoveLUN(0); err != nil {
		t.Fatal(err)
	}
	other := newRAM(4096)
	if err := r.target.AddLUN(0, testLUN(other)); err != nil {
		t.Fatal(err)
	}
	r.nexus.Execute(c)
	r.want(c, "5 2500")
	if got := r.disk.took() + other.took(); got != "" {
		t.Errorf("the disks saw %q", got)
	}
}

// TestShrunkBetween has the disk shrink after a command was prepared.
func TestShrunkBetween(t *testing.T) {
	r := newRig(t)
	for _, cdb := range []string{"28 00 0000003f 00 0001 00", "2a 00 0000003f 00 0001 00",
		"2f 00 0000003f 00 0001 00", "93 01 000000000000003f 00000001 00 00"} {
		p := unhex(t, cdb)
		c := &sam.Command{CDB: append(p, make([]byte, 16-len(p))...)}
		if !r.nexus.Prepare(c) {
			t.Fatalf("%s: not prepared", cdb)
		}
		whole := r.disk.p
		r.disk.p = r.disk.p[:512]
		r.nexus.Execute(c)
		r.want(c, "5 2100")
		r.disk.p = whole
	}
}

// TestAddLUNRefuses lists descriptions of LUNs that are wrong.
func TestAddLUNRefuses(t *testing.T) {
	for _, tt := range []struct {
		corrupt string
		number  uint16
		change  func(*LUN)
		want    string
	}{
		{"number taken", 0, func(*LUN) {}, "remove that LUN first"},
		{"number", 1 << 14, func(*LUN) {}, "go up to 16383"},
		{"disk", 1, func(l *LUN) { l.Disk = nil }, "no disk"},
		{"size", 1, func(l *LUN) { l.Disk = newRAM(511) }, "smaller than one block"},
		{"block size", 1, func(l *LUN) { l.BlockSize = 256 }, "block size 256"},
		{"block size", 1, func(l *LUN) { l.BlockSize = 520 }, "block size 520"},
		{"block size", 1, func(l *LUN) { l.BlockSize = 8192 }, "block size 8192"},
		{"NAA", 1, func(l *LUN) { l.NAA = [16]byte{} }, "must start with 6"},
		{"NAA", 1, func(l *LUN) { l.NAA[0] = 0x50 }, "eight zero bytes"},
		{"serial", 1, func(l *LUN) { l.Serial = "" }, "serial number"},
		{"serial", 1, func(l *LUN) { l.Serial = strings.Repeat("x", 129) }, "serial number"},
		{"vendor", 1, func(l *LUN) { l.Vendor = "ninechars" }, "vendor"},
		{"product", 1, func(l *LUN) { l.Product = "tab\t" }, "product"},
		{"revision", 1, func(l *LUN) { l.Revision = "ü" }, "revision"},
	} {
		r := newRig(t)
		l := testLUN(newRAM(4096))
		tt.change(&l)
		if err := r.target.AddLUN(tt.number, l); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one with %q", tt.corrupt, err, tt.want)
		}
	}
	if err := quietTarget().RemoveLUN(3); err == nil {
		t.Error("removed a LUN that is not there")
	}
}

// TestPortsAreBounded opens and closes many nexuses, and keeps those in use.
func TestPortsAreBounded(t *testing.T) {
	r := newRig(t)
	for i := range 3 * maxPorts {
		r.target.NewNexus(sam.InitiatorPort{Name: fmt.Sprint(i)}, 1).Close()
	}
	if n := len(r.target.ports); n > maxPorts {
		t.Errorf("%d ports are remembered", n)
	}
	r.want(r.do("00", nil, 0), "good")
	again := &rig{t: t, nexus: r.target.NewNexus(testPort, 2)}
	again.ua("2907")
}

// TestLongName keeps the identification page inside its lengths.
func TestLongName(t *testing.T) {
	target := NewTarget(Config{Name: strings.Repeat("n", 1000)})
	l := testLUN(newRAM(4096))
	l.Serial = strings.Repeat("s", maxSerial)
	if err := target.AddLUN(0, l); err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, nexus: target.NewNexus(testPort, 0xffff)}
	c := r.do("12 01 83 ffff 00", nil, 1<<16)
	r.want(c, "good")
	if int(c.In[2])<<8+int(c.In[3]) != int(c.InLen)-4 || c.InLen != c.Needed {
		t.Errorf("page length %x, %d bytes, needed %d", c.In[2:4], c.InLen, c.Needed)
	}
	for p := c.In[4:c.InLen]; len(p) > 0; p = p[4+int(p[3]):] {
		if len(p) < 4+int(p[3]) {
			t.Fatal("a designator reaches beyond the page")
		}
	}
}

// TestSameAtTwoSites compares what names the logical unit at two targets, and
// what names their ports.
func TestSameAtTwoSites(t *testing.T) {
	a, b := newRig(t), newRig(t)
	b.nexus = b.target.NewNexus(testPort, 1)
	for _, page := range []string{"12 00 00 00ff 00", "12 01 80 00ff 00", "12 01 83 0038 00", "12 01 b0 00ff 00"} {
		x, y := a.do(page, nil, 255), b.do(page, nil, 255)
		if string(x.In[:x.InLen]) != string(y.In[:y.InLen]) {
			t.Errorf("%s: %x and %x", page, x.In, y.In)
		}
	}
	x, y := a.do("12 01 83 00ff 00", nil, 255), b.do("12 01 83 00ff 00", nil, 255)
	if string(x.In) == string(y.In) {
		t.Error("both ports have the same identification")
	}
}

// TestConcurrent runs commands while LUNs come and go and units are reset; the
// race detector is what looks.
func TestConcurrent(t *testing.T) {
	r := newRig(t)
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			n := r.target.NewNexus(sam.InitiatorPort{Name: fmt.Sprint(i)}, 1)
			defer n.Close()
			for range 300 {
				for _, cdb := range []string{"28000000000000000100000000000000", "2a000000000000000100000000000000",
					"a0000000000000000200000000000000", "9e100000000000000000000000200000"} {
					c := run(n, [8]byte{}, unhex(t, cdb), make([]byte, 512), 512)
					if got := outcome(c); got != "good" && !strings.HasPrefix(got, "6 ") {
						t.Errorf("CDB %s: %s", cdb, got)
					}
				}
			}
		})
	}
	for range 100 {
		if err := r.target.AddLUN(1, testLUN(newRAM(4096))); err != nil {
			t.Error(err)
		}
		r.nexus.Reset(context.Background(), sam.LogicalUnitReset, [8]byte{})
		if err := r.target.RemoveLUN(1); err != nil {
			t.Error(err)
		}
	}
	all.Wait()
}
