#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The long tests, for about DURATION seconds: half of it pinners are killed at
# random while they wait, half of it allocations keep pinners waiting. Ends with
# an account of what is different afterwards.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

check_var DURATION '[1-9][0-9]{1,5}' 'seconds from 10 on, such as 1200'
DURATION=${DURATION:-1200}
OUT=$BUILD/vm-stress

# Small areas: the more often are they allocated. At the default DURATION these
# are 10000 waiters and ten minutes.
stress()
{
	"$REPO/scripts/vm.sh" --kernel series --out "$OUT" \
		--append 'cma=96M numa_cma=0:64M loglevel=5' --timeout $((DURATION * 3 + 600)) -- \
		env CMA_GUP_STRESS_WAITERS=$((DURATION * 25 / 3)) \
		CMA_GUP_STRESS_SECONDS=$((DURATION / 2)) \
		scripts/guest-stress "$BUILD/selftests/cma_gup_stress"
}

lock
"$REPO/scripts/packages.sh" tree build selftests vm
"$REPO/scripts/kernel.sh" build series
"$REPO/scripts/selftests.sh"
with_heartbeat "stress on the patched kernel for about $DURATION s" stress ||
	die "the stress test failed: see above, and $OUT/console.log"
quiet_log "$OUT" || die "the kernel warned: see $OUT/console.log"
