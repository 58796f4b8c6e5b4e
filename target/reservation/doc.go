// Package reservation holds the rules of SCSI persistent reservations (SPC-4
// 5.13, 6.15, 6.16) for one logical unit: a command and a state go in, a new state
// and what the other I_T nexuses have to be told come out. It has no lock, clock,
// goroutine or I/O, so that whoever keeps the state, one target or a cluster that
// both sites ask, comes to the same result from the same commands.
//
// A State is never changed once it is made: who reads it needs no lock.
//
// Encode writes a state for keeping it through a loss of power. Big endian:
//
//	offset size
//	     0    8  magic "TWLNPR01"
//	     8   16  UUID of the logical unit
//	    24    1  type of the reservation; 0: there is none
//	    25    1  0
//	    26    2  which registration holds it, from 0; ffffh: none, or all do
//	    28    4  number of registrations, ascending by port and initiator port
//	    32    …  a registration:
//	                 0  8  reservation key
//	                 8  2  relative target port identifier
//	                10  2  length of the name
//	                12  …  name of the initiator port
//	     …    4  CRC-32C of the bytes before
//
// The generation is not in there: it begins again with power on (SPC-4 6.15.2).
package reservation
