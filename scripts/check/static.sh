#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What static checkers say about the files of the series, but not about those of
# the base, as TAP. kernel-doc is in docs.sh, codespell and checkpatch in lint.sh.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=scripts/check/config-cells.sh
. "$REPO/scripts/check/config-cells.sh"

OUT=$BUILD/static
# The cell that has all files of the series
CELL=users
# What Debian's sparse does not know. Without __typeof_unqual__, Kbuild leaves
# sparse out and goes on; at a strlen() that is no constant, which each MODULE_*
# line has, sparse stops.
SPARSE="sparse -D__typeof_unqual__=__typeof__ '-D__builtin_strlen(s)=(sizeof(s)-1)'"

# run_sparse REV
run_sparse()
{
	local file objects=() log=$OUT/sparse.$1.log

	at "$1" || return
	(cell_config "$CELL" "$OUT/kernel") >"$log" 2>&1 || die "$CELL could not be configured: see $log"
	for file in $(touched); do
		[[ ! -e $SRC/$file ]] || objects+=("${file%c}o")
	done
	cell_make "$CELL" "$OUT/kernel" C=2 CHECK="$SPARSE" "${objects[@]}" >"$log" 2>&1 ||
		die "the $1 does not build in $OUT/kernel: see $log"
	for file in "${objects[@]}"; do
		grep -q "^ *CHECK .*${file%o}c$" "$log" || die "sparse did not look at ${file%o}c: see $log"
	done
	warnings "$log"
}

# run_cocci REV: all semantic patches of the kernel that can report, on copies of
# the files, as coccicheck takes folders
run_cocci()
{
	local dir=$OUT/files log=$OUT/cocci.$1.log files

	at "$1" || return
	rm -rf "$dir"
	mkdir "$dir"
	readarray -t files < <(tgit diff --name-only --no-renames base series -- '*.[ch]')
	readarray -t files < <(tgit ls-tree -r --name-only "$1" -- "${files[@]}")
	tgit archive "$1" "${files[@]}" | tar -x -C "$dir" || return
	cell_make "$CELL" "$OUT/kernel" coccicheck MODE=report J="$JOBS" M="$dir" >"$log" 2>&1 ||
		die "coccicheck failed: see $log"
	sed -n -E "s,^$dir/,,; t found; b; : found; s/:[0-9]+:[0-9]+(-[0-9]+)?:/:/; p" "$log" | sort
}

# analyze: GCC's analyzer on the selftest programs; it is not made for the kernel
analyze()
{
	local dir=$SRC/tools/testing/selftests/mm out=$OUT/selftests programs log=$OUT/analyze.log

	at series || return
	rm -rf "$out"
	mkdir "$out"
	readarray -t programs < <(sed -n "s,^TEST_GEN_FILES += \(cma_.*\),$out/\1,p" "$dir/Makefile")
	make -C "$dir" OUTPUT="$out" EXTRA_CFLAGS=-fanalyzer "${programs[@]}" >"$log" 2>&1 ||
		die "the selftests do not compile: see $log"
	warnings "$log" | grep '^cma_' | sort -u || :
}

# nothing_new NAME TOOL: the base is looked at only if there is something to compare
nothing_new()
{
	local rev

	: >"$OUT/$2.base"
	for rev in series base; do
		with_heartbeat "$2 $rev" "$2" "$rev" >"$OUT/$2.$rev" || {
			echo "not ok - $1: $2 $rev did not work"
			failed=1
			return
		}
		[[ -s $OUT/$2.series ]] || break
	done
	report_silent "$1" comm -23 "$OUT/$2.series" "$OUT/$2.base"
}

failed=0
lock
"$REPO/scripts/packages.sh" tree build selftests static
"$REPO/scripts/series/convert.sh" tree
mkdir -p "$OUT"
nothing_new "sparse reports nothing new about $(touched | wc -l) files" run_sparse
# A file that it stops at is not checked, be that because of the base.
grep 'error: ' "$OUT/run_sparse.series" | sort -u | sed 's/.*/ok - sparse reads all files # SKIP it stops at &/' || :
nothing_new "Coccinelle reports nothing new" run_cocci
report_silent "GCC's analyzer has nothing to say about the selftests" analyze
exit "$failed"
