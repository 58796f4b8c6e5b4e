#!/bin/bash
# failover.sh PORT_A PORT_B IQN - guest script: the LUN at both sites as one disk under
# dm-multipath. fio writes, reads and verifies, pass after pass, while first one site dies
# and comes back, then the other: first for long, after everything was given back, as what
# only the dead site has would be held; then in the middle of a pass, for a few seconds, in
# which what is held is waited for. What is to happen is asked of the test. The LUN is
# overwritten.
# shellcheck source=common.sh
. /share/common.sh "$@"

# pass [FLAG...]: fio once, which verifies every block that it has written.
seed=0
pass() {
	seed=$((seed + 1))
	fio --name=load --filename="$dev" --direct=1 --ioengine=libaio --iodepth=16 --randseed=$seed \
		--rw=randrw --rwmixread=40 --bssplit=4k/60:16k/25:64k/15 --size=8M --offset=$((seed % 8 * 8))M \
		--verify=crc32c --verify_fatal=1 --verify_backlog=64 --do_verify=1 --eta=never --output=/tmp/fio.out "$@" || {
		cat /tmp/fio.out
		multipath -ll
		fail "fio"
	}
}
# passes N: N more.
passes() { for _ in $(seq "$1"); do pass; done; }
# active N: passes, until N paths work.
active() {
	local end=$((SECONDS + 180))
	until [ "$(multipathd show paths raw format "%t %o %T" | grep -c "^active running ready")" = "$1" ]; do
		[ "$SECONDS" -lt "$end" ] || { multipath -ll; fail "not $1 active paths"; }
		pass
	done
}

start
one_map
active 2
passes 2

for site in 0 1; do
	step "site $site dies"
	ask idle # everything is given back
	ask "kill-$site"
	passes 2
	active 1
	step "and comes back"
	ask "start-$site"
	active 2
	passes 1
done
for site in 0 1; do
	step "site $site dies in the middle of a pass"
	pass --size=48M & # takes some fifteen seconds
	sleep 4
	ask "kill-$site"
	sleep 8 # by then fio asks the other one for what was written last
	ask "start-$site"
	wait $! || fail "fio"
	seed=$((seed + 1))
	active 2
done
step "$seed passes of fio, all verified"
multipath -f "$map"
multipathd shutdown >/dev/null
log_out
step "passed"
