package roles

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/failover"
)

// memo is what is kept of a LUN. ID names the term.
type memo struct {
	Term uint64        `json:"term"`
	ID   catalog.UUID  `json:"id"`
	What failover.What `json:"what"`
}

func (m memo) plain() failover.Memo { return failover.Memo{Term: m.Term, What: m.What} }

// A memo file is one line of JSON for all LUNs, and one with its CRC-32C:
//
//	{"version":1,"luns":{"UUID":{"term":3,"id":"UUID","what":1}, …}}
//	0f1e2d3c
type memoFile struct {
	Version int                   `json:"version"`
	LUNs    map[catalog.UUID]memo `json:"luns"`
}

// maxMemos bounds a memo file, in bytes: twice what all LUNs that a cluster may have take.
const maxMemos = 2 * catalog.MaxLUNs * 160

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// readMemos reads the memo file at a path; without one there are no memos.
func readMemos(path string, read func() ([]byte, error)) (map[catalog.UUID]memo, error) {
	text, err := read()
	if errors.Is(err, fs.ErrNotExist) {
		return map[catalog.UUID]memo{}, nil
	}
	if err == nil {
		var all map[catalog.UUID]memo
		if all, err = parseMemos(text); err == nil {
			return all, nil
		}
	}
	return nil, fmt.Errorf("read how this node served its LUNs: %s: %w; without it the node cannot tell what it has promised. "+
		"If it is lost, remove this node from the cluster, and let it join anew under another name", path, err)
}

func parseMemos(text []byte) (map[catalog.UUID]memo, error) {
	line, sum, found := bytes.Cut(text, []byte("\n"))
	if len(text) > maxMemos || !found || string(sum) != checksum(line) {
		return nil, errors.New("the file is damaged")
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	var f memoFile
	if err := d.Decode(&f); err != nil {
		return nil, err
	}
	if f.Version != 1 {
		return nil, fmt.Errorf("it is of version %d, and this program knows version 1: it is older than the one before", f.Version)
	}
	for lun, m := range f.LUNs {
		if m.Term == 0 || m.What > failover.Offered {
			return nil, fmt.Errorf("LUN %v: memo %v of term %d", lun, m.What, m.Term)
		}
	}
	if f.LUNs == nil {
		f.LUNs = map[catalog.UUID]memo{}
	}
	return f.LUNs, nil
}

func encodeMemos(all map[catalog.UUID]memo) []byte {
	line, err := json.Marshal(memoFile{1, all})
	if err != nil {
		panic(err) // there is nothing in it that could fail
	}
	return append(append(line, '\n'), checksum(line)...)
}

func checksum(line []byte) string { return fmt.Sprintf("%08x\n", crc32.Checksum(line, castagnoli)) }
