#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Allocate and release a whole CMA area in a loop while fio does direct I/O with
# buffers in it, for DURATION seconds (600); before that, shortly with waiting
# off, to show that the load is one that makes allocations fail.
#
# Prints a table and TAP; exit status 0 if there was no failed allocation and no
# verify error with waiting on.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"

DURATION=${DURATION:-600}
check_var DURATION '[1-9][0-9]{0,4}' 'the number of seconds that fio runs, such as 600'
# Rounds take longer than fio runs, and the guest has to boot.
LIMIT=$((DURATION + 180))
# Some of the allocations succeed even so: enough rounds for one that does not.
CONTROL=30

# measure NAME SECONDS BUDGET: what the guest leaves is in BUILD/vm-fio-NAME
measure()
{
	local out=$BUILD/vm-fio-$1

	rm -rf "$out"
	say "fio for $2 s, drain budget: $3"
	"$REPO/scripts/vm/boot.sh" --kernel series --out "$out" --append cma=256M --timeout "$LIMIT" -- \
		scripts/check/guest-fio "$2" "$3" >&2
	[[ -s $out/allocs && -s $out/fio && -e $out/timeouts ]] ||
		die "fio in the guest left no results in $out"
}

# The numbers of a run, each in a variable of this name.
read_results()
{
	local out=$BUILD/vm-fio-$1

	read -r tried failed drained waits p50 p99 max < <(sort -n -k 2 "$out/allocs" | awk '
		{ ms[NR] = $2; failed += $3 != 0; drained += $4; waits += $5 }
		function rank(p) { return ms[int((NR * p + 99) / 100)] }
		END { print NR, failed + 0, drained + 0, waits + 0, rank(50), rank(99), ms[NR] }')
	# Terse version 3: 8 and 49 are the IOPS of reads and writes.
	read -r rounds errors iops < <(awk -F';' '
		{ jobs++; errors += $1 != 0 || NF < 50 || $6 != 0; iops += $9 + $50 }
		END { print int(jobs / 2), errors + 0, int(iops * 2 / jobs) }' "$out/fio")
	timeouts=$(cat "$out/timeouts")
}

print_row()
{
	printf '# %-8s %7s %7s %8s %7s %7s %7s %8s %7s %9s %7s\n' "$@"
}

print_results()
{
	print_row "$1" "$tried" "$failed" "$drained" "$p50" "$p99" "$max" "$iops" "$waits" "$timeouts" \
		"$rounds"
}

# verdict NAME TEST...: one line of TAP
verdict()
{
	report "$@"
	"${@:2}" || all_ok=0
}

lock
"$REPO/scripts/packages.sh" tree build vm fio
"$REPO/scripts/build/kernel.sh" build series
measure off $CONTROL 0
measure on "$DURATION" keep

all_ok=1
print_row waiting allocs failed drained 'p50 ms' 'p99 ms' 'max ms' IOPS waits timeouts rounds
read_results off
print_results off
verdict "fio with waiting off: allocations fail" test "$failed" -gt 0
verdict "fio with waiting off: no verify error" test "$errors" -eq 0
read_results on
print_results on
verdict "fio: every allocation succeeds" test "$failed" -eq 0
verdict "fio: no verify error" test "$errors" -eq 0
verdict "fio: no pin waited for the full bound" test "$timeouts" -eq 0
# The first allocation of a round finds the buffers in the area, mostly pinned.
verdict "fio: allocations had to drain" test "$drained" -gt 0
[[ $all_ok -eq 1 ]]
