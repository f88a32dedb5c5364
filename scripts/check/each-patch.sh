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
IMAGE=arch/x86/boot/bzImage

# id COMMIT: all that its result depends on
id()
{
	{
		kernel_id "$1"
		cat "$CELLS" "$REPO/configs/lean"
	} | hash_id
}

# build N CELL: in a folder that the patches share, for what they do not touch
build()
{
	local dir=$OUT/$2 log=$OUT/$1.$2.log targets=("${IMAGE##*/}")

	cell_config "$2" "$dir" >"$log" 2>&1 || return
	[[ $2 == boot ]] || readarray -t targets < <(cell_parts "$2" "$dir")
	cell_make "$2" "$dir" -k "${targets[@]}" >"$log" 2>&1
}

# new_warnings N: of all cells, those that no build of the base has shown
new_warnings()
{
	warnings "$OUT/$1".*.log | sort -u | comm -23 - "$OUT/warnings.base" || :
}

# kunit N: boot it; all suites have to pass and the kernel must not complain
kunit()
{
	local out=$OUT/vm results=$OUT/$1.kunit

	"$REPO/scripts/vm/boot.sh" --kernel "$OUT/boot/$IMAGE" --out "$out" --timeout 900 \
		--append 'cma=64M kunit.autorun=1' -- true >&2 || return
	ktap "$out" | awk -v group=kunit -f "$REPO/scripts/check/tap.awk" >"$results"
	! grep '^not ok' "$results" >&2 && quiet_log "$out" >&2
}

# check N COMMIT: print a verdict
check()
{
	local cell log new

	at "$2"
	for cell in $(cell_names); do
		log=$OUT/$1.$cell.log
		BEAT_LOG=$log with_heartbeat "patch $1, $cell" build "$1" "$cell" && continue
		first_errors "$log"
		say "patch $1 does not build in the configuration $cell: see $log"
		echo "FAILED:$cell"
		return
	done
	[[ $1 -ne 0 ]] || warnings "$OUT"/0.*.log | sort -u >"$OUT/warnings.base" || :
	new=$(new_warnings "$1")
	if [[ -n $new ]]; then
		say "$new"
		echo WARNINGS
	elif with_heartbeat "patch $1, KUnit" kunit "$1"; then
		echo ok
	else
		cp "$OUT/vm/console.log" "$OUT/$1.console"
		say "patch $1 does not pass its KUnit suites: see $OUT/$1.console"
		echo FAILED:kunit
	fi
}

# result N COMMIT: "verdict seconds kunit-results" of what is there now
result()
{
	local line

	line=$(cat "$OUT/$1.result" 2>/dev/null) && [[ ${line%% *} == "$(id "$2")" ]] && echo "${line#* }" || echo '- - -'
}

# run N COMMIT
run()
{
	local start=$SECONDS verdict

	verdict=$(check "$1" "$2")
	echo "$(id "$2") $verdict $((SECONDS - start)) $(grep -c ^ok "$OUT/$1.kunit" 2>/dev/null)" >"$OUT/$1.tmp"
	mv "$OUT/$1.tmp" "$OUT/$1.result"
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

table()
{
	local n same

	{
		echo "patch result seconds kunit subject"
		for n in "${!commits[@]}"; do
			same=$(same_as "$n")
			[[ $same -eq $n ]] && echo "$n $(result "$n" "${commits[n]}")" || echo "$n as:$same - -"
		done | while read -r n line; do
			echo "$n $line $(tgit log -1 --format=%s "${commits[n]}")"
		done
	} | column -t -l 5 >"$OUT/table.tmp"
	mv "$OUT/table.tmp" "$OUT/table"
	cat "$OUT/table"
}

lock
"$REPO/scripts/packages.sh" tree build matrix vm
"$REPO/scripts/series/convert.sh" tree
mkdir -p "$OUT"
need_space 8 "the builds of each patch"
readarray -t commits < <(tgit rev-parse base && tgit rev-list --reverse base..series)
wanted=("$@")
[[ $# -gt 0 ]] || wanted=("${!commits[@]}")
failed=0
# Without the base's own warnings there is nothing to compare with.
for n in 0 "${wanted[@]}"; do
	[[ $n =~ ^[0-9]+$ && $n -lt ${#commits[@]} ]] || die "there is no patch $n: give numbers from 0 to $((${#commits[@]} - 1))"
	n=$(same_as "$n")
	[[ $(result "$n" "${commits[n]}") == ok\ * ]] || run "$n" "${commits[n]}"
	[[ $(result "$n" "${commits[n]}") == ok\ * ]] || failed=1
done
table
exit "$failed"
