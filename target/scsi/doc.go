// Package scsi is the SCSI device server: SPC-4 and SBC-3 for logical units
// that are disks. A transport hands it commands in the words of target/sam; it
// asks a Disk for the bytes.
//
// It promises that no CDB and no parameter list, however malformed, makes it
// panic, reach outside a Disk, or say GOOD about something that was not done;
// and that READ and WRITE go straight between the transport's buffer and the
// Disk, without a copy, a lock or an allocation.
//
// A command passes four checks in Nexus.Prepare before any data moves: the
// logical unit and its unit attentions (SAM-5 5.14), the CDB against the usage
// map of its operation (every bit outside the map, NACA among them, must be 0),
// the unit's guard (reservations, write protection, asymmetric access), and the
// operation's own rules. The guard is asked again when it is carried out. The same usage maps answer REPORT SUPPORTED
// OPERATION CODES, so what is told and what is enforced cannot drift apart.
//
// Sense data is in fixed format (SPC-4 4.5.3), always 18 bytes:
//
//	offset size
//	     0    1  70h, current; F0h if there is INFORMATION
//	     2    1  sense key
//	     3    4  INFORMATION: COMPARE AND WRITE, offset of the first difference
//	     7    1  0Ah, additional length
//	     8    4  COMMAND-SPECIFIC INFORMATION: EXTENDED COPY, number of the segment
//	    12    1  additional sense code
//	    13    1  additional sense code qualifier
//	    15    1  SKSV, C/D, BPV, bit pointer  } ILLEGAL REQUEST only: the first
//	    16    2  field pointer                } field at fault
//
// DESIGN.md tells which parts of gotgt serve as the model, and which do not.
package scsi
