#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Every patch of the series, by itself:
#
#   each-patch.sh [N...]    all of them, or patches by number; 0 is the base
#
# Each is built in the configurations of configs/each-patch, without warnings that
# the base has not got, and booted with the KUnit suites that it has by then.
# What was ok is not built again before the kernel or a configuration changes.
# Patches after which the kernel is the same, as they bring tests or
# documentation, share a result. The table is in BUILD/each-patch/table, too; the
# logs of a patch in BUILD/each-patch/N.*.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=scripts/check/config-cells.sh
. "$REPO/scripts/check/config-cells.sh"

OUT=$BUILD/each-patch
CELLS=$REPO/configs/each-patch

# id N
id()
{
	{
		kernel_id "${commits[$1]}"
		cat "$CELLS"
		wanted_options "$REPO/configs/lean" "$REPO/configs/test"
	} | hash_id
}

# kunit N: boot it; all suites have to pass and the kernel must not complain
kunit()
{
	local out=$OUT/$1.vm results=$OUT/$1.kunit

	"$REPO/scripts/vm/boot.sh" --kernel "$OUT/boot/arch/x86/boot/bzImage" --out "$out" --timeout 900 \
		--append 'cma=64M kunit.autorun=1' -- true || return
	ktap "$out" | awk -v group=kunit -f "$REPO/scripts/check/tap.awk" >"$results"
	! grep '^not ok' "$results" && quiet_log "$out"
}

# check N: its number is that of the KUnit tests. The builds share folders, for what
# the patches do not touch.
check()
{
	local cell new

	at "${commits[$1]}"
	for cell in $(cell_names); do
		try "patch $1, $cell" "$OUT/$1.$cell.log" cell_build "$cell" "$OUT/$cell" || {
			echo "FAILED:$cell 0"
			return
		}
	done
	new=$(comm -23 <(warnings "$OUT/$1".*.log) <(warnings "$OUT"/0.*.log))
	if [[ -n $new ]]; then
		say "$new"
		echo WARNINGS 0
	elif try "patch $1, KUnit" "$OUT/$1.boot" kunit "$1"; then
		echo "ok $(grep -c ^ok "$OUT/$1.kunit")"
	else
		echo FAILED:kunit 0
	fi
}

# same_as N: the patch with the result for this one: the last that changes the kernel
same_as()
{
	local n=$1

	while [[ $n -gt 0 && $(kernel_id "${commits[n]}") == "$(kernel_id "${commits[n - 1]}")" ]]; do
		n=$((n - 1))
	done
	echo "$n"
}

lock
"$REPO/scripts/packages.sh" tree build matrix vm
"$REPO/scripts/series/convert.sh" tree
mkdir -p "$OUT"
need_space 8 "the objects of a build"
readarray -t commits < <(tgit rev-parse base && tgit rev-list --reverse base..series)
rows=(0)
for n in "${@:-${!commits[@]}}"; do
	[[ $n =~ ^[0-9]+$ && $n -lt ${#commits[@]} ]] || die "there is no patch $n: give numbers from 0 to $((${#commits[@]} - 1))"
	rows+=("$(same_as "$n")")
done
# Without the base's own warnings there is nothing to compare with.
check_rows "${rows[@]}"
{
	echo "patch result seconds kunit subject"
	for n in "${!commits[@]}"; do
		same=$(same_as "$n")
		[[ $same -eq $n ]] && line=$(result "$n") || line="as:$same - -"
		echo "$n $line $(tgit log -1 --format=%s "${commits[n]}")"
	done
} | finish
