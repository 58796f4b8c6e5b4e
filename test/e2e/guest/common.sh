# shellcheck shell=bash
# common.sh - what our guest scripts share:  . /share/common.sh PORT_A PORT_B IQN
# Ports are those of the host's loopback address. LUN says which logical unit (0).
set -Eeuo pipefail
trap 'echo "FAILED: line $LINENO ended with $?: $BASH_COMMAND"' ERR # or set -e ends it without a word
. /usr/lib/initiator-vm/lib.sh
port_a=$1 port_b=$2 iqn=$3 lun=${LUN:-0}

step() { echo "== $((SECONDS)) s: $*"; }
fail() {
	echo "FAILED: $*"
	exit 1
}

# disk_at PORT [LUN]: the disk whose session goes to that port.
disk_at() {
	local c s d
	for c in /sys/class/iscsi_connection/connection*; do
		[ "$(cat "$c/persistent_port")" = "$1" ] || continue
		s=${c##*/connection}
		for d in "/sys/class/iscsi_session/session${s%%:*}"/device/target*/*:*:*:"${2:-$lun}"/block/*; do
			[ ! -e "$d" ] || echo "/dev/${d##*/}"
		done
	done
}

# start: modules, iscsid, and the way to the host.
start() {
	vm_start
	vm_dnat "$port_a" "$port_b"
}

# discover: what site a knows of both sites.
discover() {
	iscsiadm -m discovery -t sendtargets -p "127.0.0.1:$port_a" | tee /tmp/found
	grep -qF "127.0.0.1:$port_a,1 $iqn" /tmp/found
	grep -qF "127.0.0.1:$port_b,2 $iqn" /tmp/found
}

# log_in: at both sites; then $a and $b are the disks, two paths to one unit.
log_in() {
	iscsiadm -m node -T "$iqn" --login >/dev/null
	vm_wait_disk "$iqn" "$lun" 60 2 >/dev/null
	a=$(disk_at "$port_a") b=$(disk_at "$port_b")
	echo "site a: $a, site b: $b"
	[ -b "$a" ] && [ -b "$b" ] && [ "$a" != "$b" ]
	[ "$(cat "/sys/block/${a##*/}/device/wwid")" = "$(cat "/sys/block/${b##*/}/device/wwid")" ]
}

# one_map: logs in at both sites, with dm-multipath over the two paths; then $map is the name
# of the map, $dev its disk.
one_map() {
	modprobe -a dm-multipath dm-round-robin dm-service-time
	discover >/dev/null
	local port
	for port in "$port_a" "$port_b"; do
		# How long a dead connection goes unnoticed, and how long I/O waits for it to
		# come back before it goes to the other path.
		vm_set "127.0.0.1:$port" "$iqn" 'node.conn[0].timeo.noop_out_interval' 2
		vm_set "127.0.0.1:$port" "$iqn" 'node.conn[0].timeo.noop_out_timeout' 4
		vm_set "127.0.0.1:$port" "$iqn" node.session.timeo.replacement_timeout 2
	done
	log_in

	step "one map over both sites"
	vm_udev
	multipathd
	for _ in $(seq 150); do
		map=$(multipathd show maps raw format "%n" 2>/dev/null | head -1 || true)
		[ -z "$map" ] || [ ! -b "/dev/mapper/$map" ] || break
		sleep 0.2
	done
	# shellcheck disable=SC2034 # for the script
	dev=/dev/mapper/$map
}

log_out() {
	iscsiadm -m node -T "$iqn" --logout >/dev/null
	vm_wait_gone "$a"
	vm_wait_gone "$b"
}

# ask WHAT: of the test, which sees a file of that name in its shared folder, and removes it
# when it is done. It may do so at once: the file gets its name when nothing more is to be
# done to it here.
ask() {
	: >/share1/.asked
	mv /share1/.asked "/share1/$1"
	local end=$((SECONDS + 120))
	while [ -e "/share1/$1" ]; do
		[ "$SECONDS" -lt "$end" ] || fail "nobody does what was asked for: $1"
		sleep 0.2
	done
}

# look DISK: what this host remembers of the disk may be old, the other site has
# written to it.
look() { blockdev --flushbufs "$1"; }
