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

# id CELL
id()
{
	{
		kernel_id series
		cell_line all
		cell_line "$1"
		wanted_options "$REPO/configs/lean" "$REPO/configs/test"
		dpkg-query -W -f '${binary:Package} ${Version}\n' 'gcc-1*' 'clang-1*' 2>/dev/null || gcc --version
	} | hash_id
}

# strict CELL: the files of the series that SRC has and that are configured, with W=1
strict()
{
	local file objects=()

	for file in $(touched); do
		[[ ! -e $SRC/$file || ! -e $OUT/$1/${file%c}o ]] || objects+=("${file%c}o")
	done
	cell_make "$1" "$OUT/$1" -k W=1 "${objects[@]}"
}

build()
{
	rm -rf "${OUT:?}/$1"
	cell_build "$1" "$OUT/$1" && strict "$1"
}

# new_warnings CELL: those that the base has not got. Only what W=1 warns about is
# seen often, so all of the base is built only if there is more than that.
new_warnings()
{
	local log=$OUT/$1.log base=$OUT/$1.base.log new how

	new=$(warnings "$log")
	for how in strict build; do
		[[ -n $new ]] || break
		at base
		try "cell $1, base" "$base" "$how" "$1"
		at series
		new=$(comm -23 <(warnings "$log") <(warnings "$base"))
	done
	echo "$new"
}

# check CELL: its number is that of the new warnings
check()
{
	local new

	if ! try "cell $1" "$OUT/$1.log" build "$1"; then
		echo FAILED 0
		return
	fi
	new=$(new_warnings "$1")
	rm -rf "${OUT:?}/$1"
	if [[ -n $new ]]; then
		say "$new"
		echo "WARNINGS $(wc -l <<<"$new")"
	else
		echo ok 0
	fi
}

lock
"$REPO/scripts/packages.sh" tree build matrix
"$REPO/scripts/series/convert.sh" tree
mkdir -p "$OUT"
need_space 8 "the objects of a build"
check_parts
cells=("$@")
[[ $# -gt 0 ]] || readarray -t cells < <(cell_names)
for cell in "${cells[@]}"; do
	cell_line "$cell" >/dev/null
done
at series
check_rows "${cells[@]}"
{
	echo "cell result seconds warnings"
	for cell in $(cell_names); do
		echo "$cell $(result "$cell")"
	done
} | finish
