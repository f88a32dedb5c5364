#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Compile the series' selftest programs into BUILD/selftests, by the rules of
# the kernel tree, and beside them the tool cma_pins.sh, with page-types for it:
#
#   selftests.sh            all
#   selftests.sh PROGRAM    only that

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"

lock
out=$BUILD/selftests
# A backport is tested by the programs of the series, which find out what there is.
if [[ $BASE != 7.3 ]]; then
	ln -sfn "$SERIES_BUILD/selftests" "$out"
	series_tree
	unset BUILD_LOCKED
	export BASE=7.3 BUILD=$SERIES_BUILD
	exec "$0" "$@"
fi
mkdir -p "$out"
programs=("$@")
if [[ $# -eq 0 ]]; then
	programs=(cma_gup_pin cma_gup_dio cma_gup_cycle cma_gup_wait cma_gup_users cma_gup_stress
		cma_gup_bench cma_scenario cma_cases)
	# Libraries that were not there when it was asked for one program may be now.
	mm=$TREE/tools/testing/selftests/mm
	! grep -qs 'No .* support' "$mm/local_config.mk" || rm "$mm/local_config.mk" "$mm/local_config.h_gen"
fi
try "compiling the selftests" "$out.log" \
	make -C "$TREE/tools/testing/selftests/mm" OUTPUT="$out" "${programs[@]/#/$out/}"
[[ $# -eq 0 ]] || exit 0
try "compiling tools/mm/page-types" "$out.log" make -C "$TREE/tools/mm" page-types
cp "$TREE"/tools/mm/page-types "$TREE"/tools/mm/cma_pins.sh "$out"
