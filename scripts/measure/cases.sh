#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Cases from the field, each in a guest of its own, on the unpatched and the patched
# kernel; case 3 on the unpatched one also with retries. To BUILD/cases.
#
#   cases.sh              all of them
#   cases.sh "1a 2b 3"    these; the table has the earlier results of the others, too
#
# TRIES=10 makes ten allocations of a case, and not as many as cma_cases thinks right.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"

OUT=$BUILD/cases
PROGRAM=$BUILD/selftests/cma_cases
TIMEOUT=2400
check_var TRIES '[1-9][0-9]{0,2}' 'the number of allocations, such as 10'

# guest CASE: the memory of its guest, and boot parameters
guest()
{
	case $1 in
	1a) echo 256M cma=128M page_owner=on ;;
	1[bc]) echo 1G cma=256M page_owner=on ;;
	6) echo 512M cma=64M ;;
	7*) echo 768M cma=256M nohz_full=1 ;;
	8a) echo 426M cma=256M ;;
	8b) echo 448M cma=256M ;;
	10-virtio-mem) echo 768M,maxmem=2G cma=256M memhp_default_state=online_movable ;;
	*) echo 768M cma=256M ;;
	esac
}

# kernel_of CASE KERNEL: which one has what the case needs
kernel_of()
{
	case $1 in
	7* | 10-[!m]*) echo "$2-cases" ;;
	*) echo "$2" ;;
	esac
}

# resize MONITOR: the guest gets 128 MB more and gives them back, again and again; what
# QEMU says of it is in MONITOR.log
resize()
{
	local size

	timeout "$TIMEOUT" cat "$1.out" >"$1.log" &
	while :; do
		for size in 128M 0; do
			echo "qom-set vmem requested-size $size"
			sleep 2
			echo 'info memory-devices'
		done
	done >"$1.in"
}

# play CASE KERNEL NAME [OPTION]...: boot and run; the output in OUT/CASE-NAME.txt
play()
{
	local log=$OUT/$1-$3.txt dir=$BUILD/vm-cases-$1-$3 memory append why='' status=0 below=() qemu='' resizer

	case $1 in
	10-virtio-mem)
		mkdir -p "$dir"
		rm -f "$dir"/monitor.*
		mkfifo "$dir"/monitor.{in,out}
		resize "$dir/monitor" &
		resizer=$!
		qemu="-monitor pipe:$dir/monitor -object memory-backend-ram,id=vmem-ram,size=128M \
-device virtio-mem-pci,id=vmem,memdev=vmem-ram"
		;;
	10-[!m]*) below=(scripts/measure/below "${1#10-}") ;;
	esac
	read -r memory append < <(guest "$1")
	say "case $1 on the $3 kernel ($memory, $append)"
	"$REPO/scripts/vm/boot.sh" --kernel "$2" --out "$dir" --mem "$memory" --smp 2 \
		--append "$append" --timeout "$TIMEOUT" --qemu "$qemu" -- \
		"${below[@]}" "$PROGRAM" -k "$3" ${TRIES:+-n "$TRIES"} "${@:4}" "$1" >"$log" 2>&1 || status=$?
	if [[ -n $qemu ]]; then
		kill "$resizer" 2>/dev/null || :
		sed -n 's/^  size: /# its memory had that many bytes: /p' "$dir/monitor.log" >>"$log"
	fi
	sed -n "/alloc failed, /{s/^[^]]*\] */said $1 $3: /;s/\r//;p;q}" \
		"$dir/console.log" >>"$log" || :
	[[ $status -ne 0 ]] || return 0
	why=$(grep -m 1 -E '^(# cannot|error: |ok .*SKIP|1\.\.0)' "$log") || why='no reason given'
	echo "SKIP case=$1 kernel=$3 ${why#\# }" | tee -a "$log" >&2
}

# results FILE...: as CSV
results()
{
	awk -v OFS=, '
		/^result / {
			line = header = ""
			for (i = 2; i <= NF; i++) {
				at = index($i, "=")
				header = header (i > 2 ? OFS : "") substr($i, 1, at - 1)
				line = line (i > 2 ? OFS : "") substr($i, at + 1)
			}
			if (!rows++)
				print header
			print line
		}' "$@"
}

table()
{
	results "$OUT"/*.txt | tee "$OUT/results.csv" | awk -F, '
		BEGIN {
			row = "%-14s %-9s %5s %5s %9s %9s %-12s %6s %6s %6s %6s %8s %7s  %s\n"
			printf row, "case", "kernel", "tried", "ok", "p50 ms", "max ms", "errors", \
				"drains", "failed", "waits", "t.outs", "I/O ms", "in area", "note"
		}
		NR > 1 {
			printf row, $1, $2, $3, $4, $5, $6, $7, $10, $11, $12, $13, $14, $15 " MB", $16
		}'
	cat "$OUT"/*.txt | grep '^SKIP ' || :
	echo
	echo "The first failure that the kernel reported:"
	cat "$OUT"/*.txt | sed -n 's/^said //p'
}

lock
"$REPO/scripts/packages.sh" tree build selftests vm
"$REPO/scripts/build/selftests.sh"
mkdir -p "$OUT"
declare -A built
read -d '' -ra all < <("$PROGRAM" --list) || :
read -ra cases <<<"${1:-${all[*]}}"
for case in "${cases[@]}"; do
	[[ " ${all[*]} " == *" $case "* ]] || die "no case $case; there are: ${all[*]}"
	rm -f "$OUT/$case"-*.txt
	for kernel in base series; do
		name=unpatched
		[[ $kernel == base ]] || name=patched
		kernel=$(kernel_of "$case" "$kernel")
		[[ -n ${built[$kernel]:-} ]] || "$REPO/scripts/build/kernel.sh" build "$kernel"
		built[$kernel]=1
		play "$case" "$kernel" "$name"
		[[ $case-$name != 3-unpatched ]] || play 3 "$kernel" retry -r 5
	done
done
table >"$OUT/table.txt"
cat "$OUT/table.txt"
say "table, results.csv and the output of each guest in $OUT"
