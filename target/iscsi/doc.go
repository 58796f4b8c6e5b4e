// Package iscsi is an iSCSI target (RFC 7143): it takes TCP connections of
// initiators, logs them in, and carries their SCSI commands to a sam.Target.
//
// Every PDU starts with a basic header segment of 48 bytes, big endian; the
// first eight bytes and the initiator task tag stand in the same place in all
// of them, and in what a target sends so do the three sequence numbers:
//
//	offset size
//	     0    1  bit 6: immediate delivery; bits 5-0: opcode
//	     1    1  bit 7: final; the rest as the opcode says
//	     2    2  as the opcode says
//	     4    1  TotalAHSLength, in words of four bytes
//	     5    3  DataSegmentLength, in bytes, padding not counted
//	     8    8  logical unit number, or as the opcode says
//	    16    4  initiator task tag
//	    20    4  as the opcode says
//	    24    4  CmdSN, or in what a target sends StatSN
//	    28    4  ExpStatSN, or in what a target sends ExpCmdSN
//	    32    4  as the opcode says, or in what a target sends MaxCmdSN
//	    36   12  as the opcode says
//
// Then come, each only if it is there: additional header segments (AHS), the
// header digest (4 bytes), the data segment, zeros up to a multiple of four
// bytes, and the data digest (4 bytes) of segment and padding. pdu_in.go and
// pdu_out.go draw every PDU.
//
// What is promised: nothing an initiator sends makes the target panic, wait
// forever, or take more memory than Limits allows; a session's commands run
// concurrently, and none of them keeps its connection from being read; when a
// session has ended, so have all of its commands.
//
// Sessions have one connection, and error recovery level 0: what goes wrong on
// a connection ends the session, and the initiator logs in again. DESIGN.md
// tells of goroutines, owners and bounds.
package iscsi
