package iscsi

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestParseText(t *testing.T) {
	long := strings.Repeat("x", maxValue)
	var many []string
	for k := range maxKeys {
		many = append(many, "X-"+strings.Repeat("a", k%60)+string(rune('A'+k/60))+"=1")
	}
	for _, c := range []struct {
		name, in string
		want     []pair
		corrupt  bool
	}{
		{name: "nothing"},
		{name: "zeros", in: "\x00\x00\x00"},
		{name: "two", in: "A=1\x00B=2\x00", want: []pair{{"A", "1"}, {"B", "2"}}},
		{name: "not ended", in: "A=1\x00B=2", want: []pair{{"A", "1"}, {"B", "2"}}},
		{name: "zeros between", in: "A=1\x00\x00B=2\x00\x00", want: []pair{{"A", "1"}, {"B", "2"}}},
		{name: "empty value", in: "SendTargets=\x00", want: []pair{{"SendTargets", ""}}},
		{name: "equals sign in the value", in: "A=b=c\x00", want: []pair{{"A", "b=c"}}},
		{name: "a vendor's key", in: "X-com.example.Foo_1=a\x00", want: []pair{{"X-com.example.Foo_1", "a"}}},
		{name: "longest value", in: "A=" + long + "\x00", want: []pair{{"A", long}}},
		{name: "value too long", in: "A=" + long + "x\x00", corrupt: true},
		{name: "twice", in: "A=1\x00A=2\x00", corrupt: true},
		{name: "no equals sign", in: "A\x00", corrupt: true},
		{name: "no key", in: "=1\x00", corrupt: true},
		{name: "key with a space", in: "A b=1\x00", corrupt: true},
		{name: "key that starts with a digit", in: "1a=1\x00", corrupt: true},
		{name: "key too long", in: strings.Repeat("A", 64) + "=1\x00", corrupt: true},
		{name: "too many", in: strings.Join(many, "\x00") + "\x00Z=1\x00", corrupt: true},
	} {
		got, err := parseText([]byte(c.in))
		if c.corrupt != errors.Is(err, errText) || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
	}
	if _, err := parseText([]byte("iSCSIProtocolLevel=1\x00")); err != nil {
		t.Errorf("the one key of RFC 7144 that starts small: %v", err)
	}
	if got, err := parseText([]byte(strings.Join(many, "\x00"))); err != nil || len(got) != maxKeys {
		t.Errorf("as many keys as may be: %d, %v", len(got), err)
	}
}

func TestCollector(t *testing.T) {
	var c collector
	if _, complete, err := c.add([]byte("A=1\x00B="), true); complete || err != nil {
		t.Fatal(complete, err)
	}
	if text, complete, err := c.add([]byte("2\x00"), false); !complete || err != nil || string(text) != "A=1\x00B=2\x00" {
		t.Fatal(string(text), complete, err)
	}
	for range maxText / 1024 {
		if _, _, err := c.add(make([]byte, 1024), true); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := c.add([]byte{0}, true); !errors.Is(err, errText) {
		t.Fatalf("text over the limit: %v", err)
	}
}

func TestSender(t *testing.T) {
	var o sender
	if piece, more := o.next(4); len(piece) != 0 || more || o.pending() {
		t.Error("nothing is more than nothing")
	}
	o.text = []byte("abcdefgh")
	for _, want := range []string{"abc+", "def+", "gh"} {
		piece, more := o.next(3)
		got := string(piece)
		if more {
			got += "+"
		}
		if got != want || more != o.pending() {
			t.Errorf("%q, not %q", got, want)
		}
	}
}

func TestParseNumber(t *testing.T) {
	for s, want := range map[string]int{
		"0": 0, "65536": 65536, "0x10": 16, "0X1f": 31, "": -1, "-1": -1, "+1": -1, "1_0": -1,
		"0x": -1, "0b1": -1, "1 ": -1, "0x-1": -1, "99999999999999999999": -1,
	} {
		if n, ok := parseNumber(s); ok != (want >= 0) || ok && n != uint64(want) {
			t.Errorf("%q is %d, %v", s, n, ok)
		}
	}
}

func TestNegotiate(t *testing.T) {
	limits := Limits{}
	limits.setDefaults()
	for _, c := range []struct {
		key, value, answer string
		check              func(*params) bool
	}{
		{"HeaderDigest", "None", "None", func(p *params) bool { return !p.headerDigest }},
		{"HeaderDigest", "CRC32C,None", "CRC32C", func(p *params) bool { return p.headerDigest }},
		{"DataDigest", "None,CRC32C", "None", func(p *params) bool { return !p.dataDigest }},
		{"DataDigest", "X-foo,CRC32C", "CRC32C", func(p *params) bool { return p.dataDigest }},
		{"DataDigest", "X-foo", "Reject", func(p *params) bool { return !p.dataDigest }},
		{"MaxConnections", "8", "1", nil},
		{"MaxConnections", "0", "Reject", nil},
		{"InitialR2T", "No", "No", func(p *params) bool { return !p.initialR2T }},
		{"InitialR2T", "Yes", "Yes", func(p *params) bool { return p.initialR2T }},
		{"InitialR2T", "yes", "Reject", func(p *params) bool { return p.initialR2T }},
		{"ImmediateData", "No", "No", func(p *params) bool { return !p.immediateData }},
		{"ImmediateData", "Yes", "Yes", func(p *params) bool { return p.immediateData }},
		{"MaxRecvDataSegmentLength", "262144", "", func(p *params) bool { return p.maxSend == 262144 }},
		{"MaxRecvDataSegmentLength", "511", "Reject", func(p *params) bool { return p.maxSend == 8192 }},
		{"MaxRecvDataSegmentLength", "16777216", "Reject", func(p *params) bool { return p.maxSend == 8192 }},
		{"MaxBurstLength", "16776192", "1048576", func(p *params) bool { return p.maxBurst == 1<<20 }},
		{"MaxBurstLength", "0x200", "512", func(p *params) bool { return p.maxBurst == 512 }},
		{"MaxBurstLength", "100", "Reject", func(p *params) bool { return p.maxBurst == 262144 }},
		{"FirstBurstLength", "262144", "65536", func(p *params) bool { return p.firstBurst == 65536 }},
		{"FirstBurstLength", "4096", "4096", func(p *params) bool { return p.firstBurst == 4096 }},
		{"DefaultTime2Wait", "0", "2", nil},
		{"DefaultTime2Wait", "5", "5", nil},
		{"DefaultTime2Wait", "3601", "Reject", nil},
		{"DefaultTime2Retain", "20", "0", nil},
		{"MaxOutstandingR2T", "1", "1", func(p *params) bool { return p.maxR2T == 1 }},
		{"MaxOutstandingR2T", "65535", "8", func(p *params) bool { return p.maxR2T == maxR2T }},
		{"DataPDUInOrder", "No", "Yes", nil},
		{"DataSequenceInOrder", "No", "Yes", nil},
		{"ErrorRecoveryLevel", "2", "0", nil},
		{"ErrorRecoveryLevel", "3", "Reject", nil},
		{"IFMarker", "Yes", "No", nil},
		{"OFMarkInt", "1~2", "Reject", nil},
		{"TaskReporting", "FastAbort,RFC3720", "RFC3720", nil},
		{"iSCSIProtocolLevel", "2", "1", nil},
		{"InitiatorAlias", "me", "", nil},
		{"X-com.example.Foo", "1", "NotUnderstood", nil},
		{"Unheard", "Of", "NotUnderstood", nil},
	} {
		p := defaultParams()
		answer, ok := negotiate(&p, &limits, pair{c.key, c.value}, stageOperational, false)
		if !ok || answer != c.answer || c.check != nil && !c.check(&p) {
			t.Errorf("%s=%s: %q, %v, %+v", c.key, c.value, answer, ok, p)
		}
	}
}

func TestNegotiateElsewhere(t *testing.T) {
	limits := Limits{}
	limits.setDefaults()
	for _, c := range []struct {
		key, value string
		stage      byte
		discovery  bool
		answer     string
		ok         bool
	}{
		{"AuthMethod", "CHAP,None", stageSecurity, false, "", true},
		{"CHAP_N", "me", stageSecurity, false, "", true},
		{"CHAP_N", "me", stageOperational, false, "Reject", false},
		{"AuthMethod", "None", stageOperational, false, "Reject", false},
		{"HeaderDigest", "None", stageSecurity, false, "Reject", false},
		{"HeaderDigest", "None", stageFullFeature, false, "Reject", false},
		{"MaxBurstLength", "1024", stageOperational, true, "Irrelevant", true},
		{"HeaderDigest", "None", stageOperational, true, "None", true},
		{"MaxRecvDataSegmentLength", "1024", stageFullFeature, true, "", true},
	} {
		p := defaultParams()
		answer, ok := negotiate(&p, &limits, pair{c.key, c.value}, c.stage, c.discovery)
		if answer != c.answer || ok != c.ok {
			t.Errorf("%+v: %q, %v", c, answer, ok)
		}
	}
	p := params{maxBurst: 512, firstBurst: 65536}
	if p.settle(); p.firstBurst != 512 {
		t.Errorf("FirstBurstLength %d with MaxBurstLength 512", p.firstBurst)
	}
}

func FuzzText(f *testing.F) {
	f.Add([]byte("InitiatorName=iqn.2024-01.com.example:host\x00SessionType=Normal\x00"))
	f.Add([]byte("MaxBurstLength=0x100000\x00HeaderDigest=CRC32C,None\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		pairs, err := parseText(in)
		if err != nil {
			return
		}
		limits := Limits{}
		limits.setDefaults()
		p := defaultParams()
		var out []byte
		for _, q := range pairs {
			answer, _ := negotiate(&p, &limits, q, stageOperational, false)
			out = appendPair(out, q.key, answer)
		}
		if len(out) > loginMaxPDU {
			t.Fatalf("answer of %d bytes", len(out))
		}
		if p.maxSend < 512 || p.maxR2T < 1 || p.maxR2T > maxR2T || p.maxBurst < 512 || p.maxBurst > limits.MaxBurstLength || p.firstBurst > limits.FirstBurstLength {
			t.Fatalf("out of range: %+v", p)
		}
		again, err := parseText(out)
		if err != nil || len(again) != len(pairs) {
			t.Fatalf("the answer is no text: %v", err)
		}
	})
}
