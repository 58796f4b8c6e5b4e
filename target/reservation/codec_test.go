package reservation

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"strings"
	"testing"
)

var unit = [16]byte{0xaa, 15: 0xbb}

// TestEncode is the form of the file, byte by byte.
func TestEncode(t *testing.T) {
	s := &State{Generation: 9, Persist: true, Type: WriteExclusiveRegistrants, Holder: Nexus{"bc", 2},
		Registrations: []Registration{{Nexus{"a", 1}, 0x1122334455667788}, {Nexus{"bc", 2}, 5}}}
	want := "54574c4e50523031 aa0000000000000000000000000000bb 05 00 0001 00000002" +
		"1122334455667788 0001 0001 61" + "0000000000000005 0002 0002 6263"
	p := unhex(t, want)
	p = binary.BigEndian.AppendUint32(p, crc32.Checksum(p, castagnoli))
	if got := s.Encode(unit); !bytes.Equal(got, p) {
		t.Errorf("got %x, want %x", got, p)
	}
	back, err := Decode(p, unit)
	if err != nil {
		t.Fatal(err)
	}
	s.Generation = 0 // begins again
	if got, want := show(back), show(s); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	p, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestDecodeRefuses lists damaged files; those below the line have a right checksum.
func TestDecodeRefuses(t *testing.T) {
	const head = "54574c4e50523031 aa0000000000000000000000000000bb "
	const a, b = "0000000000000001 0001 0001 61", "0000000000000001 0001 0001 62"
	for _, tt := range []struct{ corrupt, file, want string }{
		{"empty", "", "too few"},
		{"cut", head, "too few"},
		{"magic", "54574c4e50523032" + strings.Repeat("00", 28), "begin with"},
		{"long", strings.Repeat("00", MaxEncoded+1), "too many"},
		{"checksum", head + "00 00 ffff 00000000 00000000", "checksum"},

		{"another unit", "54574c4e50523031 ab0000000000000000000000000000bb 00 00 ffff 00000000", "belongs to"},
		{"reserved byte", head + "00 01 ffff 00000000", "header"},
		{"too many registrations", head + "00 00 ffff 00000101", "header"},
		{"registration missing", head + "00 00 ffff 00000001", "cut off"},
		{"key 0", head + "00 00 ffff 00000001 0000000000000000 0001 0001 61", "is wrong"},
		{"no name", head + "00 00 ffff 00000001 0000000000000001 0001 0000", "is wrong"},
		{"name cut", head + "00 00 ffff 00000001 0000000000000001 0001 0002 61", "is wrong"},
		{"long name", head + "00 00 ffff 00000001 0000000000000001 0001 00f1" + strings.Repeat("61", 241), "is wrong"},
		{"order", head + "00 00 ffff 00000002" + b + a, "ascending"},
		{"twice", head + "00 00 ffff 00000002" + a + a, "ascending"},
		{"more", head + "00 00 ffff 00000001" + a + "00", "follow"},
		{"type", head + "02 00 0000 00000001" + a, "type 2"},
		{"no holder", head + "01 00 ffff 00000001" + a, "nobody"},
		{"holder", head + "01 00 0001 00000001" + a, "nobody"},
		{"holder of none", head + "00 00 0000 00000001" + a, "nobody"},
		{"holder of shared", head + "07 00 0000 00000001" + a, "nobody"},
		{"shared by nobody", head + "07 00 ffff 00000000", "nobody"},
	} {
		p := unhex(t, tt.file)
		if tt.corrupt != "checksum" && len(p) >= headerSize && len(p) < MaxEncoded {
			p = binary.BigEndian.AppendUint32(p, crc32.Checksum(p, castagnoli))
		}
		if s, err := Decode(p, unit); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, %v; want an error with %q", tt.corrupt, s, err, tt.want)
		}
	}
}

// FuzzDecode reads any file, with a checksum that is right: what is taken for good
// keeps the invariants, and is written again as it was.
func FuzzDecode(f *testing.F) {
	s := &State{Type: ExclusiveAccess, Holder: Nexus{"a", 1}, Registrations: []Registration{{Nexus{"a", 1}, 1}, {Nexus{"b", 1}, 2}}}
	f.Add(s.Encode(unit)[:headerSize+2*13])
	f.Add(new(State).Encode(unit)[:headerSize])
	f.Fuzz(func(t *testing.T, p []byte) {
		p = binary.BigEndian.AppendUint32(bytes.Clone(p), crc32.Checksum(p, castagnoli))
		s, err := Decode(p, unit)
		if err != nil {
			return
		}
		if err := s.invariants(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(s.Encode(unit), p) {
			t.Fatalf("%x became %x", p, s.Encode(unit))
		}
	})
}
