#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Compile the series' selftest programs into BUILD/selftests, by the rules of
# the kernel tree. Beside them comes the tool cma_pins.sh, with page-types for it.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"

lock
out=$BUILD/selftests
mkdir -p "$out"
programs=(cma_gup_pin cma_gup_dio cma_gup_cycle cma_gup_wait cma_gup_users cma_gup_stress cma_gup_bench
	cma_scenario cma_cases)
try "compiling the selftests" "$out.log" \
	make -C "$TREE/tools/testing/selftests/mm" OUTPUT="$out" "${programs[@]/#/$out/}"
try "compiling tools/mm/page-types" "$out.log" make -C "$TREE/tools/mm" page-types
cp "$TREE"/tools/mm/page-types "$TREE"/tools/mm/cma_pins.sh "$out"
