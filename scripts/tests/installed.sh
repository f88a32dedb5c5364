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
		INSTALL_PATH="$installed" >"$said" 2>&1
}

# section NAME: what the guest said in that part
section()
{
	sed -n "/^== $1\$/,/^== /p" "$said"
}

# expect NAME SECTION TEXT...: lines that have to be there, in any order
expect()
{
	local name=$1 part=$2 text

	shift 2
	for text; do
		section "$part" | grep -- "$text" >/dev/null && continue
		echo "not ok - $name"
		echo "# wanted: $text"
		section "$part" | grep -E '^(#? ?(not )?ok|1\.\.|Bail)' | tail -n 12 | sed 's/^/# /'
		return
	done
	echo "ok - $name"
}

"$REPO/scripts/packages.sh" installed
if ! install_all; then
	echo "not ok - the selftests can be installed"
	grep -m 5 -E 'error|Error' "$said" | sed 's/^/# /' || :
	exit
fi
echo "ok - the selftests can be installed"
"$REPO/scripts/vm/boot.sh" --kernel series --out "$out" --mem 1G --append cma=64M --timeout 600 -- \
	scripts/tests/guest-installed "$installed" "$TREE" >"$said" 2>&1 || :
expect "run_kselftest.sh runs them" run_kselftest '^ok 1 selftests: mm: ksft_cma.sh$'
expect "run_vmtests.sh runs cma_gup_pin and no other" run_vmtests '^# ok .* load.anon_read.whole_area' \
	'^ok 1 cma_gup_pin$' '^1\.\.1$'
expect "--expect-failure sees the unpatched behaviour" expect-failure '# 0 of 5 allocations succeeded' \
	'pass:1 fail:0 ' '# SKIP not with --expect-failure'
expect "a skip for want of root says so" user '# SKIP needs root'
expect "a skip for want of debugfs says so" "without debugfs" '# SKIP no /sys/kernel/debug/cma: needs debugfs'
expect "the guest came to its end" end '^== end'
