#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# All fast tests. Every test gives one line "ok" or "not ok"; the last line is
# the count, and the exit status tells whether all is well.

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

# report NAME CMD...: a single test, its exit status the verdict
report()
{
	local name=$1

	shift
	if "$@" >&2; then
		echo "ok - $name"
	else
		echo "not ok - $name"
	fi
}

# quiet_log DIR: nothing in the guest's kernel log that a developer must look at
quiet_log()
{
	! grep -n -E 'WARNING: |BUG: |INFO: (task|rcu)|Oops|UBSAN|possible (circular|recursive)' \
		"$1/console.log"
}

build_all()
{
	report "the patched kernel builds" scripts/kernel.sh build series
	report "the selftest compiles" scripts/selftests.sh
}

kunit()
{
	local status=0

	scripts/vm.sh --kernel series --out vm-kunit --timeout 300 \
		--append 'cma=64M kunit.autorun=1 kunit.filter_glob=pin_gate*' -- true >&2 || status=$?
	grep -E '^\[[^]]*\] *(KTAP|1\.\.|(not )?ok |# )' "$BUILD/vm-kunit/console.log"
	return $status
}

kselftest()
{
	scripts/vm.sh --kernel series --out vm-kselftest --append cma=256M --timeout 900 -- \
		"$BUILD/selftests/cma_gup_pin"
}

kernel_logs()
{
	report "no warning under KUnit" quiet_log "$BUILD/vm-kunit"
	report "no warning under the kselftest" quiet_log "$BUILD/vm-kselftest"
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
scripts/packages.sh tree lint build vm
rm -rf "$OUT"
mkdir -p "$OUT"
: >"$TOTAL"
step harness scripts/test-harness.sh
step series scripts/series.sh check
step lint scripts/lint.sh
step build build_all
if ! grep -q '^not ok - build' "$TOTAL"; then
	step guest scripts/test-guest.sh
	step kunit kunit
	step kselftest kselftest
	step log kernel_logs
fi
finish
