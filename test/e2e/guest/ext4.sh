#!/bin/bash
# ext4.sh PORT_A PORT_B IQN - guest script: Linux logs in to the LUN at both sites,
# makes an ext4 file system through site a, finds its files through site b, changes
# them there, and finds that through site a. PORT_A and PORT_B are ports of the
# host's loopback address. The LUN is overwritten.
set -euo pipefail
. /usr/lib/initiator-vm/lib.sh
port_a=$1 port_b=$2 iqn=$3

step() { echo "== $*"; }

# disk_at PORT: the disk whose session goes to that port.
disk_at() {
	local c s d
	for c in /sys/class/iscsi_connection/connection*; do
		[ "$(cat "$c/persistent_port")" = "$1" ] || continue
		s=${c##*/connection}
		for d in "/sys/class/iscsi_session/session${s%%:*}"/device/target*/*:*:*:0/block/*; do
			[ ! -e "$d" ] || echo "/dev/${d##*/}"
		done
	done
}

# look DISK: what this host remembers of the disk may be old, the other site has
# written to it.
look() { blockdev --flushbufs "$1"; }

# files N DIR: some large and many small files.
files() {
	local i
	for i in 1 2 3 4; do
		dd if=/dev/urandom of="$2/large-$1-$i" bs=1M count=2 status=none
	done
	mkdir "$2/small-$1"
	for i in $(seq 100); do echo "$1 $i" >"$2/small-$1/$i"; done
}
sums() { (cd "$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum); }

vm_start
vm_dnat "$port_a" "$port_b"
step "discovery at site a finds both sites"
iscsiadm -m discovery -t sendtargets -p "127.0.0.1:$port_a" | tee /tmp/found
grep -qF "127.0.0.1:$port_a,1 $iqn" /tmp/found
grep -qF "127.0.0.1:$port_b,2 $iqn" /tmp/found

step "log in at both"
iscsiadm -m node -T "$iqn" --login
vm_wait_disk "$iqn" 0 60 2 >/dev/null
a=$(disk_at "$port_a") b=$(disk_at "$port_b")
echo "site a: $a, site b: $b"
[ -b "$a" ] && [ -b "$b" ] && [ "$a" != "$b" ]
[ "$(cat "/sys/block/${a##*/}/device/wwid")" = "$(cat "/sys/block/${b##*/}/device/wwid")" ]

step "ext4 through site a"
mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "$a"
mount "$a" /mnt
files first /mnt
sums /mnt >/tmp/sums
umount /mnt

step "its files through site b"
look "$b"
e2fsck -f -n "$b"
mount "$b" /mnt
sums /mnt | cmp - /tmp/sums
echo "$(wc -l </tmp/sums) files are intact"
step "changes through site b"
rm -r /mnt/small-first /mnt/large-first-1
files second /mnt
sums /mnt >/tmp/sums
umount /mnt

step "found through site a"
look "$a"
e2fsck -f -n "$a"
mount -o ro "$a" /mnt
sums /mnt | cmp - /tmp/sums
echo "$(wc -l </tmp/sums) files are intact"
umount /mnt

step "log out"
iscsiadm -m node -T "$iqn" --logout
vm_wait_gone "$a"
vm_wait_gone "$b"
step "passed"
