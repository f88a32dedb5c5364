#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The long tests, for about DURATION seconds: half of it pinners are killed at
# random while they wait, half of it allocations keep pinners waiting, with an
# account of what is different afterwards. Then somebody holds a pin for 30 s.

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

owner()
{
	"$REPO/scripts/vm.sh" --kernel series --out "$OUT-owner" --append cma=256M --timeout 600 -- \
		env CMA_GUP_CYCLE_OWNER_MS=30000 "$BUILD/selftests/cma_gup_cycle" -f owner
}

# run NAME TEXT: one of these, in a guest that must not have anything to say
run()
{
	local out=$OUT

	[[ $1 == stress ]] || out+=-$1
	with_heartbeat "$2" "$1" || die "the test failed: see above, and $out/console.log"
	quiet_log "$out" || die "the kernel warned: see $out/console.log"
}

lock
"$REPO/scripts/packages.sh" tree build selftests vm
"$REPO/scripts/kernel.sh" build series
"$REPO/scripts/selftests.sh"
run stress "stress on the patched kernel for about $DURATION s"
run owner "a pin of 30 s"
