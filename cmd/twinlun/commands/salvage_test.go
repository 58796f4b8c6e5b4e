package commands

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication/salvage"
	"github.com/twinlun/twinlun/replication/wire"
)

// twinlun runs a command, with what is typed, and returns what it prints.
func twinlun(t *testing.T, typed string, args ...string) (string, error) {
	t.Helper()
	root := &cobra.Command{Use: "twinlun", SilenceErrors: true, SilenceUsage: true}
	Add(root)
	var out bytes.Buffer
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetIn(strings.NewReader(typed))
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

func TestSalvage(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x-7.salvage")
	f, err := salvage.CreateOS(path)
	if err != nil {
		t.Fatal(err)
	}
	w, err := salvage.NewWriter(f, salvage.Header{LUN: [16]byte{1}, Geometry: dirtymap.Geometry{Size: 1 << 20, ExtentSize: 1 << 16}, Join: 7, Time: time.Now(), Place: "b"})
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte{0xab}, 4096)
	if err := w.Add(wire.Blocks{Extent: 3, Present: dirtymap.MaskOf(2, 1), Data: data}); err != nil {
		t.Fatal(err)
	}
	if err := w.End(); err != nil {
		t.Fatal(err)
	}
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	out, err := twinlun(t, "", "salvage", "list", "--dir", dir)
	if err != nil || !strings.Contains(out, "x-7.salvage") || !strings.Contains(out, "whole") {
		t.Errorf("%v\n%s", err, out)
	}
	image := filepath.Join(dir, "image")
	if out, err := twinlun(t, "", "salvage", "export", "x-7.salvage", image, "--dir", dir); err != nil || !strings.Contains(out, "4KiB are in") {
		t.Errorf("%v\n%s", err, out)
	}
	got, err := os.ReadFile(image)
	if err != nil || len(got) != 1<<20 || !bytes.Equal(got[3<<16+2<<12:3<<16+3<<12], data) || bytes.Count(got, []byte{0xab}) != 4096 {
		t.Errorf("the image has %d bytes, %v", len(got), err)
	}
	if _, err := twinlun(t, "", "salvage", "export", "x-7.salvage", image, "--dir", dir); err == nil {
		t.Error("an image that was there was written")
	}
	if _, err := twinlun(t, "no\n", "salvage", "delete", "x-7.salvage", "--dir", dir); err == nil {
		t.Error("it was deleted without the name")
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, whole[:len(whole)-3], 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := twinlun(t, "", "salvage", "list", "--dir", dir); err != nil || !strings.Contains(out, "damaged") {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := twinlun(t, "x-7.salvage\n", "salvage", "delete", "x-7.salvage", "--dir", dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Error("it is still there")
	}
}
