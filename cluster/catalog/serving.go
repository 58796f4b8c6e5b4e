package catalog

import (
	"fmt"
	"slices"
	"strings"
)

// Steps are what a node proposes about who serves: one LUN, or all that two nodes share.
type Steps struct {
	Node  NodeID `json:"node"`  // who proposes it
	Epoch UUID   `json:"epoch"` // random; the id of all the terms that begin
	LUNs  []Step `json:"luns"`  // 1 to MaxSteps
}

// Step is a LUN whose serving set is to change, if its term still is this one.
type Step struct {
	LUN  UUID   `json:"lun"`
	Term uint64 `json:"term"`
	Join uint64 `json:"join,omitempty"` // of JoinBoth: number of the replicas' last join
}

// Left is a LUN that was left as it was, and why.
type Left struct {
	LUN UUID   `json:"lun"`
	Why string `json:"why"`
}

// maxLeft bounds the LUNs that an Outcome or an event tells about: they are remembered,
// and the state tells about all.
const maxLeft = 8

// forcedStep is how far ahead forced terms are, so that none that was agreed upon
// meanwhile is as high. Both nodes that are forced from one term get the same one; the
// ids of their epochs differ.
const forcedStep = 1 << 32

// ForcedTerm is the term in which a node serves alone that was forced to while a term
// lasted, without asking anybody.
func ForcedTerm(term uint64) uint64 { return (term/forcedStep + 1) * forcedStep }

// TakeAlone makes a node serve alone: one that served together with another; or alone
// already, and begins a new term, so that nothing it proposed in the old one can take
// effect any more.
type TakeAlone struct{ Steps }

// JoinBoth makes both nodes serve. The one that serves alone proposes it, after the join
// of the replicas is durable at both.
type JoinBoth struct{ Steps }

// Leave makes the other node serve alone. The one that leaves proposes it, after it has
// stopped serving and has nothing any more that the other one needs.
type Leave struct{ Steps }

// ForceAlone makes known that an operator had a node serve alone, in ForcedTerm of the
// terms in the steps, without the cluster's agreement. If nothing was agreed upon since,
// or only that this node serves alone, that is how it stays. Otherwise what the others
// serve stays, and this node's version becomes a fork.
type ForceAlone struct{ Steps }

// Kind is "take-alone".
func (*TakeAlone) Kind() string { return "take-alone" }

// Kind is "join-both".
func (*JoinBoth) Kind() string { return "join-both" }

// Kind is "leave".
func (*Leave) Kind() string { return "leave" }

// Kind is "force-alone".
func (*ForceAlone) Kind() string { return "force-alone" }

const notServing = "it does not serve it"

func (b *TakeAlone) apply(c *change) error {
	return c.steps(&b.Steps, Warning, "serves alone", func(l *LUN, s Step) string {
		if !l.Serves(b.Node) {
			return notServing
		}
		c.serve(l, l.Term+1, b.Epoch, b.Node)
		return ""
	})
}

func (b *JoinBoth) apply(c *change) error {
	return c.steps(&b.Steps, Info, "serves together with the other node again", func(l *LUN, s Step) string {
		switch {
		case !l.Alone(b.Node):
			return "it does not serve it alone"
		case len(l.Replicas) != 2:
			return "there is no other replica"
		case c.Drained(l, l.Replicas[0].Node) || c.Drained(l, l.Replicas[1].Node):
			return "one of its replicas is drained"
		}
		l.Join = s.Join
		c.serve(l, l.Term+1, b.Epoch, l.Replicas[0].Node, l.Replicas[1].Node)
		return ""
	})
}

func (b *Leave) apply(c *change) error {
	return c.steps(&b.Steps, Info, "left to the other node", func(l *LUN, s Step) string {
		switch {
		case !l.Serves(b.Node):
			return notServing
		case len(l.Serving) == 1:
			return "nobody else serves it"
		}
		c.serve(l, l.Term+1, b.Epoch, l.Other(b.Node))
		return ""
	})
}

func (b *ForceAlone) apply(c *change) error {
	steps := b.Steps
	steps.LUNs = slices.Clone(steps.LUNs)
	for i := range steps.LUNs {
		c.adopt(b, &steps.LUNs[i])
	}
	c.fork(b, steps.LUNs)
	return c.steps(&steps, Alert, "was forced to serve alone", func(l *LUN, s Step) string {
		if !l.Has(b.Node) {
			return "it has no replica of it"
		}
		c.serve(l, ForcedTerm(s.Term), b.Epoch, b.Node)
		return ""
	})
}

// steps changes who serves each LUN whose term is as it was, by do; that tells why not.
// It is stale if nothing has come of it.
func (c *change) steps(b *Steps, level Level, text string, do func(*LUN, Step) (why string)) error {
	if err := c.checkSteps(b); err != nil {
		return err
	}
	var names []string
	for _, s := range b.LUNs {
		l, found := c.LUN(s.LUN)
		why := ""
		switch {
		case !found:
			why = "there is no such LUN"
		case l.Term != s.Term:
			why = fmt.Sprintf("its term is %d, not %d", l.Term, s.Term)
		default:
			why = do(&l, s)
		}
		if why == "" {
			names = append(names, l.Name)
		} else {
			c.leave(s.LUN, why)
		}
	}
	c.outcome.Done = len(names)
	if len(names) > 0 {
		c.log(level, "node "+string(b.Node), "%s: LUN %s", text, some(names))
	} else if len(c.changes) == 0 {
		first := c.outcome.LeftFirst[0]
		return &Error{Code: StaleTerm, Message: fmt.Sprintf("nothing has come of %s by node %s for %d LUNs; of LUN %v: %s",
			c.command.Body.Kind(), b.Node, len(b.LUNs), first.LUN, first.Why)}
	}
	return nil
}

func (c *change) checkSteps(b *Steps) error {
	switch {
	case b.Epoch.zero():
		return invalid("epoch", "is all zeros")
	case len(b.LUNs) == 0 || len(b.LUNs) > MaxSteps:
		return invalid("luns", "1 to %d LUNs are possible, not %d", MaxSteps, len(b.LUNs))
	case !c.nodes.has(string(b.Node)):
		return notFound("node", string(b.Node))
	}
	return nil
}

// leave counts a LUN that stays as it was.
func (c *change) leave(lun UUID, why string) {
	o := &c.outcome
	if o.Left++; o.Left <= maxLeft {
		o.LeftFirst = append(o.LeftFirst, Left{lun, why})
	}
}

// serve begins a new term of a LUN, in which these nodes serve, by name.
func (c *change) serve(l *LUN, term uint64, epoch UUID, nodes ...NodeID) {
	l.Term, l.Serving, l.Decided = term, nodes, c.index
	c.core.Decided = c.index
	l.Chain = last(append(slices.Clone(l.Chain), Epoch{term, epoch}), MaxChain)
	c.luns.set(l.ID.key(), *l)
	c.note(ServingChanged{l.ID})
}

// adopt has a step count for the present term if all that was decided since its own is that
// its node serves alone, before that knew it: nobody else has served meanwhile.
func (c *change) adopt(b *ForceAlone, s *Step) {
	l, found := c.LUN(s.LUN)
	known, _ := l.Descends(Epoch{ForcedTerm(s.Term), b.Epoch})
	if found && !known && l.Alone(b.Node) && s.Term < l.Term && l.Term < ForcedTerm(s.Term) {
		s.Term = l.Term
	}
}

// fork remembers the forced take-overs that come too late.
func (c *change) fork(b *ForceAlone, steps []Step) {
	var names []string
	for _, s := range steps {
		l, found := c.LUN(s.LUN)
		e := Epoch{ForcedTerm(s.Term), b.Epoch}
		known, _ := l.Descends(e)
		if !found || l.Term == s.Term || known || !l.Has(b.Node) {
			continue
		}
		l.Forks = last(append(slices.Clone(l.Forks), e), MaxForks)
		c.luns.set(l.ID.key(), l)
		c.note(LUNChanged{LUN: l.ID})
		names = append(names, l.Name)
	}
	if len(names) > 0 {
		c.log(Alert, "node "+string(b.Node), "was forced to serve alone what others served meanwhile, too; what it wrote has to be salvaged: LUN %s", some(names))
	}
}

// some names the first of many.
func some(names []string) string {
	if more := len(names) - maxLeft; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:maxLeft], ", "), more)
	}
	return strings.Join(names, ", ")
}

// last are the last entries of a list, at most so many.
func last[E any](list []E, most int) []E { return list[max(0, len(list)-most):] }
