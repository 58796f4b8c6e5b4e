package reservation

// Between is what nexuses have to be told when a state has become another one and it is
// not known by which commands. Rather one notice too many: who is no longer registered may
// have been preempted, and its commands have to end as with PREEMPT AND ABORT; who still
// is may have been let in by a reservation that is gone.
func Between(before, after *State) (events []Event) {
	if before == nil {
		return nil
	}
	other := before.Reserved() && !(after.Reserved() && after.Type == before.Type && after.Holder == before.Holder)
	for _, r := range before.Registrations {
		switch {
		case after.Key(r.Nexus) == 0:
			events = append(events, Event{r.Nexus, RegistrationsPreempted, true})
		case other:
			events = append(events, Event{Nexus: r.Nexus, Notice: ReservationsReleased})
		}
	}
	return events
}
