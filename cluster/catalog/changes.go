package catalog

import "github.com/twinlun/twinlun/target/reservation"

// Change is something that a command has changed: one of the types below. The new state
// has what it is now.
type Change interface{ isChange() }

type (
	// ClusterChanged: the cluster's name, version, settings or discovery.
	ClusterChanged struct{}
	// NodeChanged: a node was admitted, changed or removed.
	NodeChanged struct {
		Node    NodeID
		Removed bool
	}
	// TokensChanged: the join tokens.
	TokensChanged struct{}
	// LUNChanged: a LUN was added, changed or removed, or its replicas.
	LUNChanged struct {
		LUN     UUID
		Removed bool
	}
	// ServingChanged: who serves a LUN, and its term.
	ServingChanged struct{ LUN UUID }
	// TargetChanged: a target was added, changed or removed.
	TargetChanged struct {
		Target  string
		Removed bool
	}
	// HostChanged: a host was added, changed or removed; also the group it belongs to.
	HostChanged struct {
		Host    string
		Removed bool
	}
	// GroupChanged: a group of hosts was added or removed.
	GroupChanged struct {
		Group   string
		Removed bool
	}
	// ViewChanged: what a host or the hosts of a group see of a target.
	ViewChanged struct {
		Target string
		Subject
	}
	// ReservationChanged: a command of a host changed the reservations of a LUN. Other
	// nexuses have to be told; PREEMPT AND ABORT also ends the commands of those whose
	// registration was removed.
	ReservationChanged struct {
		LUN    UUID
		Action reservation.Action
		From   reservation.Nexus
		Events []reservation.Event
	}
	// AccessChanged: users or API tokens.
	AccessChanged struct{}
	// EventLogged: an entry of the event log.
	EventLogged struct{ Event Event }
)

func (ClusterChanged) isChange()     {}
func (NodeChanged) isChange()        {}
func (TokensChanged) isChange()      {}
func (LUNChanged) isChange()         {}
func (ServingChanged) isChange()     {}
func (TargetChanged) isChange()      {}
func (HostChanged) isChange()        {}
func (GroupChanged) isChange()       {}
func (ViewChanged) isChange()        {}
func (ReservationChanged) isChange() {}
func (AccessChanged) isChange()      {}
func (EventLogged) isChange()        {}
