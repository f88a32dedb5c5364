#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Tests of scripts/vm/boot.sh, of boot parameters, of ext4 and of tools/mm/cma_pins.sh,
# on the patched kernel, as TAP.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"

out=$BUILD/vm-guest
said=$BUILD/test-guest.log

# expect NAME STATUS TEXT ARG...: what a guest has to end with and to say
expect()
{
	local last=0

	"$REPO/scripts/vm/boot.sh" --kernel series --out "$out" --timeout 120 "${@:4}" >"$said" 2>&1 || last=$?
	if [[ $last -eq $2 ]] && grep -q -- "$3" "$said"; then
		echo "ok - $1"
	else
		echo "not ok - $1"
		echo "# status $last, wanted $2 and: $3"
		tail -n 8 "$said" | sed 's/^/# /'
	fi
}

expect "a command's output and exit status come back" 7 "it's 0" \
	-- sh -c "echo \"it's\" \$(id -u); echo kept >\$VM_OUT/file; exit 7"
report "the shared folder is writable" grep -qx kept "$out/file"
expect "the host's root is read-only" 1 'Read-only file system' -- sh -c "touch '$REPO/written' 2>&1"
expect "a panic is one clear message" 125 'error: the guest panicked (sysrq triggered crash' \
	-- sh -c 'echo c >/proc/sysrq-trigger'
expect "a hung guest is ended at its time limit" 125 'error: the guest did not end within 40 s' \
	--timeout 40 -- sh -c 'echo started; sleep 1000'
expect "a kernel that does not exist is named" 1 "error: no kernel at $BUILD/kernel-none" --kernel none -- true
expect "cma_drain_budget_ms= sets the budget of an area" 0 '^321$' \
	--append 'cma=64M cma_drain_budget_ms=321' -- sh -c 'cat /sys/kernel/mm/cma/*/drain_budget_ms'
expect "a malformed cma_drain_budget_ms= leaves the default" 0 '^1000$' \
	--append 'cma=64M cma_drain_budget_ms=1s' -- sh -c 'cat /sys/kernel/mm/cma/*/drain_budget_ms'
expect "what ext4 has in its journal is not in the way" 0 'case=1a-dirty .* tried=1 ok=1 ' \
	--mem 256M --append cma=128M -- "$BUILD/selftests/cma_cases" -n 1 1a
expect "cma_pins: nothing failed" 1 '^No allocation failed; 0 had to wait for pins.$' \
	--mem 448M --append cma=64M -- scripts/tests/guest-pins "$BUILD/selftests"
report "cma_pins tells that pins are the reason" \
	grep -q '^Allocations failed because of pins that outlast the budget.$' "$said"
report "cma_pins names the process that has the page" grep -q '^   mapped by cma_gup_bench (pid [0-9]*)$' "$said"
report "cma_pins counts the failures, and what they met" \
	grep -q '^busy: of [1-9][0-9]* failures, [1-9][0-9]* met pinned folios in the area, ' "$said"
report "the kernel says that pins were in the way" \
	grep -q 'alloc failed, .*, busy: in the area, [1-9][0-9]* folios are pinned' "$out/console.log"
