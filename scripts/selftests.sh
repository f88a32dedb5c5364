#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Compile the series' selftest programs into BUILD/selftests, by the rules of
# the kernel tree.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

lock
out=$BUILD/selftests
log=$out.log
mkdir -p "$out"
make -C "$TREE/tools/testing/selftests/mm" OUTPUT="$out" "$out/cma_gup_pin" >"$log" 2>&1 || {
	tail -n 12 "$log" >&2
	die "compiling the selftest failed: see $log"
}
