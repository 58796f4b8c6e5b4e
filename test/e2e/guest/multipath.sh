#!/bin/bash
# multipath.sh PORT_A PORT_B IQN - guest script: the LUN at both sites as one disk
# under dm-multipath. fio writes, reads and verifies all the time, while first one
# path, then the other is cut off (packets are dropped, so that nothing tells the
# initiator) and comes back. Environment: FIO_TIME, for how long there is only load
# at first (10 s). The LUN is overwritten.
# shellcheck source=common.sh
. /share/common.sh "$@"

# load: one pass of fio after the other, each of which verifies every block that it
# has written; until /tmp/stop is there. /tmp/passes counts them.
load() {
	local seed=0
	while [ ! -e /tmp/stop ]; do
		seed=$((seed + 1))
		fio --name=load --filename="$dev" --direct=1 --ioengine=libaio --iodepth=16 --randseed=$seed \
			--rw=randrw --rwmixread=40 --bssplit=4k/60:16k/25:64k/15 --size=16M --offset=$((seed % 8 * 16))M \
			--verify=crc32c --verify_fatal=1 --verify_backlog=64 --do_verify=1 --eta=never --output=/tmp/fio.out || {
			touch /tmp/failed
			return 1
		}
		echo "$seed" >>/tmp/passes
	done
}
passes() { if [ -e /tmp/passes ]; then wc -l </tmp/passes; else echo 0; fi; }
# passed N: wait until N more passes are done.
passed() {
	local want=$(($(passes) + $1)) end=$((SECONDS + 120))
	while [ "$(passes)" -lt "$want" ]; do
		[ ! -e /tmp/failed ] || { cat /tmp/fio.out; fail "fio"; }
		[ "$SECONDS" -lt "$end" ] || { multipath -ll; fail "fio does not get on"; }
		sleep 0.5
	done
}
# active N: wait until N paths work.
active() {
	local end=$((SECONDS + 120))
	until [ "$(multipathd show paths raw format "%t %o %T" | grep -c "^active running ready")" = "$1" ]; do
		[ "$SECONDS" -lt "$end" ] || { multipath -ll; fail "not $1 active paths"; }
		sleep 0.5
	done
}

start
one_map
active 2
multipath -ll
[ "$(multipathd show maps raw format "%n" | wc -l)" = 1 ]
# Two groups of one path each, that to the preferred site before the other one.
[ "$(multipath -ll | grep -c "policy=")" = 2 ] || fail "not two groups"
preferred=$(multipathd show paths raw format "%d %p" | sort -k2 -n | tail -n 1)
[ "${preferred%% *}" = "${a##*/}" ] || fail "the path that is preferred is $preferred, not that to site a"

step "load"
load &
load=$!
end=$((SECONDS + ${FIO_TIME:-10}))
while [ "$SECONDS" -lt "$end" ]; do passed 1; done
echo "$(passes) passes"

nft 'table ip cut { chain out { type filter hook output priority 0; }; }'
for port in "$port_a" "$port_b"; do
	step "the path to 127.0.0.1:$port is cut"
	nft add rule ip cut out ip daddr 10.0.2.2 tcp dport "$port" drop
	active 1
	passed 1
	step "and restored"
	nft flush chain ip cut out
	active 2
	passed 1
done
touch /tmp/stop
wait "$load" || fail "fio"
step "$(passes) passes of fio, all verified"
multipath -f "$map"
multipathd shutdown >/dev/null
log_out
step "passed"
