// Package e2e tests the two programs from outside, with what users have: QEMU's
// tools, libiscsi's, the Linux initiator in a virtual machine, and initiators of
// our own whose histories are checked. Every test runs a demo of its own, on free
// ports and in a temporary folder.
//
// A tool that is missing is a failure, and not a test that did not happen, unless
// TWINLUN_SKIP_TOOLS=1. TWINLUN_SOAK=20m makes the test of linearizability run for
// so long, TWINLUN_E2E_RACE=1 gives the daemons the race detector.
package e2e
