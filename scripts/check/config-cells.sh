# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Sourced after lib.sh: configurations ("cells") of a file such as configs/matrix, how
# one is built from any revision of BUILD/tree, and a table of results that need not
# be found out again.

SRC=$BUILD/src
CELLS=$REPO/configs/matrix

declare -A TOOLCHAINS=(
	[x86_64]='ARCH=x86_64'
	[x86_64-clang]='ARCH=x86_64 LLVM=-19'
	[i386]='ARCH=i386'
	[arm]='ARCH=arm CROSS_COMPILE=arm-linux-gnueabihf-'
	[arm64]='ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu-'
	[powerpc]='ARCH=powerpc CROSS_COMPILE=powerpc64le-linux-gnu-'
	[riscv]='ARCH=riscv CROSS_COMPILE=riscv64-linux-gnu-'
	[s390]='ARCH=s390 CROSS_COMPILE=s390x-linux-gnu-'
)

# What the series touches, with the option that it needs: a folder builds what
# is configured in it, but an object gets built in any case.
PARTS=(
	'mm/ -'
	'io_uring/ IO_URING'
	'block/ BLOCK'
	'fs/aio.o AIO'
	'fs/read_write.o -'
	'fs/fuse/ FUSE_FS'
	'fs/netfs/ NETFS_SUPPORT'
	'kernel/dma/contiguous.o DMA_CMA'
	'lib/iov_iter.o -'
	'drivers/xen/gntdev.o XEN_GNTDEV'
	'drivers/xen/privcmd.o XEN_PRIVCMD'
)

# at REV: SRC as REV has it
at()
{
	if [[ ! -d $SRC ]]; then
		need_space 4 "a second checkout of the sources"
		tgit worktree prune
		tgit worktree add -q --no-checkout --detach "$SRC" "$1"
	fi
	git -C "$SRC" checkout -q -f --detach "$1"
}

# touched: the series' own C files of the kernel
touched()
{
	tgit diff --name-only --no-renames --diff-filter=d base series -- '*.c' ':!tools' ':!Documentation'
}

cell_names()
{
	awk 'NF && !/^#/ && $1 != "all" { print $1 }' "$CELLS"
}

# cell_line NAME: of CELLS, one blank between fields
cell_line()
{
	awk -v name="$1" '$1 == name { $1 = $1; print }' "$CELLS" | grep . ||
		die "$CELLS has no cell $1; it has: $(cell_names | tr '\n' ' ')"
}

# cell_options NAME: as lines of a .config, of which the last on an option counts.
# Options of the series' own are left out as long as SRC has not got them.
cell_options()
{
	local own='/CONFIG_PIN_GATE_/d'

	! grep -q '^config PIN_GATE_' "$SRC/mm/Kconfig" || own=
	{
		cell_line all
		cell_line "$1"
	} | cut -d' ' -s -f4- | tr ' ' '\n' | sed -E "/./!d; s/^/CONFIG_/; s/^(.*)=n\$/# \1 is not set/; $own"
}

# cell_make NAME OUT ARG...: the kernel's make for that
cell_make()
{
	local toolchain

	toolchain=$(cell_line "$1" | cut -d' ' -f2)
	read -ra toolchain <<<"${TOOLCHAINS[$toolchain]}"
	make -C "$SRC" O="$2" -j"$JOBS" "${toolchain[@]}" "${@:3}"
}

# cell_config NAME OUT: fails if an option did not take
cell_config()
{
	local base missing fragments=("$2/options")

	base=$(cell_line "$1" | cut -d' ' -f3)
	[[ $base != lean ]] || fragments=("$REPO/configs/lean" "$REPO/configs/test" "$2/options")
	mkdir -p "$2"
	cell_options "$1" >"$2/options"
	cell_make "$1" "$2" "${base/#lean/tinyconfig}" && cat "${fragments[@]}" >>"$2/.config" &&
		cell_make "$1" "$2" olddefconfig || return
	missing=$(missing_options "$2/.config" "$2/options")
	[[ -z $missing ]] || die "cell $1: these options did not take (selected, or a dependency is missing): ${missing//$'\n'/, }"
}

# cell_targets NAME OUT: the image to boot, or what of PARTS is configured. A small
# kernel is linked as well: a function that is declared in a configuration that lacks
# it shows there only.
cell_targets()
{
	local part option

	if [[ $1 == boot ]]; then
		echo bzImage
		return
	fi
	! cell_line "$1" | grep -q ' allnoconfig\b' || echo vmlinux
	while read -r part option; do
		[[ $option != - ]] && ! grep -q "^CONFIG_$option=" "$2/.config" || echo "$part"
	done < <(printf '%s\n' "${PARTS[@]}")
}

# cell_build NAME OUT
cell_build()
{
	local targets

	cell_config "$1" "$2" || return
	readarray -t targets < <(cell_targets "$1" "$2")
	cell_make "$1" "$2" -k "${targets[@]}"
}

# warnings LOG...: without the place in the file, so that those of two revisions
# compare. Kconfig's, about options that are set twice, have no blank in front.
warnings()
{
	{ grep -h -i -E '(^|: )(warning|error):' "$@" || :; } | sed -E "s,$SRC/,,g; s/:[0-9]+\b//g" | sort -u
}

# result ROW: "verdict seconds number" of what is there now. Of the script are id ROW,
# all that it depends on, and check ROW, which prints "VERDICT NUMBER".
result()
{
	local line

	line=$(cat "$OUT/$1.result" 2>/dev/null) && [[ ${line%% *} == "$(id "$1")" ]] && echo "${line#* }" || echo '- - -'
}

# check_rows ROW...: those that were not ok; sets failed
check_rows()
{
	local row start verdict

	for row in "$@"; do
		[[ $(result "$row") != ok\ * ]] || continue
		start=$SECONDS
		verdict=$(check "$row")
		echo "$(id "$row") ${verdict% *} $((SECONDS - start)) ${verdict#* }" >"$OUT/$row.tmp"
		mv "$OUT/$row.tmp" "$OUT/$row.result"
		[[ $verdict == ok\ * ]] || failed=1
	done
}

# finish: the table, from standard input
finish()
{
	column -t -l 5 >"$OUT/table.tmp"
	mv "$OUT/table.tmp" "$OUT/table"
	cat "$OUT/table"
	exit "$failed"
}

failed=0
