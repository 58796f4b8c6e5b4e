#!/bin/bash
# failover.sh PORT_A PORT_B IQN - guest script: the LUN at both sites as one disk under
# dm-multipath. fio writes, reads and verifies, pass after pass, while first one site dies
# and comes back, then the other. A site dies between two passes: what it has written last,
# and not given back yet, would be held by the other one until it is back. The folder /share1
# tells the test what is to happen: while /share1/dead-0 is there, site a is dead. The LUN is
# overwritten.
# shellcheck source=common.sh
. /share/common.sh "$@"

# pass: fio once, which verifies every block that it has written.
seed=0
pass() {
	seed=$((seed + 1))
	fio --name=load --filename="$dev" --direct=1 --ioengine=libaio --iodepth=16 --randseed=$seed \
		--rw=randrw --rwmixread=40 --bssplit=4k/60:16k/25:64k/15 --size=8M --offset=$((seed % 8 * 8))M \
		--verify=crc32c --verify_fatal=1 --verify_backlog=64 --do_verify=1 --eta=never --output=/tmp/fio.out || {
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
	: >"/share1/idle" # until everything is given back
	while [ -e /share1/idle ]; do sleep 0.2; done
	touch "/share1/dead-$site"
	while [ ! -e "/share1/gone-$site" ]; do sleep 0.2; done
	passes 2
	active 1
	step "and comes back"
	rm "/share1/dead-$site"
	active 2
	passes 1
done
step "$seed passes of fio, all verified"
multipath -f "$map"
multipathd shutdown >/dev/null
log_out
step "passed"
