#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# All fast tests. Every test gives one line "ok" or "not ok"; the last line is
# the count, and the exit status tells whether all is well.
#
#   test.sh          what "make test" runs; for a backport, less
#   test.sh debug    the KUnit suites and the selftests on a kernel that checks itself
#   test.sh kcsan    the same on one that looks for data races
#   test.sh defconfig  cma_gup_pin on a kernel of the architecture's own defconfig

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"

OUT=$BUILD/test
TOTAL=$OUT/results

# step NAME CMD...: run a part of the tests, whose output is TAP
step()
{
	local name=$1 status=0

	shift
	say "=== $name"
	"$@" | tee "$OUT/$name.tap" >&2 || status=$?
	awk -v group="$name" -f scripts/check/tap.awk "$OUT/$name.tap" >"$OUT/$name.flat"
	[[ $status -eq 0 ]] || grep -q '^not ok' "$OUT/$name.flat" ||
		echo "not ok - $name: ended with status $status" >>"$OUT/$name.flat"
	cat "$OUT/$name.flat" >>"$TOTAL"
}

# quietly CMD...: what it says is not TAP
quietly()
{
	"$@" >&2
}

build_all()
{
	report "the kernel $KERNEL builds" quietly scripts/build/kernel.sh build "$KERNEL"
	report "the selftests compile" quietly scripts/build/selftests.sh
}

# build_steps NAME: that, and how long it took, in minutes
build_steps()
{
	local began=$SECONDS

	step "$1" build_all
	BUILD_MINUTES=$(((SECONDS - began) / 60))
}

kunit()
{
	local status=0

	scripts/vm/boot.sh --kernel "$KERNEL" --out vm-kunit --timeout 600 \
		--append 'cma=64M kunit.autorun=1 kunit.filter_glob=pin_gate*' -- true >&2 || status=$?
	ktap "$BUILD/vm-kunit"
	return $status
}

# selftest NAME APPEND PROGRAM [ARG...]: a guest of its own for that
selftest()
{
	scripts/vm/boot.sh --kernel "$KERNEL" --out "vm-$1" --append "$2" --timeout "$TIMEOUT" -- \
		env CMA_GUP_STRESS_SLACK_MS="$SLACK_MS" CMA_GUP_STRESS_SECONDS="$STRESS_SECONDS" \
		"$BUILD/selftests/$3" "${@:4}"
}

# selftest_steps NAME APPEND PROGRAM [ARG...]: that, and what the kernel had to say
selftest_steps()
{
	[[ $1 == pin ]] || in_time "$PREFIX$1" 2 || return 0
	step "$PREFIX$1" selftest "$@"
	step "$PREFIX$1_log" log "$1"
}

# in_time NAME MINUTES: is there that much time left for it? If not, it is skipped.
in_time()
{
	[[ $((SECONDS / 60 + $2)) -gt $TEST_MINUTES ]] || return 0
	say "=== $1: left out, it is late"
	echo "ok - $1 # SKIP it takes some $2 minutes, and TEST_MINUTES=$TEST_MINUTES would be over" >>"$TOTAL"
	return 1
}

kunit_steps()
{
	step "${PREFIX}kunit" kunit
	step "${PREFIX}kunit_log" log kunit
}

# size_steps: cma_gup_pin on machines of other sizes
size_steps()
{
	MEM=1G selftest_steps pin_1g cma=64M cma_gup_pin
	if awk '/^MemTotal:/ { exit $2 < 16 * 1024 * 1024 }' /proc/meminfo; then
		MEM=16G selftest_steps pin_16g cma=64M cma_gup_pin
	else
		echo "ok - pin_16g # SKIP this machine has less than 16 GB of memory" >>"$TOTAL"
	fi
}

# defconfig_steps: that machine has more of a kernel, and other zones
defconfig_steps()
{
	KERNEL=series-defconfig
	PREFIX=defconfig_
	build_steps build
	built || return 0
	selftest_steps pin cma=64M cma_gup_pin
	MEM=4G selftest_steps pin_4g cma=64M cma_gup_pin
	size_steps
}

all_steps()
{
	step harness scripts/tests/harness.sh
	step series scripts/series/convert.sh check
	step lint scripts/check/lint.sh
	step rfc scripts/tests/rfc.sh
	step bench scripts/tests/bench.sh
	step docs scripts/check/docs.sh
	step model verify/run.sh --quick
	build_steps build
	built || return 0
	step guest scripts/tests/guest.sh
	kunit_steps
	selftest_steps pin cma=256M cma_gup_pin
	size_steps
	! in_time installed 6 || step installed scripts/tests/installed.sh
	# scsi_debug loses the integrity metadata of atomic writes.
	selftest_steps dio 'cma=256M scsi_debug.dif=1 scsi_debug.dix=1' cma_gup_dio -V scsi_atomic
	selftest_steps dio_atomic 'cma=256M scsi_debug.atomic_wr=1' cma_gup_dio -v scsi_atomic
	more_selftest_steps
	# A slow kernel is kept busy by that many processes, and nobody gets to wait.
	selftest_steps kill "$STRESS_AREAS" cma_gup_stress -t kill
	MEM=2560M selftest_steps gigantic hugetlb_cma=1G cma_gup_users -f gigantic
	! in_time fio 2 || step fio env DURATION=40 scripts/check/fio.sh
}

measure()
{
	report "with waiting on, every allocation succeeds" quietly scripts/measure/run.sh series
}

# backport_steps: whether the code arrived; the rest is tested on the kernel of the series
backport_steps()
{
	step series scripts/series/convert.sh check
	step lint scripts/check/lint.sh
	build_steps build
	built || return 0
	kunit_steps
	selftest_steps pin cma=256M cma_gup_pin
	step measure measure
}

# slow_kernel NAME SLACK_MS: from here on that one, which needs so much longer; its
# KUnit suites
slow_kernel()
{
	KERNEL=series-small-$1
	PREFIX=$1_
	SLACK_MS=$2
	CHURN_SECONDS=90
	TIMEOUT=2400
	build_steps "$1_build"
	built && kunit_steps
}

# slow_selftest_steps: without the thread of SQPOLL, which leaves hardly any pins
# there on a slow kernel, so that no allocation meets one; sqpoll_iopoll is not asked
# for that
slow_selftest_steps()
{
	selftest_steps dio cma=256M cma_gup_dio
	more_selftest_steps -V sqpoll
}

# debug_short_steps: on a kernel that checks itself, for which a heavy load is too
# much when emulated
debug_short_steps()
{
	slow_kernel debug 15000 || return 0
	selftest_steps pin cma=96M cma_gup_pin -f gate -t good_budgets -t bad_budgets -v anon_verify \
		-v anon_vectors_verify -v thp_verify -v shmem_verify
	step debug_faults env DURATION="${DURATION:-20}" scripts/check/stress.sh faults
}

# more_selftest_steps [OPTION...]: those that any kernel can bear; options of
# cma_gup_wait
more_selftest_steps()
{
	selftest_steps cycle 'cma=256M scsi_debug.max_queue=1 scsi_debug.dev_size_mb=16' cma_gup_cycle
	selftest_steps wait 'movablecore=256M cma=256M@0-512M' cma_gup_wait "$@"
	selftest_steps users cma=256M cma_gup_users -F gigantic
	selftest_steps starvation "$STRESS_AREAS" cma_gup_stress -t starvation
	# Twice as many processes for two CPUs: a slow kernel needs longer until
	# allocations meet pins.
	SLACK_MS=$((SLACK_MS + 3000)) STRESS_SECONDS=$CHURN_SECONDS \
		selftest_steps churn "$STRESS_AREAS" cma_gup_stress -t churn
}

debug_steps()
{
	debug_short_steps
	built || return 0
	# KASAN and page_owner take memory away, and movablecore= needs the rest.
	export MEM="${MEM:-1G}"
	slow_selftest_steps
}

# changed_functions: of the kernel, what the series adds or edits, or is next to it
changed_functions()
{
	tgit diff -U0 base series -- '*.c' '*.h' ':!mm/tests' ':!tools' |
		sed -n -E 's/^@@[^@]*@@ //; t name; s/^\+([a-z])/\1/; t name; d
			: name; s/^([a-z_][^(]*[ *])?([a-z_0-9]+)\(.*/\2/p' | sort -u | tr '\n' ' '
}

# Next to what the series adds or edits, but of the base: the scheduler reads the flags of
# a task that changes them.
KNOWN_RACES='kthread_is_per_cpu / reclaim_clean_pages_from_list'

# races NAME: those that KCSAN has seen in that guest
races()
{
	local log=$BUILD/vm-$1/console.log

	echo "# $(grep -c 'BUG: KCSAN: ' "$log") data races, all in all"
	report_silent "none of them in what the series adds or edits" \
		awk -v functions="$(changed_functions)" -v known="$KNOWN_RACES" -f scripts/check/races.awk "$log"
}

# kcsan_steps: on a kernel that looks for data races
kcsan_steps()
{
	local name

	slow_kernel kcsan 4000 || return 0
	selftest_steps pin cma=256M cma_gup_pin
	slow_selftest_steps
	for name in kunit pin dio cycle wait users starvation churn; do
		step "kcsan_races_$name" races "$name"
	done
}

built()
{
	! grep -q '^not ok - [a-z_]*build' "$TOTAL"
}

# log NAME: of the guest of that name
log()
{
	report "no warning in the kernel log of $1" quietly quiet_log "$BUILD/vm-$1"
}

cd "$REPO"
lock
[[ ${1:-all} =~ ^(all|debug|kcsan|defconfig)$ ]] || die "usage: test.sh [debug|kcsan|defconfig]"
TESTS=${1:-all}
[[ $BASE == 7.3 ]] || TESTS=backport
if [[ $TESTS == backport ]]; then
	scripts/packages.sh tree lint build selftests vm
else
	scripts/packages.sh tree lint rfc docs verify build selftests vm fio bench
fi
rm -rf "$OUT"
mkdir -p "$OUT"
: >"$TOTAL"
# After so many minutes "make test" leaves out what is not done: the debug kernel
# first, then selftests from the last to the first, but never the KUnit suites and
# cma_gup_pin.
TEST_MINUTES=${TEST_MINUTES:-60}
[[ $TESTS == all ]] || TEST_MINUTES=99999
KERNEL=series
PREFIX=
SLACK_MS=1000
STRESS_SECONDS=20
CHURN_SECONDS=20
TIMEOUT=900
case $TESTS in
all)
	all_steps
	# Another kernel, which takes somewhat longer to build, and its tests. The first
	# one may have come from a compiler cache.
	minutes=$((BUILD_MINUTES * 5 / 4))
	[[ $minutes -ge 20 ]] || minutes=20
	! built || ! in_time "the debug kernel" $((minutes + 10)) || debug_short_steps
	;;
*) "${TESTS}_steps" ;;
esac
echo
summary "$TOTAL"
