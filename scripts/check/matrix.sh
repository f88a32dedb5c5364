#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What the series touches, built in many configurations:
#
#   matrix.sh [CELL...]    the cells of configs/matrix, or these
#
# A cell is ok if all of it compiles without a warning that the base has not got
# as well, W=1 for the files of the series. What was ok is not built again
# before the kernel or the cell changes. The table at the end is in
# BUILD/matrix/table, too; the logs of a cell in BUILD/matrix/CELL*.log.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=scripts/check/config-cells.sh
. "$REPO/scripts/check/config-cells.sh"

OUT=$BUILD/matrix

# check_parts: a file that no part has would never be built here
check_parts()
{
	local file part

	while read -r file; do
		while read -r part _; do
			[[ $file != "$part"* && ${file%c}o != "$part" ]] || continue 2
		done < <(printf '%s\n' "${PARTS[@]}")
		die "the series touches $file, which no line of PARTS in scripts/check/config-cells.sh has: add one"
	done < <(touched)
}

# id CELL: all that its result depends on
id()
{
	{
		kernel_id series
		cell_line all
		cell_line "$1"
		cat "$REPO/configs/lean"
		dpkg-query -W -f '${binary:Package} ${Version}\n' 'gcc-1*' 'clang-1*' 2>/dev/null || gcc --version
	} | hash_id
}

# build CELL LOGS: all its parts, and the files of the series again with W=1
build()
{
	local out=$OUT/$1 parts file

	rm -rf "$out" "$2.w1.log"
	cell_config "$1" "$out" >"$2.log" 2>&1 || return
	readarray -t parts < <(cell_parts "$1" "$out")
	cell_make "$1" "$out" -k "${parts[@]}" >"$2.log" 2>&1 || return
	for file in $(touched); do
		[[ ! -e $out/${file%c}o ]] || echo "${file%c}o"
	done >"$out.objects"
	strict "$1" >"$2.w1.log" 2>&1
}

# strict CELL: of these files, those that SRC has, with W=1
strict()
{
	local object objects=()

	while read -r object; do
		rm -f "$OUT/$1/$object"
		[[ ! -e $SRC/${object%o}c ]] || objects+=("$object")
	done <"$OUT/$1.objects"
	cell_make "$1" "$OUT/$1" -k W=1 "${objects[@]}"
}

# new_warnings CELL: those that the base has not got. Only what W=1 warns about is
# seen often, so all of the base is built only if there is more than that.
new_warnings()
{
	local out=$OUT/$1

	warnings "$out.log" "$out.w1.log" >"$out.warnings" || return 0
	at base
	if warnings "$out.log" >/dev/null; then
		build "$1" "$out.base"
	else
		: >"$out.base.log"
		strict "$1" >"$out.base.w1.log" 2>&1
	fi || die "cell $1: the base does not build: see $out.base*.log"
	at series
	warnings "$out.base.log" "$out.base.w1.log" | comm -23 "$out.warnings" -
}

# run CELL: build it, and leave a result: its id, a verdict, seconds, warnings
run()
{
	local start=$SECONDS out=$OUT/$1 verdict=ok new='' log

	if ! BEAT_LOG=$out.log with_heartbeat "cell $1" build "$1" "$out"; then
		verdict=FAILED
		log=$out.w1.log
		[[ -e $log ]] || log=$out.log
		first_errors "$log"
		say "cell $1 failed: see $log"
	else
		new=$(new_warnings "$1")
		[[ -z $new ]] || {
			verdict=WARNINGS
			say "$new"
		}
		rm -rf "$out"
	fi
	echo "$(id "$1") $verdict $((SECONDS - start)) $(grep -c . <<<"$new")" >"$out.tmp"
	mv "$out.tmp" "$out.result"
}

# result CELL: "verdict seconds warnings" of what is there now
result()
{
	local line

	line=$(cat "$OUT/$1.result" 2>/dev/null) && [[ ${line%% *} == "$(id "$1")" ]] && echo "${line#* }" || echo '- - -'
}

table()
{
	local cell

	{
		echo "cell result seconds warnings"
		for cell in $(cell_names); do
			echo "$cell $(result "$cell")"
		done
	} | column -t >"$OUT/table.tmp"
	mv "$OUT/table.tmp" "$OUT/table"
	cat "$OUT/table"
}

lock
"$REPO/scripts/packages.sh" tree build matrix
"$REPO/scripts/series/convert.sh" tree
check_parts
cells=("$@")
[[ $# -gt 0 ]] || readarray -t cells < <(cell_names)
for cell in "${cells[@]}"; do
	cell_line "$cell" >/dev/null
done
mkdir -p "$OUT"
need_space 8 "the objects of a cell"
at series
failed=0
for cell in "${cells[@]}"; do
	[[ $(result "$cell") == ok\ * ]] || run "$cell"
	[[ $(result "$cell") == ok\ * ]] || failed=1
done
table
exit "$failed"
