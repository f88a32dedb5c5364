# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Sourced after lib.sh: the cells of configs/matrix, and how the objects of one
# are built from any revision of BUILD/tree.

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

# cell_line NAME: of configs/matrix, one blank between fields
cell_line()
{
	awk -v name="$1" '$1 == name { $1 = $1; print }' "$CELLS" | grep . ||
		die "configs/matrix has no cell $1; it has: $(cell_names | tr '\n' ' ')"
}

# cell_options NAME: OPTION=VALUE, a line each, the last word on each option.
# Options of the series' own are left out as long as SRC has not got them.
cell_options()
{
	{
		cell_line all
		cell_line "$1"
	} | cut -d' ' -s -f4- | tr ' ' '\n' |
		awk -F= 'NF { said[$1] = $0 } END { for (option in said) print said[option] }' | sort |
		while IFS='=' read -r option value; do
			[[ $option != PIN_GATE_* ]] || grep -qx "config $option" "$SRC/mm/Kconfig" || continue
			echo "$option=$value"
		done
}

# cell_make NAME OUT ARG...: the kernel's make for that
cell_make()
{
	local line toolchain

	line=$(cell_line "$1")
	read -r _ toolchain _ <<<"$line"
	read -ra toolchain <<<"${TOOLCHAINS[$toolchain]}"
	make -C "$SRC" O="$2" -j"$JOBS" "${toolchain[@]}" "${@:3}"
}

# cell_config NAME OUT: fails if an option did not take
cell_config()
{
	local line base option value status=0

	line=$(cell_line "$1")
	read -r _ _ base _ <<<"$line"
	mkdir -p "$2"
	if [[ $base == lean ]]; then
		cell_make "$1" "$2" tinyconfig && cat "$REPO/configs/lean" >>"$2/.config" || return
	else
		cell_make "$1" "$2" "$base" || return
	fi
	cell_options "$1" | sed -E 's/^(.*)=n$/# CONFIG_\1 is not set/; t; s/^/CONFIG_/' >>"$2/.config"
	cell_make "$1" "$2" olddefconfig || return
	while IFS='=' read -r option value; do
		if [[ $value == n ]]; then
			! grep -q "^CONFIG_$option=" "$2/.config"
		else
			grep -qxF "CONFIG_$option=$value" "$2/.config"
		fi || {
			say "error: cell $1: $option=$value did not take: something else selects it or it lacks one"
			status=1
		}
	done < <(cell_options "$1")
	return "$status"
}

# cell_parts NAME OUT: what of PARTS is configured. A small kernel is linked as well:
# a function that is declared in a configuration that lacks it shows there only.
cell_parts()
{
	local line base part option

	line=$(cell_line "$1")
	read -r _ _ base _ <<<"$line"
	[[ $base != allnoconfig ]] || echo vmlinux
	while read -r part option; do
		[[ $option != - ]] && ! grep -q "^CONFIG_$option=" "$2/.config" || echo "$part"
	done < <(printf '%s\n' "${PARTS[@]}")
}

# warnings LOG...: without the place in the file, so that those of two revisions
# compare; fails if there is none
warnings()
{
	grep -h -i -E '(warning|error):' "$@" | sed -E "s,$SRC/,,g; s/:[0-9]+\b//g" | sort
}

# first_errors LOG
first_errors()
{
	grep -m 12 -E 'error:|Error [0-9]|undefined reference|No space left' "$1" >&2 || tail -n 12 "$1" >&2
}
