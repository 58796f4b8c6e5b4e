// Package chaos breaks real clusters: twinlund of two sites and a witness, each in a
// network namespace of its own (package lab), with hosts that go to the other site as
// multipath hosts do.
//
//	TestChaos    everything that can break does, at random; what hosts have seen is
//	             checked by porcupine. -chaos.time says for how long.
//	TestForced…  the majority is gone, and an operator forces the last site; in time, or
//	             too late.
//	TestRecover  the majority is gone for good, and an operator makes a new group of what is
//	             left, which new nodes join.
//	TestReturn   how soon a site serves that was away; only with -chaos.return
//	TestStalls   how long hosts stand still; only with -chaos.stalls, which says how
//	             often each fault is struck. make failover runs it.
//
// It needs root, iproute2, and for broken disks mkfs.ext4.
package chaos
