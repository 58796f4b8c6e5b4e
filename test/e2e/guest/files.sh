#!/bin/bash
# files.sh PORT_A PORT_B IQN - guest script: Linux logs in to the LUN at both sites,
# makes ext4 and xfs through site a, finds their files through site
# b, changes them there, logs out and in again, and finds that through site a. The
# LUN is overwritten.
# shellcheck source=common.sh
. /share/common.sh "$@"

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

make_ext4() { mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "$1"; }
make_xfs() { mkfs.xfs -q -f "$1"; }
check_ext4() { e2fsck -f -n "$1"; }
check_xfs() { xfs_repair -n "$1" 2>&1; }
# divide: two partitions, of which only this kernel knows.
divide() {
	local d
	for d in "$a" "$b"; do
		addpart "$d" 1 2048 $((256 * 2048))
		addpart "$d" 2 $((257 * 2048)) $((512 * 2048))
	done
}
check() { # FS DEVICE; nothing is said unless it is not clean
	look "$2"
	"check_$1" "$2" >/tmp/check || {
		cat /tmp/check
		fail "the $1 on $2 is not clean"
	}
}
intact() { # FS: /mnt has the files that it should have
	sums /mnt | cmp - "/tmp/sums.$1"
	echo "$1: $(wc -l <"/tmp/sums.$1") files are intact"
}

start
step "discovery at site a finds both sites"
discover
step "log in at both"
log_in
divide
declare -A part=([ext4]=1 [xfs]=2)

for fs in ext4 xfs; do
	step "$fs through site a"
	"make_$fs" "$a${part[$fs]}"
	mount -t "$fs" "$a${part[$fs]}" /mnt
	files first /mnt
	sums /mnt >"/tmp/sums.$fs"
	umount /mnt

	step "its files through site b, and changes"
	check "$fs" "$b${part[$fs]}"
	mount -t "$fs" "$b${part[$fs]}" /mnt
	intact "$fs"
	rm -r /mnt/small-first /mnt/large-first-1
	files second /mnt
	sums /mnt >"/tmp/sums.$fs"
	umount /mnt
done

step "log out, and in again"
log_out
log_in
divide
for fs in ext4 xfs; do
	step "$fs, found through site a"
	check "$fs" "$a${part[$fs]}"
	mount -t "$fs" -o ro "$a${part[$fs]}" /mnt
	intact "$fs"
	umount /mnt
done
log_out
step "passed"
