// Package reserving keeps the persistent reservations of the LUNs in the cluster's
// catalog, one state for both sites: it is the scsi.Shared of each LUN.
//
// A command of a host is a catalog.ReserveOut. It is answered when it is applied at this
// node, and at the other one if that serves the LUN, too: a host that was preempted gets
// nothing done at either site afterwards. Applied means that the logical unit follows it
// already: the Hub is told before anything else of the node learns of a new state. DESIGN.md
// tells what happens when the other node hangs, or who serves changes.
package reserving
