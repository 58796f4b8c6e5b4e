package mapfile

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

// unhex reads hex with spaces; "*N" repeats the byte before it N times in all.
func unhex(t *testing.T, s string) (b []byte) {
	t.Helper()
	for _, word := range strings.Fields(s) {
		if n, ok := strings.CutPrefix(word, "*"); ok {
			times := 0
			for _, c := range n {
				times = times*10 + int(c-'0')
			}
			b = append(b, bytes.Repeat(b[len(b)-1:], times-1)...)
			continue
		}
		part, err := hex.DecodeString(word)
		must(t, err)
		b = append(b, part...)
	}
	return b
}

func sameBytes(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Fatalf("%s: at offset %d % x, want % x", what, i, got[i:min(i+16, len(got))], want[i:min(i+16, len(want))])
		}
	}
	t.Fatalf("%s: %d bytes, want %d", what, len(got), len(want))
}

// encoded is a record as it stands in a block.
func encoded(r Record) (b []byte) {
	encodeRecord(r, func(encode func([]byte) []byte) { b = encode(b) })
	return b
}

func TestRecordFormats(t *testing.T) {
	meta := Meta{History: [16]byte{0xa0, 15: 0xaf}, Join: 0x1122, BootID: [16]byte{0xb0, 15: 0xbf}, Clean: true, Blank: true}
	const metaHex = "a0 00 *14 af 2211 000000000000 b0 00 *14 bf 03"
	termed := meta
	termed.Term = Term{Number: 0x3344, ID: [16]byte{0xc0, 15: 0xcf}, Alone: 0x55}
	const termedHex = "a0 00 *14 af 2211 000000000000 b0 00 *14 bf 07 4433 000000000000 c0 00 *14 cf 55 00 *7 "
	forked := termed
	forked.Term.Fork = true
	states := make([]byte, pageStates)
	states[1] = 2
	for name, c := range map[string]struct {
		got []byte
		hex string
	}{
		"set":           {encoded(setOf(300, 1, owned.WithTurn(3))), "01 ac02 01 0e"},
		"meta":          {encoded(meta), "02" + metaHex},
		"meta, term":    {encoded(termed), "02" + termedHex},
		"meta, fork":    {encoded(forked), strings.Replace("02"+termedHex, "bf 07", "bf 0f", 1)},
		"prepare, term": {encoded(Prepare{Join: 7, Meta: termed}), "03 0700000000000000" + termedHex + "05 00"},
		"prepare":       {encoded(Prepare{Join: 7, Meta: meta, Changes: []Set{setOf(5, 6, stale), setOf(300, 1, shared)}}), "03 0700000000000000" + metaHex + "04 02 05 06 01 ac02 01 00" + "05 02"},
		"empty prepare": {encoded(Prepare{Join: 7, Meta: meta}), "03 0700000000000000" + metaHex + "05 00"},
		"commit":        {encoded(Commit{Join: 7}), "06 0700000000000000"},
		"abort":         {encoded(Abort{}), "07"},
		"image":         {appendImage(nil, 3, states, 2), "08 03 00 02 00 *4086"},
		"fill":          {appendImage(nil, 3, make([]byte, pageStates), pageStates), "09 03 01 00"},
	} {
		sameBytes(t, name, c.got, unhex(t, c.hex))
	}
}

// The checksums were computed by other means than this package's.
func TestFileFormat(t *testing.T) {
	id := testIdentity(3)
	id.Size -= 4096 // the last extent is short
	f := &memFile{}
	meta := Meta{History: [16]byte{0xa0}, Join: 9, BootID: [16]byte{0xb0}, Clean: true}
	must(t, Create(f, id, stale.WithTurn(1), meta))
	l, _ := mustOpen(t, f)
	must(t, l.Append(setOf(1, 2, owned)))

	const slot = "54574c4e4d415031 01000000 00000100" + // magic, version, extent size
		" 101112131415161718191a1b1c1d1e1f 00f0020000000000" + // LUN, size
		" %02 00 *7 01 00 *7 00300000 00000000" + // number, generation, log at 12288
		" a0 00 *15 09 00 *7 b0 00 *15 01 00 *3987 "
	want := unhex(t, strings.ReplaceAll(slot, "%02", "02")+"30eff886")
	want = append(want, unhex(t, strings.ReplaceAll(slot, "%02", "01")+"6d5fb8cf")...)
	want = append(want, unhex(t, "01000000 1513d821 05 *3 00 *4085")...)
	want = append(want, unhex(t, "54574c42 04000000 01 00 *7 01 00 *7 00 *8 80d8f94f 2c58c9b7 01010202 00 *467 02")...)
	sameBytes(t, "file", f.data, want)
}

func TestLongBlockSkipsTheMarks(t *testing.T) {
	id := testIdentity(3)
	payload := make([]byte, 2000)
	for i := range payload {
		payload[i] = byte(i)
	}
	b := id.appendBlock(nil, blockHead{generation: 255 + 6, sequence: 1}, payload)
	if len(b) != 4*sectorSize {
		t.Fatalf("%d bytes", len(b))
	}
	var joined []byte
	for at := 0; at < len(b); at += sectorSize {
		if b[at+sectorData] != 7 {
			t.Fatalf("mark %d", b[at+sectorData])
		}
		joined = append(joined, b[at:at+sectorData]...)
	}
	sameBytes(t, "records", joined[headSize:][:len(payload)], payload)
	h, ok := id.decodeHead(b[:sectorSize])
	got, sum := id.payload(nil, &h, b)
	if !ok || !sum || h.size() != int64(len(b)) || !bytes.Equal(got, payload) {
		t.Fatalf("%+v %t %t", h, ok, sum)
	}
}

// TestCorruptRecords replays blocks that are whole but for what they say.
func TestCorruptRecords(t *testing.T) {
	meta := strings.Repeat("00", metaSize)
	for name, c := range map[string]string{
		"unknown kind":               "0a",
		"kind 0":                     "00",
		"set cut short":              "01 05 01",
		"set of nothing":             "01 05 00 00",
		"set behind the end":         "01 64 01 00",
		"set over the end":           "01 05 60 00",
		"set with a long number":     "01 ffffffffffffffffffff 01 00",
		"count that wraps":           "01 05 ffffffffffffffffff01 00",
		"set to STALE and HELD":      "01 05 01 03",
		"set to what is not durable": "01 05 01 40",
		"meta cut short":             "02 00",
		"meta with unknown flags":    "02" + meta[2:] + "08",
		"term cut short":             "02" + meta[2:] + "04 01",
		"term of zeros":              "02" + meta[2:] + "04 00 *32",
		"prepare cut short":          "03 00",
		"changes without prepare":    "04 01 05 01 00",
		"changes cut short":          "03 0000000000000000" + meta + "04 02 05 01 00",
		"changes after a set":        "03 0000000000000000" + meta + "01 05 01 00 04 01 05 01 00",
		"changes missing":            "03 0000000000000000" + meta + "04 01 05 01 00 05 02",
		"endless changes":            "03 0000000000000000" + meta + "04 ffffffffffffffffff01 05 01 00",
		"commit without prepare":     "06 0100000000000000",
		"commit of another":          "03 0000000000000000" + meta + "05 00 06 0100000000000000",
		"commit after abort":         "03 0000000000000000" + meta + "05 00 07 06 0000000000000000",
		"commit while incomplete":    "03 0000000000000000" + meta + "06 0000000000000000",
		"image cut short":            "08 00 00",
		"image of no page":           "08 01 00 *4088",
		"image with a wrong state":   "08 00 80 00 *4087",
		"image beyond the last":      "08 00 00 *100 01 00 *3987",
		"fill of no page":            "09 01 01 00",
	} {
		st := &state{f: newFile(t, 100, shared), id: testIdentity(100)}
		if err := st.replay(unhex(t, c)); err == nil {
			t.Errorf("%s: replayed", name)
		}
	}
}
