#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Tests of scripts/vm/boot.sh, of boot parameters and of tools/mm/cma_pins.sh, on the patched
# kernel, as TAP.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"

out=$BUILD/vm-guest
said=$BUILD/test-guest.log

guest()
{
	"$REPO/scripts/vm/boot.sh" --kernel series --out "$out" --timeout 120 "$@" >"$said" 2>&1
}

# expect NAME STATUS TEXT: what the last guest had to end with and to say
expect()
{
	local name=$1 status=$2

	if [[ $last -eq $status ]] && grep -q -- "$3" "$said"; then
		echo "ok - $name"
	else
		echo "not ok - $name"
		echo "# status $last, wanted $status and: $3"
		tail -n 8 "$said" | sed 's/^/# /'
	fi
}

last=0
guest -- sh -c "echo \"it's\" \$(id -u); echo kept >\$VM_OUT/file; exit 7" || last=$?
expect "a command's output and exit status come back" 7 "it's 0"
[[ $(cat "$out/file") == kept ]] && echo "ok - the shared folder is writable" ||
	echo "not ok - the shared folder is writable"

last=0
guest -- sh -c "touch '$REPO/written' 2>&1" || last=$?
expect "the host's root is read-only" 1 'Read-only file system'

last=0
guest -- sh -c 'echo c >/proc/sysrq-trigger' || last=$?
expect "a panic is one clear message" 125 'error: the guest panicked (sysrq triggered crash'

last=0
guest --timeout 40 -- sh -c 'echo started; sleep 1000' || last=$?
expect "a hung guest is ended at its time limit" 125 'error: the guest did not end within 40 s'

last=0
guest --kernel none -- true || last=$?
expect "a kernel that does not exist is named" 1 "error: no kernel at $BUILD/kernel-none"

last=0
guest --append 'cma=64M cma_drain_budget_ms=321' -- sh -c 'cat /sys/kernel/mm/cma/*/drain_budget_ms' || last=$?
expect "cma_drain_budget_ms= sets the budget of an area" 0 '^321$'

last=0
guest --append 'cma=64M cma_drain_budget_ms=1s' -- sh -c 'cat /sys/kernel/mm/cma/*/drain_budget_ms' || last=$?
expect "a malformed cma_drain_budget_ms= leaves the default" 0 '^1000$'

last=0
guest --mem 448M --append cma=64M -- scripts/tests/guest-pins "$BUILD/selftests" || last=$?
expect "cma_pins: nothing failed" 1 '^No allocation failed; 0 had to wait for pins.$'
expect "cma_pins tells that pins are the reason" 1 '^Allocations failed because of pins that outlast the budget.$'
expect "cma_pins names the process that has the page" 1 '^   mapped by cma_gup_bench (pid [0-9]*)$'
