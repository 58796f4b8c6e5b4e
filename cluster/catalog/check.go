package catalog

import (
	"errors"
	"fmt"
	"slices"

	"github.com/twinlun/twinlun/target/reservation"
)

// check checks what always holds of a state, whatever commands it has seen: entries are
// as they must be, what they refer to exists, and nothing stands for two.
func (s *change) check() error {
	for _, part := range []func() error{
		s.checkCore, s.checkNodes, s.checkLUNs, s.checkAccess, s.checkMappings, s.checkUsers, s.checkHistory, s.checkFinding,
	} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

func (s *change) checkCore() error {
	switch {
	case s.core.Version < 1:
		return fmt.Errorf("version %d of commands", s.core.Version)
	case s.core.LongestLease < s.core.Settings.Lease:
		return errors.New("the lease is longer than the longest one")
	}
	if !s.core.Cluster.ID.zero() {
		if err := checkName("cluster.name", s.core.Cluster.Name); err != nil {
			return err
		}
	}
	return errors.Join(s.core.Settings.check(), s.core.Discovery.check("discovery"))
}

func (s *change) checkNodes() error {
	for n := range s.Nodes() {
		if err := n.check(); err != nil {
			return fmt.Errorf("node %s: %w", n.Name, err)
		}
		if n.Version < s.core.Version && !n.GivenUp || s.removed.has(string(n.Name)) {
			return fmt.Errorf("node %s is too old, or was removed", n.Name)
		}
		if n.GivenUp && (n.Voter || s.core.Recoveries == 0) {
			return fmt.Errorf("node %s was given up, and has a vote, or nobody has done that", n.Name)
		}
	}
	for r := range s.RemovedNodes() {
		if err := checkNode("name", r.Name); err != nil {
			return err
		}
	}
	if s.keys.len() != s.nodes.len()+s.removed.len() {
		return errors.New("two nodes have the same key")
	}
	groups := map[uint16]bool{0: true}
	for n := range s.Nodes() {
		if groups[n.Group] && !n.Witness {
			return fmt.Errorf("node %s has the group %d of another one", n.Name, n.Group)
		}
		groups[n.Group] = true
	}
	return nil
}

func (s *change) checkLUNs() error {
	replicas, numbers := 0, map[uint16]bool{}
	for l := range s.LUNs() {
		if numbers[l.Number] || l.Number >= MaxLUNs {
			return fmt.Errorf("LUN %v has the number %d, of another one or out of range", l.ID, l.Number)
		}
		numbers[l.Number] = true
		if err := errors.Join(l.check(), s.checkReplicas(l.Replicas), s.checkServing(&l)); err != nil {
			return fmt.Errorf("LUN %v: %w", l.ID, err)
		}
		replicas += len(l.Replicas)
	}
	if s.lunNames.len() != s.luns.len() || s.naas.len() != s.luns.len() || s.files.len() != replicas {
		return errors.New("two LUNs have the same name, NAA identifier or file")
	}
	for lun, r := range s.reservations.all("") {
		if _, err := reservation.Decode(r.Encode(uuidOf(lun)), uuidOf(lun)); err != nil || !s.luns.has(lun) {
			return fmt.Errorf("reservations of LUN %v: it does not exist, or %v", uuidOf(lun), err)
		}
	}
	return nil
}

func (s *change) checkServing(l *LUN) error {
	switch {
	case !slices.IsSortedFunc(l.Replicas, byNode):
		return errors.New("its replicas are not in order")
	case len(l.Serving) == 0 || len(l.Serving) > len(l.Replicas) || !slices.IsSorted(l.Serving) || len(slices.Compact(slices.Clone(l.Serving))) < len(l.Serving):
		return fmt.Errorf("it is served by %q", l.Serving)
	case slices.ContainsFunc(l.Serving, func(n NodeID) bool { return !l.Has(n) }):
		return fmt.Errorf("it is served by %q, and not all have a replica", l.Serving)
	case len(l.Chain) == 0 || len(l.Chain) > MaxChain || len(l.Forks) > MaxForks || l.Chain[len(l.Chain)-1].Term != l.Term:
		return errors.New("its chain of terms does not end with the present one")
	case l.Term == 0 || l.Decided == 0 || l.Decided > s.core.Decided || s.core.Decided > s.core.Index || l.Revision > s.core.Index:
		return errors.New("its term was decided in the future, or never")
	}
	for i, e := range l.Chain {
		if e.ID.zero() || i > 0 && e.Term <= l.Chain[i-1].Term {
			return errors.New("its chain of terms does not ascend")
		}
	}
	return nil
}

func (s *change) checkAccess() error {
	initiators := 0
	for h := range s.Hosts() {
		if err := h.check(); err != nil {
			return fmt.Errorf("host %s: %w", h.Name, err)
		}
		if h.Group != "" && !s.groups.has(h.Group) || h.Site != "" && !s.hasSite(h.Site) {
			return fmt.Errorf("host %s: its group %q or its site %q does not exist", h.Name, h.Group, h.Site)
		}
		initiators += len(h.Initiators)
	}
	if s.initiators.len()+s.patterns.len() != initiators {
		return errors.New("two hosts have the same initiator")
	}
	for g := range s.Groups() {
		if err := checkName("name", g.Name); err != nil {
			return err
		}
		if n := count(s.Members(g.Name)); n > MaxMembers {
			return fmt.Errorf("group %s has %d hosts", g.Name, n)
		}
	}
	taken := map[uint8]bool{}
	for t := range s.Targets() {
		if err := t.check(); err != nil {
			return fmt.Errorf("target %s: %w", t.Name, err)
		}
		if taken[t.Number] || t.Number >= MaxTargets {
			return fmt.Errorf("target %s has the number %d, of another one or out of range", t.Name, t.Number)
		}
		taken[t.Number] = true
		for _, p := range t.Portals {
			if n, found := s.Node(p.Node); !found || n.Witness {
				return fmt.Errorf("target %s: there is no node %s with replicas", t.Name, p.Node)
			}
		}
	}
	return nil
}

func (s *change) checkMappings() error {
	for m := range s.Mappings() {
		if err := s.checkMapping(&m); err != nil {
			return err
		}
		if n := count(s.uses.values(m.LUN.key() + place(m.Target, m.Subject))); n != 1 {
			return fmt.Errorf("LUN %v is mapped %d times for %v at %s", m.LUN, n, m.Subject, m.Target)
		}
		if m.Host == "" {
			continue
		}
		if err := s.vacantBeside(m); err != nil {
			return err
		}
	}
	if s.uses.len() != s.mappings.len() {
		return errors.New("mappings and their list by LUN differ")
	}
	return nil
}

func (s *change) checkUsers() error {
	for u := range s.Users() {
		if err := u.check(); err != nil {
			return fmt.Errorf("user %s: %w", u.Name, err)
		}
	}
	for t := range s.APITokens() {
		if err := t.check(); err != nil {
			return fmt.Errorf("API token %v: %w", t.ID, err)
		}
		if !s.users.has(t.User) {
			return fmt.Errorf("API token %v: there is no user %s", t.ID, t.User)
		}
	}
	if s.apiHashes.len() != s.apiTokens.len() {
		return errors.New("two API tokens have the same hash")
	}
	return nil
}

func (s *change) checkHistory() error {
	for r := range s.requests.values("") {
		if r.ID.zero() || r.Index == 0 || r.Index > s.core.Index {
			return fmt.Errorf("request %v was applied at index %d", r.ID, r.Index)
		}
	}
	if s.answered.len() != s.requests.len() {
		return errors.New("a request is remembered twice")
	}
	next := s.core.Events + 1 - uint64(s.events.len())
	for e := range s.events.values("") {
		if e.Number != next || e.Index > s.core.Index {
			return fmt.Errorf("event %d stands where %d should", e.Number, next)
		}
		next++
	}
	return nil
}

// checkFinding checks that what is found by other keys is what is there.
func (s *change) checkFinding() error {
	members := 0
	for h := range s.Hosts() {
		if h.Group == "" {
			continue
		}
		if members++; !s.members.has(pair(h.Group, h.Name)) {
			return fmt.Errorf("host %s is not found in group %s", h.Name, h.Group)
		}
	}
	if members != s.members.len() {
		return errors.New("a group has a host that is not there")
	}
	for l := range s.LUNs() {
		if id, _ := s.lunNames.get(l.Name); id != l.ID {
			return fmt.Errorf("LUN %v is not found by its name", l.ID)
		}
	}
	return nil
}
