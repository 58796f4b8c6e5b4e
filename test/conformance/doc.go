// Package conformance runs the test cases of libiscsi's iscsi-test-cu against a
// target, and judges what comes out. Every case has a process of its own: some of
// them leave sessions, reservations and unit attentions behind. Cases about
// removable media, about write protection and about paths get LUNs, or paths, made for
// them.
//
// cases.txt says which cases do not pass, and why. All that it does not name must
// pass: a case that fails, or skips itself, without being named there is a finding,
// and so is a case that passes although it is named.
package conformance
