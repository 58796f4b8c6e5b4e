package scsi

import (
	"strings"
	"testing"

	"github.com/twinlun/twinlun/target/sam"
)

const askGroups, askExtended = "a3 0a 00000000 000000ff 00 00", "a3 2a 00000000 000000ff 00 00"

// newSites is a target at site a, which is reached through port 1 of group 1; group 2
// is site b's. The LUN prefers a group.
func newSites(t *testing.T, preferred uint16) *hosts {
	h := &hosts{by: map[string]*rig{}}
	cfg := Config{Name: testName, Groups: []PortGroup{{ID: 1, Ports: []uint16{1}}, {ID: 2, Ports: []uint16{2, 3}, Remote: true}}}
	target := NewTarget(cfg)
	l := memoryLUN()
	l.PreferredGroup = preferred
	if err := target.AddLUN(0, l); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		h.by[name] = &rig{t: t, target: target, nexus: target.NewNexus(sam.InitiatorPort{Name: name}, 1)}
		h.by[name].ua("2900")
	}
	h.rig = h.by["a"]
	return h
}

// TestGroups pins REPORT TARGET PORT GROUPS, byte by byte.
func TestGroups(t *testing.T) {
	h := newSites(t, 0)
	h.wantData(h.do(askGroups, nil, 255), "0000001c 00 8f 0001 00 00 00 01 0000 0001 00 8f 0002 00 00 00 02 0000 0002 0000 0003")
	h.wantData(h.do(askExtended, nil, 255), "00000020 10 00 0000 00 8f 0001 00 00 00 01 0000 0001 00 8f 0002 00 00 00 02 0000 0002 0000 0003")
	h.wantData(h.do("a3 0a 00000000 00000006 00 00", nil, 255), "0000001c 00 8f")
	h.want(h.do("a3 4a 00000000 000000ff 00 00", nil, 255), "5 2400 cf0001")
	h.want(h.do("a4 0a", nil, 0), "5 2000") // SET TARGET PORT GROUPS
	if c := h.do("12 00 00 00ff 00", nil, 255); c.In[5]>>4 != 1 {
		t.Errorf("TPGS %d, want implicit only", c.In[5]>>4)
	}
	one := newRig(t) // without any groups
	one.wantData(one.do(askGroups, nil, 255), "0000000c 00 8f 0002 00 00 00 01 0000 0002")
}

// TestPreference shows what each host sees: of the LUN's preference, and of its own.
func TestPreference(t *testing.T) {
	groups := func(r *rig, one, two string) {
		t.Helper()
		r.wantData(r.do(askGroups, nil, 255), "0000001c "+one+" 8f 0001 00 00 00 01 0000 0001 "+two+" 8f 0002 00 00 00 02 0000 0002 0000 0003")
	}
	h := newSites(t, 2)
	a, b := h.rig, h.by["b"]
	groups(a, "01", "80")
	h.target.SetPreference("b", 1)
	b.ua("2a06")
	groups(b, "80", "01")
	groups(a, "01", "80")
	h.target.SetPreference("b", 1) // nothing new
	b.want(b.do("00", nil, 0), "good")
	h.target.SetPreference("b", 0)
	b.ua("2a06")
	groups(b, "01", "80")
	a.want(a.do("00", nil, 0), "good")
	h.target.SetPreference("c", 1) // before it comes
	c := &rig{t: t, target: h.target, nexus: h.target.NewNexus(sam.InitiatorPort{Name: "c"}, 1)}
	c.ua("2900")
	groups(c, "80", "01")
}

// TestAccessStates is what runs in each state (SPC-4 5.15.2.4): columns are standby,
// unavailable and transitioning, - for not.
func TestAccessStates(t *testing.T) {
	h := newSites(t, 0)
	states := []struct {
		state AccessState
		code  string
		data  string
	}{{Standby, "2 040b", "02"}, {Unavailable, "2 040c", "03"}, {Transitioning, "2 040a", "0f"}}
	for _, row := range []struct{ name, cdb, runs string }{
		{"TEST UNIT READY", "00", "---"},
		{"REQUEST SENSE", "03", "+++"},
		{"INQUIRY", "12", "+++"},
		{"MODE SELECT (6)", "15", "+--"},
		{"RESERVE (6)", "16", "---"},
		{"RECEIVE DIAGNOSTIC RESULTS", "1c", "+--"},
		{"SEND DIAGNOSTIC", "1d", "+--"},
		{"MODE SENSE (6)", "1a 00 3f 00 ff", "+--"},
		{"START STOP UNIT", "1b 00 00 00 01", "---"},
		{"READ CAPACITY (10)", "25", "+--"},
		{"READ (10)", "28 00 00000000 00 0001", "---"},
		{"WRITE (10)", "2a 00 00000000 00 0001", "---"},
		{"SYNCHRONIZE CACHE (10)", "35", "---"},
		{"UNMAP", "42", "---"},
		{"LOG SENSE", "4d", "+--"},
		{"MODE SENSE (10)", "5a 00 3f 00 00 00 00 00ff", "+--"},
		{"READ KEYS", "5e", "+--"},
		{"PERSISTENT RESERVE OUT", "5f", "+--"},
		{"READ (16)", "88 00 0000000000000000 00000001", "---"},
		{"READ CAPACITY (16)", "9e 10 0000000000000000 00000020", "+--"},
		{"REPORT LUNS", "a0 00 00 000000 000000ff", "+++"},
		{"REPORT TARGET PORT GROUPS", askGroups, "+++"},
		{"REPORT SUPPORTED OPERATION CODES", "a3 0c", "---"},
	} {
		for i, s := range states {
			if err := h.target.SetAccessState(0, 1, s.state); err != nil {
				t.Fatal(err)
			}
			h.wantData(h.do("03 00 00 00 ff 00", nil, 255), "70 00 06 00000000 0a 00000000 2a06 00 000000")
			want := map[byte]string{'+': "", '-': s.code}[row.runs[i]]
			if got := outcome(h.do(row.cdb, nil, 512)); (want != "" || strings.HasPrefix(got, "2 ")) && got != want {
				t.Errorf("%s in state %d: %q, want %q", row.name, s.state, got, want)
			}
			h.wantData(h.do(askGroups, nil, 255), "0000001c "+s.data+" 8f 0001 00 02 00 01 0000 0001 00 8f 0002 00 00 00 02 0000 0002 0000 0003")
			if err := h.target.SetAccessState(0, 1, ActiveOptimized); err != nil {
				t.Fatal(err)
			}
			h.ua("2a06")
			h.want(h.do("28 00 00000000 00 0001", nil, 512), "good")
		}
	}
}

// TestOtherGroupUnavailable does not concern this site's port, whose hosts are told.
func TestOtherGroupUnavailable(t *testing.T) {
	h := newSites(t, 1)
	if err := h.target.SetAccessState(0, 2, Unavailable); err != nil {
		t.Fatal(err)
	}
	for _, r := range h.by {
		r.ua("2a06")
		r.want(r.do("28 00 00000000 00 0001", nil, 512), "good")
		r.wantData(r.do(askGroups, nil, 255), "0000001c 80 8f 0001 00 00 00 01 0000 0001 03 8f 0002 00 02 00 02 0000 0002 0000 0003")
	}
	for _, wrong := range []func() error{
		func() error { return h.target.SetAccessState(1, 1, Standby) },
		func() error { return h.target.SetAccessState(0, 1, activeNonOptimized) },
		func() error { return h.target.SetAccessState(0, 1, 7) },
	} {
		if wrong() == nil {
			t.Error("no error")
		}
	}
}

// TestGroupsChange has a third site come, and a unit move to it.
func TestGroupsChange(t *testing.T) {
	h := newHosts(t, memoryLUN())
	const report = "a3 0a 00 00 00 00 00 00 ffff 00 00"
	tell := func(what string, change func(), want string) {
		t.Helper()
		change()
		h.want(h.do("00 00 00 00 00 00", nil, 0), "6 2a06")
		h.want(h.do("00 00 00 00 00 00", nil, 0), "good")
		h.wantData(h.do(report, nil, 99), want)
	}
	group := func(id uint16) PortGroup { return PortGroup{ID: id, Ports: []uint16{id}, Remote: id > 1} }
	tell("two", func() { h.target.SetGroups([]PortGroup{group(1), group(2)}) },
		"00000018 008f0001 00000001 00000001 008f0002 00000001 00000002")
	h.target.SetGroups([]PortGroup{group(1), group(2)})
	h.want(h.do("00 00 00 00 00 00", nil, 0), "good")
	tell("three", func() { h.target.SetGroups([]PortGroup{group(1), group(2), group(3)}) },
		"00000024 008f0001 00000001 00000001 008f0002 00000001 00000002 008f0003 00000001 00000003")
	tell("placed", func() {
		if err := h.target.Place(0, []uint16{1, 3}); err != nil {
			t.Error(err)
		}
	}, "00000018 008f0001 00000001 00000001 008f0003 00000001 00000003")
	tell("preferred", func() {
		if err := h.target.Prefer(0, 3); err != nil {
			t.Error(err)
		}
	}, "00000018 018f0001 00000001 00000001 808f0003 00000001 00000003")
	if h.target.Place(9, nil) == nil || h.target.Prefer(9, 1) == nil {
		t.Error("LUN 9 is not there")
	}
}
