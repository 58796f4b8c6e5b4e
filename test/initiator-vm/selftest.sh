#!/usr/bin/env bash
# selftest.sh - does the initiator VM work here? Builds it if need be, checks
# run.sh itself, and runs every example against tgt (a known good target) on
# loopback. Installs tgt (not started as a service). ~5 minutes under TCG.
#
# usage: selftest.sh [NAME...]     only these tests
# Environment: PORT (13260) and the 4 ports after it are used.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
port=${PORT:-13260} iqn=iqn.2000-01.org.example:disk
tmp=$(mktemp -d)
names=("$@") failed=0

"$here/build.sh" || exit
if ! command -v tgtd >/dev/null; then
	# no service: one could not listen on 3260, or should not
	printf '#!/bin/sh\nexit 101\n' >"$tmp/policy" && chmod +x "$tmp/policy"
	[ -e /usr/sbin/policy-rc.d ] || { policy=1; cp "$tmp/policy" /usr/sbin/policy-rc.d; }
	DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends tgt >/dev/null
	[ -z "${policy:-}" ] || rm /usr/sbin/policy-rc.d
fi

# shellcheck disable=SC2317 # called by the trap
cleanup() {
	for d in "$tmp"/*/; do [ ! -e "$d/pid" ] || "$here/host/tgtd.sh" stop "$d"; done
	rm -rf "$tmp"
}
trap cleanup EXIT

want() { [ ${#names[@]} = 0 ] || [[ " ${names[*]} " = *" $1 "* ]]; }
# check NAME WANTED_EXIT RUN.SH-ARGUMENTS...
check() {
	local name=$1 wanted=$2 rc=0
	shift 2
	want "$name" || return 0
	"$here/run.sh" "$@" >"$tmp/$name.log" 2>&1 || rc=$?
	if [ "$rc" = "$wanted" ]; then
		printf 'ok      %-16s %s\n' "$name" "$(grep '^run.sh: accel' "$tmp/$name.log")"
		grep '^fio: ' "$tmp/$name.log" | sed 's/^/        /'
	else
		printf 'FAILED  %-16s exit %s, wanted %s\n' "$name" "$rc" "$wanted"
		sed 's/^/        | /' "$tmp/$name.log"
		failed=1
	fi
}
script() { printf '%s\n' "$2" >"$tmp/$1.sh" && echo "$tmp/$1.sh"; }

# --- run.sh -----------------------------------------------------------------
mkdir "$tmp/share"
# shellcheck disable=SC2016 # for the guest to expand
check exit-status 42 -e A='x y' -s "$tmp/share" \
	"$(script exit '[ "$A $1" = "x y z" ] && echo "$1" >/share/out && exit 42')" z
! want exit-status || [ "$(cat "$tmp/share/out")" = z ] || { echo "FAILED  shared folder"; failed=1; }
check timeout 124 -t 15 "$(script timeout 'sleep 1000')"
check panic 125 "$(script panic 'echo c >/proc/sysrq-trigger; sleep 9')"

# --- the examples -----------------------------------------------------------
t=$here/host/tgtd.sh e=$here/examples p=10.0.2.2
"$t" start "$tmp/t0" "$port" || exit
"$t" start "$tmp/t1" $((port + 1)) $((port + 2)) || exit
CHAP="alice alicesecret123 target targetsecret45" "$t" start "$tmp/t2" $((port + 3)) || exit
DIGEST=CRC32C "$t" start "$tmp/t3" $((port + 4)) || exit
check login-ext4 0 "$e/login-ext4.sh" $p:"$port" $iqn
check chap-mutual 0 "$e/chap-mutual.sh" $p:$((port + 3)) $iqn alice alicesecret123 target targetsecret45
check scsi-report 0 "$e/scsi-report.sh" $p:"$port" $iqn
check fio-verify 0 -e SIZE=64M "$e/fio.sh" $p:"$port" $iqn
check fio-digest 0 -e SIZE=32M -e DIGEST=CRC32C "$e/fio.sh" $p:$((port + 4)) $iqn
check fio-iops 0 "$e/fio.sh" $p:"$port" $iqn iops
check multipath 0 "$e/multipath.sh" $p:$((port + 1)) $p:$((port + 2)) $iqn
exit $failed
