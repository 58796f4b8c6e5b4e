package member

import (
	"testing"

	"github.com/twinlun/twinlun/cluster/catalog"
)

// What was waited for has come when the state is another one, and not before; whoever
// asks then waits for the next one.
func TestChanged(t *testing.T) {
	f := newFSM(func(*catalog.State, catalog.Result) {}, func() {})
	for index := uint64(1); index < 4; index++ {
		one, other := f.next(), f.next()
		select {
		case <-one:
			t.Fatalf("nothing was applied after %d", index)
		default:
		}
		raw, err := catalog.Command{ID: catalog.UUID{byte(index)}, By: "test", Body: &catalog.RenameCluster{Name: "x"}}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Apply(raw, index); err != nil {
			t.Fatal(err)
		}
		<-one
		<-other
		if got := f.state.Load().Index(); got != index {
			t.Errorf("the state of %d is shown after %d", got, index)
		}
	}
}
