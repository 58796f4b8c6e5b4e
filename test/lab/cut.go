package lab

import (
	"fmt"
	"maps"
)

// line is one direction between two nodes.
type line struct{ from, to *Node }

// CutOneWay has the router drop what one node sends to another, without a word.
func (l *Lab) CutOneWay(from, to *Node) error {
	way := line{from, to}
	if from == to || l.cuts[way] {
		return nil
	}
	if err := l.rule("add", way); err != nil {
		return fmt.Errorf("cut the line from %s to %s: %w", from.Name, to.Name, err)
	}
	l.cuts[way] = true
	return nil
}

// Cut cuts both directions. What is cut already stays so.
func (l *Lab) Cut(x, y *Node) error {
	if err := l.CutOneWay(x, y); err != nil {
		return err
	}
	return l.CutOneWay(y, x)
}

// Isolate cuts a node from all others.
func (l *Lab) Isolate(x *Node) error {
	for _, n := range l.nodes {
		if err := l.Cut(x, n); err != nil {
			return err
		}
	}
	return nil
}

// Heal mends the lines between two nodes.
func (l *Lab) Heal(x, y *Node) error {
	for _, way := range []line{{x, y}, {y, x}} {
		if err := l.mend(way); err != nil {
			return err
		}
	}
	return nil
}

// HealAll mends all lines.
func (l *Lab) HealAll() error {
	for way := range maps.Clone(l.cuts) {
		if err := l.mend(way); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) mend(way line) error {
	if !l.cuts[way] {
		return nil
	}
	if err := l.rule("del", way); err != nil {
		return fmt.Errorf("mend the line from %s to %s: %w", way.from.Name, way.to.Name, err)
	}
	delete(l.cuts, way)
	return nil
}

// rule changes a policy of the router: packets from one address to another find no
// route, and the sender hears nothing of it.
func (l *Lab) rule(what string, way line) error {
	return ip("-n", l.router.namespace(), "rule", what, "from", way.from.Addr.String(), "to", way.to.Addr.String(), "blackhole", "priority", "1")
}
