#!/bin/bash
# chap.sh PORT IQN - guest script: Linux finds the target by a discovery with CHAP,
# and logs in to it with CHAP, one way and mutual, with right and wrong secrets. PORT
# is a port of the host's loopback address; the secrets are those of access_test.go.
set -euo pipefail
. /usr/lib/initiator-vm/lib.sh
port=$1 iqn=$2 portal=127.0.0.1:$1

step() { echo "== $((SECONDS)) s: $*"; }

# exits WANTED COMMAND...: it has to end with that status.
exits() {
	local want=$1 rc=0
	shift
	"$@" >/tmp/out 2>&1 || rc=$?
	[ "$rc" = "$want" ] || { echo "FAILED: $* ended with $rc, not $want:"; cat /tmp/out; exit 1; }
}

# auth [USER SECRET [USER_IN SECRET_IN]]: what the next login is made with.
auth() {
	iscsiadm -m node -o delete -T "$iqn" 2>/dev/null || true
	vm_node "$portal" "$iqn"
	vm_set "$portal" "$iqn" node.session.initial_login_retry_max 1
	[ $# = 0 ] || {
		vm_set "$portal" "$iqn" node.session.auth.authmethod CHAP
		vm_set "$portal" "$iqn" node.session.auth.username "$1"
		vm_set "$portal" "$iqn" node.session.auth.password "$2"
	}
	[ $# -lt 4 ] || {
		vm_set "$portal" "$iqn" node.session.auth.username_in "$3"
		vm_set "$portal" "$iqn" node.session.auth.password_in "$4"
	}
}
login() { iscsiadm -m node -T "$iqn" -p "$portal" --login; }
logout() { iscsiadm -m node -T "$iqn" -p "$portal" --logout >/dev/null; }

# discover [USER SECRET]
discover() {
	iscsiadm -m discoverydb -t st -p "$portal" -o delete 2>/dev/null || true
	iscsiadm -m discoverydb -t st -p "$portal" -o new >/dev/null
	[ $# = 0 ] || {
		local k
		for k in authmethod=CHAP "username=$1" "password=$2"; do
			iscsiadm -m discoverydb -t st -p "$portal" -o update -n "discovery.sendtargets.auth.${k%%=*}" -v "${k#*=}"
		done
	}
	iscsiadm -m discoverydb -t st -p "$portal" --discover
}

vm_start
vm_dnat "$port"

step "discovery"
exits 24 discover
exits 24 discover look only-for-lurking
discover look only-for-looking | grep -F "$portal,1 $iqn"

step "no CHAP, and wrong secrets"
auth
exits 24 login
auth web incorrect-horse-battery
exits 24 login
auth root correct-horse-battery
exits 24 login
auth look only-for-looking
exits 24 login

step "CHAP, and a disk"
auth web correct-horse-battery
login
disk=$(vm_wait_disk "$iqn" 0)
dd if=/dev/urandom of=/tmp/data bs=64k count=4 status=none
dd if=/tmp/data of="$disk" bs=64k oflag=direct status=none
logout
vm_wait_gone "$disk"

step "mutual CHAP, with each algorithm"
for a in SHA3-256 SHA256 SHA1 MD5; do
	auth web correct-horse-battery disks the-target-proves-it
	vm_set "$portal" "$iqn" node.session.auth.chap_algs "$a"
	login
	disk=$(vm_wait_disk "$iqn" 0)
	dd if="$disk" bs=64k count=4 iflag=direct status=none | cmp - /tmp/data
	logout
	vm_wait_gone "$disk"
	echo "$a"
done

step "mutual CHAP, and a wrong secret of the target"
auth web correct-horse-battery disks the-target-is-a-fake
exits 19 login
auth web correct-horse-battery others the-target-proves-it
exits 19 login
step "passed"
