#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The patched kernel on arm64, emulated: the KUnit suites and cma_gup_pin, as
# TAP, and a count in the last line. The guest's root is made of Debian's
# packages for arm64, in BUILD/arm64-root.
#
#   arm64.sh                   with configs/arm64
#   arm64.sh arm64-defconfig   with arm64's defconfig, which has no KUnit suites

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"

KERNEL=${1:-arm64}
ROOT=$BUILD/arm64-root
OUT=$BUILD/$KERNEL
PACKAGES=dash,bash,coreutils,mount,e2fsprogs

# Only unpacked, not installed: that would take a machine that runs them.
unpack_root()
{
	local tmp=$ROOT.tmp

	rm -rf "$tmp"
	mmdebstrap --variant=extract --architectures=arm64 --include="$PACKAGES" \
		--aptopt='APT::Sandbox::User "root"' bookworm "$tmp" || return
	mkdir -p "$tmp"/{dev,proc,sys,run,media,mnt,tmp,var/tmp}
	mv "$tmp" "$ROOT"
}

make_root()
{
	[[ -d $ROOT ]] || try "fetching Debian's arm64 packages for the guest (30 MB)" "$ROOT.log" unpack_root
	mkdir -p "$ROOT$REPO/scripts/vm"
	cp scripts/vm/guest-init scripts/vm/guest-fstab "$ROOT$REPO/scripts/vm/"
}

# Static, as the compiler's C library need not be the one of the guest. A backport is
# tested by the program of the series.
cross_compile()
{
	local dir=$SERIES_BUILD/tree/tools/testing/selftests/mm

	# What libraries there are is noted in the sources, for whoever comes next: so
	# that has to be about this machine.
	make -C "$dir" local_config.mk local_config.h_gen &&
		make -C "$dir" ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu- EXTRA_CFLAGS=-static \
			OUTPUT="$OUT/pin" "$OUT/pin/cma_gup_pin"
}

# guest NAME APPEND CMD...: without the pool for atomic DMA, which would take a
# part of the area
guest()
{
	scripts/vm/boot.sh --kernel "$KERNEL" --out "$OUT/$1" --timeout 1800 \
		--append "$2 initcall_blacklist=dma_atomic_pool_init" -- "${@:3}"
}

kunit()
{
	local status=0

	guest kunit 'cma=64M kunit.autorun=1 kunit.filter_glob=pin_gate*' true >&2 || status=$?
	ktap "$OUT/kunit"
	return $status
}

pin()
{
	guest pin cma=256M "$OUT/pin/cma_gup_pin"
}

# run NAME: that guest, its tests as one line each, and what its kernel had to say
run()
{
	local tap=$OUT/$1.tap status=0

	"$1" | tee "$tap" >&2 || status=$?
	awk -v group="$1" -f scripts/check/tap.awk "$tap"
	[[ $status -eq 0 ]] || echo "not ok - $1: ended with status $status"
	report "no warning in the kernel log of $1" quiet_log "$OUT/$1"
}

cd "$REPO"
lock
scripts/packages.sh tree build selftests arm64
scripts/build/kernel.sh build "$KERNEL"
series_tree
mkdir -p "$OUT/pin"
make_root
try "compiling cma_gup_pin for arm64" "$OUT/selftests.log" cross_compile
{
	[[ $KERNEL != arm64 ]] || run kunit
	run pin
} | tee "$OUT/results"
summary "$OUT/results"
