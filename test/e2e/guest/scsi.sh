#!/bin/bash
# scsi.sh PORT_A PORT_B IQN - guest script: sg3_utils, and the kernel, see one and the
# same logical unit at both sites, and what is done to it by a command at one site
# is there at the other. The beginning of the LUN is overwritten.
# shellcheck source=common.sh
. /share/common.sh "$@"

# both NAME COMMAND...: the command works at both sites, with the same answer. DISK
# stands for the disk.
both() {
	local name=$1 site d out=()
	shift
	for site in a b; do
		d=${!site}
		out+=("$("${@/DISK/$d}" 2>&1 | sed "s,$d,DISK,g")") || {
			echo "${out[-1]}"
			fail "$name at site $site"
		}
	done
	[ "${out[0]}" = "${out[1]}" ] || {
		diff <(echo "${out[0]}") <(echo "${out[1]}") || true
		fail "$name differs between the sites"
	}
	said=${out[0]}
	echo "$name: ok"
}
# says PATTERN: the last answer has a line like this.
says() { grep -qE -- "$1" <<<"$said" || { echo "$said"; fail "no $1"; }; }

# at OFFSET COUNT, in blocks of 512: what the sites read there.
read_at() { dd if="$1" iflag=direct,skip_bytes,count_bytes skip=$(($2 * 512)) count=$(($3 * 512)) bs=64k status=none; }
# same OFFSET COUNT BYTE: both sites read so many blocks of the byte.
same() {
	local site
	for site in a b; do
		read_at "${!site}" "$1" "$2" | cmp - <(pattern "$2" "$3") ||
			fail "site $site does not read what it should, in blocks $1 to $(($1 + $2))"
	done
}
pattern() { head -c $(($1 * 512)) /dev/zero | tr '\0' "$2"; } # COUNT BYTE

start
discover >/dev/null
log_in

step "what the unit is"
both "INQUIRY" sg_inq DISK
says 'Vendor identification: TWINLUN'
both "supported VPD pages" sg_vpd --page=sv DISK
for page in $(sg_vpd --page=sv --raw "$a" | od -An -v -tx1 -j4); do
	case $page in
	83 | 88) sg_vpd --page="0x$page" "$a" >/dev/null && sg_vpd --page="0x$page" "$b" >/dev/null ;; # these tell ports apart
	*) both "VPD page $page" sg_vpd --page="0x$page" DISK ;;
	esac
done
both "designators of the unit" sg_vpd --page=di_lu --quiet DISK
both "READ CAPACITY (16)" sg_readcap --long DISK
says 'lbpme=1, lbprz=1'
both "TEST UNIT READY" sg_turs DISK
both "REPORT LUNS" sg_luns DISK
both "REQUEST SENSE" sg_requests DISK
both "MODE SENSE" sg_modes --all DISK
both "REPORT SUPPORTED OPERATION CODES" sg_opcodes DISK
both "GET LBA STATUS" sg_get_lba_status --lba=0 DISK

step "what the kernel makes of it"
for site in a b; do
	q=/sys/block/${!site##*/}/queue
	for want in logical_block_size=512 physical_block_size=4096 "write_cache=write back" fua=1 rotational=0 \
		'discard_max_bytes=[1-9][0-9]*' 'write_zeroes_max_bytes=[1-9][0-9]*'; do
		grep -qxE "${want#*=}" "$q/${want%%=*}" || fail "${want%%=*} at site $site is $(cat "$q/${want%%=*}")"
	done
done

step "commands that change the medium"
fill() { pattern 256 A | dd of="$1" bs=128k iflag=fullblock oflag=direct status=none; } # DISK
zero='\0'
fill "$a"
same 0 256 A
sg_unmap --force --lba=0 --num=256 "$b"
same 0 256 "$zero"
fill "$b"
pattern 1 B >/tmp/block
sg_write_same --10 --in=/tmp/block --lba=64 --num=64 --xferlen=512 "$a" >/dev/null
same 64 64 B
sg_write_same --16 --unmap --in=/dev/zero --lba=0 --num=64 --xferlen=512 "$b" >/dev/null
same 0 64 "$zero"
sg_write_same --16 --in=/tmp/block --lba=128 --num=64 --xferlen=512 "$b" >/dev/null
same 64 128 B
same 192 64 A
verify() { pattern 64 "$2" | sg_verify --16 --lba=64 --count=64 --ndo=$((64 * 512)) --in=- "$1"; } # DISK BYTE
verify "$a" B
verify "$b" B
rc=0
verify "$b" A 2>/dev/null || rc=$?
[ "$rc" = 14 ] || fail "VERIFY of other data ended with exit status $rc, not with MISCOMPARE (14)"
sg_verify --16 --lba=0 --count=256 "$a"
sg_sync "$a"
fill "$a"
blkdiscard -o 0 -l 65536 "$a"
blkdiscard -z -o 65536 -l 65536 "$b"
same 0 256 "$zero"

step "COMPARE AND WRITE, at one site and the other"
swap() { # DISK OLD NEW
	{ pattern 8 "$2" && pattern 8 "$3"; } >/tmp/swap
	sg_compare_and_write --in=/tmp/swap --lba=0 --num=8 --xferlen=8192 "$1"
}
swap "$a" "$zero" A
swap "$b" A B
swap "$a" B A
same 0 8 A
rc=0
swap "$b" B C 2>/dev/null || rc=$?
[ "$rc" = 14 ] || fail "COMPARE AND WRITE of other data ended with exit status $rc, not with MISCOMPARE (14)"
same 0 8 A

step "target port groups: site a is the preferred one"
for site in a b; do
	sg_rtpg --decode "${!site}" >/tmp/groups
	cat /tmp/groups
	[ "$(grep -c 'target port group id' /tmp/groups)" = 2 ]
	grep -A1 'group id : 0x1 , Pref=1' /tmp/groups | grep -q 'active/optimized'
	grep -A1 'group id : 0x2 , Pref=0' /tmp/groups | grep -q 'active/non optimized'
done

step "persistent reservations"
sg_persist --out --register --param-sark=0xabc "$a" >/dev/null
sg_persist --out --reserve --param-rk=0xabc --prout-type=5 "$a" >/dev/null
sg_persist --in --read-keys "$a" 2>&1 | tee /tmp/keys
grep -q 0xabc /tmp/keys
sg_persist --in --read-reservation "$a" 2>&1 | tee /tmp/reservation
grep -q 'Write Exclusive, registrants only' /tmp/reservation
sg_persist --in --report-capabilities "$a" >/dev/null
sg_persist --in --read-full-status "$a" >/dev/null
fill "$a"
sg_persist --out --release --param-rk=0xabc --prout-type=5 "$a" >/dev/null
sg_persist --out --register --param-rk=0xabc --param-sark=0 "$a" >/dev/null

step "a reset"
sg_reset --device "$a"
fill "$a"
same 0 256 A
log_out
step "passed"
