#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# All fast tests. Every test gives one line "ok" or "not ok"; the last line is
# the count, and the exit status tells whether all is well.
#
#   test.sh          what "make test" runs
#   test.sh debug    the part of it on a kernel that checks itself

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

OUT=$BUILD/test
TOTAL=$OUT/results

# step NAME CMD...: run a part of the tests, whose output is TAP
step()
{
	local name=$1 status=0

	shift
	say "=== $name"
	"$@" | tee "$OUT/$name.tap" >&2 || status=$?
	awk -v group="$name" -f scripts/tap.awk "$OUT/$name.tap" >"$OUT/$name.flat"
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
	report "the kernel $KERNEL builds" quietly scripts/kernel.sh build "$KERNEL"
	report "the selftests compile" quietly scripts/selftests.sh
}

kunit()
{
	local status=0

	scripts/vm.sh --kernel "$KERNEL" --out vm-kunit --timeout 600 \
		--append 'cma=64M kunit.autorun=1 kunit.filter_glob=pin_gate*' -- true >&2 || status=$?
	grep -E '^\[[^]]*\] *(KTAP|1\.\.|(not )?ok |# )' "$BUILD/vm-kunit/console.log"
	return $status
}

# selftest NAME APPEND PROGRAM [ARG...]: a guest of its own for that
selftest()
{
	scripts/vm.sh --kernel "$KERNEL" --out "vm-$1" --append "$2" --timeout 900 -- \
		"$BUILD/selftests/$3" "${@:4}"
}

# selftest_steps NAME APPEND PROGRAM [ARG...]: that, and what the kernel had to say
selftest_steps()
{
	step "$PREFIX$1" selftest "$@"
	step "$PREFIX$1_log" log "$1"
}

kunit_steps()
{
	step "${PREFIX}kunit" kunit
	step "${PREFIX}kunit_log" log kunit
}

all_steps()
{
	step harness scripts/test-harness.sh
	step series scripts/series.sh check
	step lint scripts/lint.sh
	step rfc scripts/test-rfc.sh
	step bench scripts/test-bench.sh
	step docs scripts/docs.sh
	step model verify/run.sh --quick
	step build build_all
	built || return 0
	step guest scripts/test-guest.sh
	kunit_steps
	selftest_steps pin cma=256M cma_gup_pin
	# scsi_debug loses the integrity metadata of atomic writes.
	selftest_steps dio 'cma=256M scsi_debug.dif=1 scsi_debug.dix=1' cma_gup_dio -F atomic
	selftest_steps dio_atomic 'cma=256M scsi_debug.atomic_wr=1' cma_gup_dio -f atomic
	selftest_steps cycle 'cma=256M scsi_debug.max_queue=1 scsi_debug.dev_size_mb=16' cma_gup_cycle
	selftest_steps wait 'movablecore=256M cma=256M@0-512M' cma_gup_wait
	selftest_steps users cma=256M cma_gup_users -F hugetlb
	MEM=2560M selftest_steps gigantic hugetlb_cma=1G cma_gup_users -f hugetlb
	selftest_steps stress 'cma=96M numa_cma=0:64M loglevel=5' cma_gup_stress
	step fio env DURATION=40 scripts/fio.sh
}

# debug_steps: on a kernel that checks itself, what can be had without a load,
# for which it is far too slow when emulated
debug_steps()
{
	KERNEL=series-small-debug
	PREFIX=debug_
	step debug_build build_all
	built || return 0
	kunit_steps
	selftest_steps pin cma=96M cma_gup_pin -F load
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

# count VERDICT: results that are neither more nor less than that
count()
{
	awk -v verdict="$1" '
		/# SKIP/ { n["skipped"]++; next }
		/^ok/ { n["passed"]++ }
		/^not ok/ { n["failed"]++ }
		END { print n[verdict] + 0 }' "$TOTAL"
}

finish()
{
	local passed failed skipped

	passed=$(count passed)
	failed=$(count failed)
	skipped=$(count skipped)
	echo
	grep '# SKIP' "$TOTAL" || :
	grep '^not ok' "$TOTAL" || :
	if [[ $skipped -gt 0 ]]; then
		echo "$passed passed, $failed failed, $skipped skipped"
	else
		echo "$passed passed, $failed failed"
	fi
	[[ $failed -eq 0 && $passed -gt 0 ]]
}

cd "$REPO"
lock
[[ $# -eq 0 || $* == debug ]] || die "usage: test.sh [debug]"
scripts/packages.sh tree lint rfc docs verify build selftests vm fio bench
rm -rf "$OUT"
mkdir -p "$OUT"
: >"$TOTAL"
KERNEL=series
PREFIX=
[[ $# -gt 0 ]] || all_steps
! built || debug_steps
finish
