#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The benchmark: four ways to deal with pins, measured in turn on one machine.
#
#   bench.sh full    three rounds; results to BUILD/bench
#   bench.sh quick   one short round; results to BUILD/bench-quick
#
# The ways, called kernels: unpatched; retry (the unpatched kernel, 5 retries
# 100 ms apart); longterm (the unpatched one with FOLL_LONGTERM for direct I/O);
# patched. The loads are in bench/loads.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"

RETRY='--retries 5 --retry-ms 100'

case ${1:-} in
full) column=2 rounds=3 out=$BUILD/bench ;;
quick) column=3 rounds=1 out=$BUILD/bench-quick ;;
*) die "usage: bench.sh full|quick" ;;
esac

# loads KERNEL GUEST: the loads for that, as guest-bench wants them
loads()
{
	awk -v column="$column" -v kernel="$1" -v guest="$2" '
		/^#/ || !NF { next }
		$5 == guest && $column > 0 && ($4 == "all" || index("," $4 ",", "," kernel ",")) {
			line = $1 " " $column
			for (i = 6; i <= NF; i++)
				line = line " " $i
			print line
		}' "$REPO/bench/loads"
}

# guest ROUND KERNEL GUEST BOOT-OPTION...: run the loads for that
guest()
{
	local kernel=$2 dir=$out/$1-$2-$3 image=$2 retry=''

	case $kernel in
	unpatched) image=base ;;
	retry) image=base retry=$RETRY ;;
	patched) image=series ;;
	esac
	mkdir -p "$dir"
	loads "$kernel" "$3" | sed "s/\$/ $retry/" >"$dir/loads"
	[[ -s $dir/loads ]] || return 0
	boot "round $1, $kernel, guest $3: $(wc -l <"$dir/loads") loads" "$image" "$dir" "${@:4}" \
		-- scripts/measure/guest-bench "$BUILD/selftests/cma_gup_bench" "$kernel" "$dir/loads"
	[[ ! -e $dir/failed ]] ||
		say "note: not measured, see $dir/log: $(tr '\n' ' ' <"$dir/failed")"
}

# boot TEXT IMAGE DIR OPTION... -- PROGRAM ARG...
boot()
{
	try "$1 ($(date +%H:%M:%S))" "$3/log" \
		"$REPO/scripts/vm/boot.sh" --kernel "$2" --out "$3" --timeout 3000 "${@:4}"
}

# count KERNEL IMAGE SUFFIX CMA: instructions of a pin; SUFFIX for the names
count()
{
	local dir=$out/count-$1-$3 image=$2

	mkdir -p "$dir"
	boot "counting on the $1 kernel" "$image" "$dir" --count --mem 1536M --append "$4" -- "$BUILD/selftests/cma_gup_bench" --pin-cost \
		--kernel "$1" --samples "$dir/counted.csv"
	# The guest's clock counts instructions.
	sed "s/,\([a-z]*-[^,]*\),pin_ns,/,\1$3,insns,/; s/,\([a-z]*-[^,]*\),unpin_ns,/,unpin-\1$3,insns,/" \
		"$dir/counted.csv" >"$dir/samples.csv"
}

machine()
{
	echo "$(date -u +%Y-%m-%d) $(git -C "$REPO" describe --always --dirty)"
	echo "host: $(sed -n 's/^model name.*: //p;T;q' /proc/cpuinfo), $(nproc) CPUs," \
		"$(awk '/MemTotal/ { print int($2 / 1048576) " GB" }' /proc/meminfo)"
	echo "guest: $(qemu-system-x86_64 --version | head -n 1), $(cut -d' ' -f1 "$BUILD/accel"), 2 CPUs"
	echo "compiler: $(gcc --version | head -n 1)"
}

lock
"$REPO/scripts/packages.sh" tree build selftests vm bench
for kernel in base longterm series; do
	"$REPO/scripts/build/kernel.sh" build "$kernel"
done
"$REPO/scripts/build/selftests.sh"
rm -rf "$out"
mkdir -p "$out"
for ((round = 1; round <= rounds; round++)); do
	for kernel in unpatched retry longterm patched; do
		guest "$round" "$kernel" 64m --mem 448M --append cma=64M
		guest "$round" "$kernel" 256m --append cma=256M
		guest "$round" "$kernel" 2g --mem 3G --append cma=2G
	done
done
# One round of what is counted and not timed: it would come out the same again.
for kernel in unpatched longterm patched; do
	guest 1 "$kernel" count --count --mem 448M --append cma=64M
done
for kernel in unpatched:base patched:series; do
	count "${kernel%:*}" "${kernel#*:}" '' cma=64M
	count "${kernel%:*}" "${kernel#*:}" -nocma cma=0
done
machine >"$out/machine.txt"
find "$out" -name samples.csv | sort | xargs "$REPO/bench/analyse.py" "$out"
gnuplot -e "dir='$out'" "$REPO/bench/plots.gp"
cat "$out/tables.txt"
say "tables, results.csv and plots in $out"
