package demo

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/twinlun/twinlun/cmd/twinlund/config"
)

// lun is what DIR/demo.json keeps from one demo to the next.
type lun struct {
	UUID      string `json:"uuid"`
	Size      int64  `json:"size"`
	BlockSize int64  `json:"blockSize"`
}

// openLUN finds the folder's LUN, or makes a new one. Sizes of 0: no wish.
func openLUN(path string, size, blockSize int64) (l lun, err error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		l = lun{UUID: newUUID(), Size: cmp.Or(size, DefaultSize), BlockSize: cmp.Or(blockSize, 512)}
		return l, writeJSON(path, l)
	}
	if err == nil {
		err = json.Unmarshal(text, &l)
	}
	if err != nil {
		return l, fmt.Errorf("read which LUN the folder holds: %s: %w", path, err)
	}
	if size != 0 && size != l.Size {
		return l, fmt.Errorf("--size %s: the LUN in %s has %s; leave --size out, or choose another --dir",
			config.FormatSize(size), filepath.Dir(path), config.FormatSize(l.Size))
	}
	l.BlockSize = cmp.Or(l.BlockSize, 512) // made when there were no others
	if blockSize != 0 && blockSize != l.BlockSize {
		return l, fmt.Errorf("--block-size %d: the LUN in %s has blocks of %d bytes; leave --block-size out, or choose another --dir",
			blockSize, filepath.Dir(path), l.BlockSize)
	}
	return l, nil
}

// newUUID makes a random UUID (RFC 9562 section 5.4).
func newUUID() string {
	var id [16]byte
	rand.Read(id[:]) // never fails
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return config.FormatUUID(id)
}

// Info is the JSON file for scripts.
type Info struct {
	IQN   string     `json:"iqn"`
	LUN   int        `json:"lun"`
	Sites []SiteInfo `json:"sites"`
	// Witness has no portal and no status page.
	Witness SiteInfo `json:"witness"`
	Link    LinkInfo `json:"link"`
}

// SiteInfo is about one site.
type SiteInfo struct {
	Name   string `json:"name"`
	Portal string `json:"portal"`
	PID    int    `json:"pid"` // of the daemon that runs now
	Dir    string `json:"dir"`
	Status string `json:"status"` // address of its status page
	API    string `json:"api"`    // socket of its API
}

// LinkInfo is about the line between the sites.
type LinkInfo struct {
	Control string `json:"control"` // address of the line's control port
}

// updateJSON writes the file when everything serves for the first time, and
// whenever a daemon was started again after that.
func (d *demo) updateJSON(serves bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.serves = d.serves || serves
	if d.o.JSON == "" || !d.serves {
		return nil
	}
	info := Info{IQN: IQN, LUN: 0, Link: LinkInfo{Control: d.ctrl}}
	for _, s := range d.sites {
		i := SiteInfo{Name: s.name, Portal: s.portal, PID: s.currentPID(), Dir: s.dir, Status: s.page, API: s.file("api.sock")}
		if s.witness() {
			info.Witness = i
		} else {
			info.Sites = append(info.Sites, i)
		}
	}
	return writeJSON(d.o.JSON, info)
}

// removeJSON takes the file away: what it tells is over.
func (d *demo) removeJSON() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.serves && d.o.JSON != "" {
		os.Remove(d.o.JSON)
	}
}

// writeJSON replaces a file as a whole: readers never see half of it.
func writeJSON(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
