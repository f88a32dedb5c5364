#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The main job: allocate a whole CMA area while direct I/O keeps pinning it.
#
#   run.sh series       on the patched kernel, waiting off (budget 0) and on
#   run.sh base series  on the unpatched base as well
#
# Exit status 0 if with waiting on every allocation succeeded.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"

RESULTS=$BUILD/results

# measure KERNEL NAME: boot and measure; the rows in BUILD/vm-measure-KERNEL
measure()
{
	local out=$BUILD/vm-measure-$1

	rm -rf "$out"
	say "measuring on the $2 kernel"
	"$REPO/scripts/vm/boot.sh" --kernel "$1" --out "$out" --append cma=256M --timeout 400 -- \
		scripts/measure/guest-run "$BUILD/selftests/cma_gup_bench" "$2" >&2
	[[ -s $out/rows.csv ]] || die "the measurement left no rows in $out"
}

print_table()
{
	awk -F, '
		BEGIN {
			row = "%-10s %-14s %6s %10s %9s %9s %9s %8s\n"
			printf row, "kernel", "waiting", "tried", "succeeded", "p50 ms", "p99 ms", "max ms", "IOPS"
		}
		NR > 1 {
			waiting = $2 == "-" ? "-" : $2 == 0 ? "off" : "on (" $2 " ms)"
			printf row, $1, waiting, $7, $8, $9, $10, $11, $12
		}' "$1"
	awk -F, 'NR == 2 {
		printf "(%d threads x %d hot buffers, %d KiB direct reads, completed after %g ms)\n",
			$3, $4, $5 / 1024, $6 / 1000 }' "$1"
}

# held FILE: with waiting on, did every allocation succeed?
held()
{
	awk -F, 'NR > 1 && $2 + 0 > 0 { rows++; if ($7 == 0 || $8 != $7) bad = 1 } END { exit bad || !rows }' "$1"
}

[[ $# -gt 0 ]] || die "usage: run.sh KERNEL..."
csv=$RESULTS/$([[ $# -gt 1 ]] && echo compare || echo run).csv
lock
"$REPO/scripts/packages.sh" tree build vm
for kernel in "$@"; do
	"$REPO/scripts/build/kernel.sh" lean "$kernel"
done
"$REPO/scripts/build/selftests.sh" cma_gup_bench
rows=()
for kernel in "$@"; do
	[[ $kernel == base ]] && name=unpatched || name=patched
	measure "$kernel" "$name"
	rows+=("$BUILD/vm-measure-$kernel/rows.csv")
done
mkdir -p "$RESULTS"
awk 'NR == 1 || !/^kernel,/' "${rows[@]}" >"$csv.tmp"
mv "$csv.tmp" "$csv"
print_table "$csv"
say "rows in $csv"
held "$csv" || die "with waiting on, not every allocation succeeded"
