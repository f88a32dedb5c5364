#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A phone with little memory, after an update: one process reads a large image by
# direct I/O into memory that it has just mapped, and the camera wants memory for
# its frames. On both kernels; to BUILD/scenario.
#
# Exit status 0 if on the patched kernel no frame was missed because of pages
# that were in use.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"

OUT=$BUILD/scenario

# The frames are 3840 x 2160 in NV12. The camera is opened for 60 of them, holds
# the last 8, and is closed for half a second. Four readers of 1 MiB and 40 ms are
# a device with 100 MB/s. With small frames in a short queue (12 of 1080p), there
# is always some range without a pin, and the unpatched kernel misses none.
PARAMETERS=(--sessions 10 --frame-bytes 12441600 --queue 8 --session 60 --pause-ms 500
	--threads 4 --chunk-bytes 1048576 --completion-us 40000 --old-mb 4 --leave-mb 24)
MEMORY=512M
AREA=128M

# play KERNEL NAME: boot and run; the frames and a row in BUILD/vm-scenario-KERNEL
play()
{
	local out=$BUILD/vm-scenario-$1

	rm -rf "$out"
	say "camera and updater on the $2 kernel"
	"$REPO/scripts/vm/boot.sh" --kernel "$1" --out "$out" --mem "$MEMORY" --append "cma=$AREA" \
		--timeout 300 -- "$BUILD/selftests/cma_scenario" --kernel "$2" "${PARAMETERS[@]}" \
		--csv "$out/frames.csv" --table "$out/table.csv" >&2
	[[ -s $out/table.csv ]] || die "the scenario left no table in $out"
}

# put_together NAME: the files of that name of both kernels, with one header
put_together()
{
	cat "$BUILD/vm-scenario-base/$1" "$BUILD/vm-scenario-series/$1" |
		awk 'NR == 1 || !/^kernel,/' >"$OUT/$1"
}

table()
{
	awk -F, '
		BEGIN {
			printf "%-10s %6s %5s %5s %7s %8s %9s %9s\n", "", "frames", "", "", "", \
				"of these", "worst", "updater"
			row = "%-10s %6s %5s %5s %7s %8s %9s %9s\n"
			printf row, "kernel", "asked", "got", "late", "missed", "no room", "ms", "MB/s"
		}
		NR > 1 { printf row, $1, $2, $3, $4, $5, $6, $7, $8 }' "$OUT/table.csv"
	cat <<-END

	late: got, but more than 33 ms after it should have been asked for
	missed: the heap had no memory; no room: nor could it have had any, because the
	camera's own frames leave no piece of that size
	parameters: guest of $MEMORY, cma=$AREA, ${PARAMETERS[*]}
	END
}

# held: was no frame missed on the patched kernel that there was room for?
held()
{
	awk -F, '$1 == "patched" { rows++; if ($5 > $6) bad = 1 } END { exit bad || !rows }' "$OUT/table.csv"
}

lock
"$REPO/scripts/packages.sh" tree build selftests vm bench
for kernel in base series; do
	"$REPO/scripts/build/kernel.sh" build "$kernel"
done
"$REPO/scripts/build/selftests.sh"
play base unpatched
play series patched
mkdir -p "$OUT"
put_together frames.csv
put_together table.csv
table >"$OUT/table.txt"
gnuplot -e "dir='$OUT'" "$REPO/bench/scenario.gp"
cat "$OUT/table.txt"
say "frames, table and timeline in $OUT"
held || die "frames were missed on the patched kernel because of pages that were in use"
