#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Tests of the selftests as a user gets them: installed, carried to a machine without
# the kernel tree, and run there by the kernel's own scripts. As TAP.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"

installed=$BUILD/installed
out=$BUILD/vm-installed
said=$BUILD/test-installed.log

install_all()
{
	rm -rf "$installed"
	make -C "$TREE/tools/testing/selftests" -j"$JOBS" O="$BUILD/kselftest" TARGETS=mm install \
		INSTALL_PATH="$installed"
}

# section NAME: what the guest said in that part
section()
{
	sed -n "/^== $1\$/,/^== /p" "$said"
}

# missing SECTION TEXT...: the first line that is not there, in any order, and what is
missing()
{
	local part=$1 text

	shift
	for text; do
		section "$part" | grep -- "$text" >/dev/null && continue
		echo "wanted: $text"
		section "$part" | grep -E '^(#? ?(not )?ok|1\.\.|Bail)' | tail -n 12
		return
	done
}

"$REPO/scripts/packages.sh" installed
report "the selftests can be installed" try "installing the mm selftests" "$installed.log" install_all
[[ -d $installed/mm ]] || exit 0
"$REPO/scripts/vm/boot.sh" --kernel series --out "$out" --mem 1G --append cma=64M --timeout 600 -- \
	scripts/tests/guest-installed "$installed" "$TREE" >"$said" 2>&1 || :
report_silent "run_kselftest.sh runs them" missing run_kselftest '^ok 1 selftests: mm: ksft_cma.sh$'
report_silent "run_vmtests.sh runs cma_gup_pin and no other" missing run_vmtests '^# ok .* load.anon_read.whole_area' \
	'^ok 1 cma_gup_pin$' '^1\.\.1$'
report_silent "--expect-failure sees the unpatched behaviour" missing expect-failure '# 0 of 5 allocations succeeded' \
	'pass:1 fail:0 ' '# SKIP not with --expect-failure'
report_silent "a skip for want of root says so" missing user '# SKIP needs root'
report_silent "a skip for want of debugfs says so" missing "without debugfs" '# SKIP no /sys/kernel/debug/cma: needs debugfs'
report_silent "the guest came to its end" missing end '^== end'
