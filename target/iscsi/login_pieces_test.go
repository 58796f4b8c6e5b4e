package iscsi

import (
	"bytes"
	"errors"
	"testing"
)

// TestLoginAnswerInPieces: an answer that is longer than a login response goes out in
// several, each asked for by an empty request (RFC 7143 section 11.13.3), and only the
// last one goes on to the next stage. No key of ours makes an answer so long today.
func TestLoginAnswerInPieces(t *testing.T) {
	begin := func() (*login, loginRequest) {
		d, err := newDirectory([]Target{{Name: testIQN, Device: newDisk(1), Access: Anyone()}}, Auth{})
		if err != nil {
			t.Fatal(err)
		}
		cfg := &Config{}
		cfg.Limits.setDefaults()
		l := newLogin(cfg, d, counting)
		q := loginRequest{stage: stageOperational}
		if _, _, err := l.step(q, keys(hostName, "TargetName="+testIQN)); err != nil {
			t.Fatal(err)
		}
		q.transit, q.next = true, stageFullFeature
		l.out.text = bytes.Repeat([]byte("X-key=value\x00"), 1500)
		return l, q
	}
	l, q := begin()
	whole := bytes.Clone(l.out.text)
	var got []byte
	for k := range 3 {
		r, piece, err := l.step(q, nil)
		if last := k == 2; err != nil || r.cont == last || r.transit != last || len(piece) > loginMaxPDU {
			t.Fatalf("piece %d of %d bytes: %+v, %v", k, len(piece), r, err)
		}
		got = append(got, piece...)
	}
	if !bytes.Equal(got, whole) || l.stage != stageFullFeature {
		t.Errorf("%d bytes of %d, stage %d", len(got), len(whole), l.stage)
	}

	l, q = begin()
	if _, _, err := l.step(q, nil); err != nil {
		t.Fatal(err)
	}
	var refused *loginError
	if _, _, err := l.step(q, keys("InitialR2T=No")); !errors.As(err, &refused) || refused.status != loginInitiatorError {
		t.Errorf("keys in the middle of an answer: %v", err)
	}
}
