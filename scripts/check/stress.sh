#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The long tests, for about DURATION seconds: a third of it pinners are killed at
# random while they wait, a third of it allocations keep pinners waiting, and then
# the same amid all kinds of other work on memory, with an account of what is
# different afterwards. At last somebody holds a pin for 30 s.
#
#   stress.sh           that
#   stress.sh faults    allocations keep pinners waiting, on the kernel that checks
#                       itself, and some allocations of memory and some I/O fail

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"

check_var DURATION '[1-9][0-9]{1,5}' 'seconds from 10 on, such as 1800'
[[ $* == faults ]] && DURATION=${DURATION:-600} || DURATION=${DURATION:-1800}
OUT=$BUILD/vm-stress
DEBUG=series-small-debug
PROGRAM=$BUILD/selftests/cma_gup_stress

# guest NAME KERNEL APPEND CMD...
guest()
{
	"$REPO/scripts/vm/boot.sh" --kernel "$2" --out "$OUT-$1" --append "$3" --timeout $((DURATION * 3 + 600)) -- "${@:4}"
}

# At the default DURATION these are 10000 waiters and ten minutes.
wait_and_kill()
{
	guest wait_and_kill series "$STRESS_AREAS" env CMA_GUP_STRESS_WAITERS=$((DURATION * 50 / 9)) \
		CMA_GUP_STRESS_SECONDS=$((DURATION / 3)) scripts/check/guest-stress "$PROGRAM" -T churn
}

churn()
{
	MEM=${MEM:-1G} guest churn series "$STRESS_AREAS" env PRESSURE=1 CMA_GUP_STRESS_SLACK_MS=4000 \
		CMA_GUP_STRESS_SECONDS=$((DURATION / 3)) scripts/check/guest-stress "$PROGRAM" -t churn
}

owner()
{
	guest owner series cma=256M env CMA_GUP_CYCLE_OWNER_MS=30000 "$BUILD/selftests/cma_gup_cycle" -f owner
}

# Emulated, the kernel that checks itself is a slow one.
faults()
{
	guest faults "$DEBUG" "$STRESS_AREAS" env FAULTS=1 CMA_GUP_STRESS_ERRORS=1 CMA_GUP_STRESS_SLACK_MS=15000 \
		CMA_GUP_STRESS_SECONDS="$DURATION" scripts/check/guest-stress "$PROGRAM" -t starvation
}

# run NAME TEXT: one of these, in a guest that must not have anything to say
run()
{
	with_heartbeat "$2" "$1" || die "the test failed: see above, and $OUT-$1/console.log"
	quiet_log "$OUT-$1" || die "the kernel warned: see $OUT-$1/console.log"
}

lock
"$REPO/scripts/packages.sh" tree build selftests vm
case ${1:-stress} in
stress)
	"$REPO/scripts/packages.sh" stress
	"$REPO/scripts/build/kernel.sh" build series
	"$REPO/scripts/build/selftests.sh"
	run wait_and_kill "waiters that are killed or get on, for about $((DURATION * 2 / 3)) s"
	run churn "the same amid other work on memory, for about $((DURATION / 3)) s"
	run owner "a pin of 30 s"
	;;
faults)
	"$REPO/scripts/build/kernel.sh" build "$DEBUG"
	"$REPO/scripts/build/selftests.sh"
	run faults "allocations and I/O that fail at random, for about $DURATION s"
	;;
*) die "usage: stress.sh [faults]" ;;
esac
