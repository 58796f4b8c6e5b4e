#!/bin/bash
# change.sh PORT_A PORT_B IQN - guest script: LUN 0 grows, and LUN 1 comes and goes,
# while LUN 0 is under load, which is verified. What is to happen at the sites, the
# guest asks for by a file in /share1, and waits until that is gone. Both LUNs are
# overwritten.
# shellcheck source=common.sh
. /share/common.sh "$@"

rescan() { iscsiadm -m session --rescan >/dev/null; }
size() { blockdev --getsize64 "$1"; }
# becomes DISK BYTES: wait until the kernel knows of a size.
becomes() {
	local end=$((SECONDS + 60))
	until [ "$(size "$1")" = "$2" ]; do
		[ "$SECONDS" -lt "$end" ] || fail "$1 has $(size "$1") bytes, and not $2"
		sleep 0.2
	done
}
# across FROM TO MIB: what is written to the one disk there, is read from the other.
across() {
	dd if=/dev/urandom of=/tmp/data bs=1M count=1 status=none
	dd if=/tmp/data of="$1" bs=1M seek="$3" oflag=direct conv=notrunc status=none
	dd if="$2" bs=1M skip="$3" count=1 iflag=direct status=none | cmp - /tmp/data || fail "$2 does not read at $3 MiB what was written to $1"
}
load() {
	while [ ! -e /tmp/stop ]; do
		fio --name=load --filename="$a" --direct=1 --ioengine=libaio --iodepth=8 --rw=randrw --bs=4k --size=4M \
			--randrepeat=0 --verify=crc32c --verify_fatal=1 --do_verify=1 --eta=never --output=/tmp/fio.out || {
			touch /tmp/failed
			return 1
		}
		echo >>/tmp/passes
	done
}
# passed: the load goes on.
passed() {
	local before end=$((SECONDS + 120))
	before=$(wc -l </tmp/passes)
	until [ "$(wc -l </tmp/passes)" -gt "$before" ]; do
		[ ! -e /tmp/failed ] || { cat /tmp/fio.out; fail "the load"; }
		[ "$SECONDS" -lt "$end" ] || fail "the load does not get on"
		sleep 0.2
	done
}

start
for port in "$port_a" "$port_b"; do vm_node "127.0.0.1:$port" "$iqn"; done # not by IPv6
log_in
becomes "$a" $((64 << 20))
: >/tmp/passes
load &
load=$!
passed

step "LUN 0 grows"
ask grow
rescan
becomes "$a" $((96 << 20))
becomes "$b" $((96 << 20))
across "$a" "$b" 95
across "$b" "$a" 64
passed

step "LUN 1 comes"
ask come
rescan
vm_wait_disk "$iqn" 1 60 2 >/dev/null
c=$(disk_at "$port_a" 1) d=$(disk_at "$port_b" 1)
[ "$(cat "/sys/block/${a##*/}/device/wwid")" != "$(cat "/sys/block/${c##*/}/device/wwid")" ]
across "$c" "$d" 3
across "$d" "$c" 0
passed

step "LUN 1 goes"
ask go
for disk in "$c" "$d"; do
	if dd if="$disk" of=/dev/null bs=4k count=1 iflag=direct status=none 2>/dev/null; then fail "$disk can still be read"; fi
	echo 1 >"/sys/block/${disk##*/}/device/delete"
done
passed
rescan
[ -z "$(vm_disks "$iqn" 1)" ] || fail "LUN 1 is back"
passed
touch /tmp/stop
wait "$load" || { cat /tmp/fio.out; fail "the load"; }
log_out
step "passed"
