#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Configure or build one kernel out of tree, in BUILD/kernel-NAME:
#
#   kernel.sh config|build base    the base without the series, configs/lean and
#                                  configs/test
#   kernel.sh build longterm       that with bench/foll-longterm.patch
#   kernel.sh config|build series  BUILD/tree, configs/lean, configs/test and
#                                  configs/series
#   kernel.sh config|build arm64   BUILD/tree for arm64, configs/arm64 and configs/series
#   kernel.sh config|build base-A-B, series-A-B, arm64-A-B
#                                  those with configs/A and configs/B on top,
#                                  which can also take back what is below them
#   kernel.sh config|build series-defconfig, arm64-defconfig
#                                  the architecture's own, with the options that the
#                                  selftests ask for, and configs/defconfig
#   kernel.sh lean base|series     without configs/test, which is enough for "make
#                                  run" and adds hardly more than objects of its own;
#                                  but what is there with it already stays so

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"

export KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 2026' KBUILD_BUILD_VERSION=1

[[ $# -eq 2 && $1-$2 =~ ^(config-|build-|lean-(base|series)$) ]] || die "usage: kernel.sh config|build|lean NAME"
name=$2
IFS=- read -ra parts <<<"$name"
out=$BUILD/kernel-$name
log=$out.log
src=$TREE
cc=gcc
image=arch/x86/boot/bzImage
# Roughly, for the progress.
objects=1520
defconfig=tinyconfig
fragments=("$REPO/configs/lean" "$REPO/configs/test")
# Does it do without the tests' file systems and drivers? A backport always does.
if [[ $BASE != 7.3 || $1 == lean ]] &&
	{ [[ ! -e $out/.config ]] || [[ -n $(missing_options "$out/.config" "$REPO/configs/test") ]]; }; then
	unset 'fragments[1]'
	objects=1120
fi
case ${parts[0]} in
base) src=$BUILD/base ;;
series) fragments+=("$REPO/configs/series") ;;
arm64)
	fragments=("$REPO/configs/arm64" "$REPO/configs/series")
	export ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu-
	cc=${CROSS_COMPILE}gcc
	image=arch/arm64/boot/Image
	;;
longterm)
	src=$BUILD/base
	copy=$out
	out=$BUILD/kernel-base
	log=$out.log
	;;
*) die "no kernel called $name: they begin with base, series, arm64 or longterm" ;;
esac
for part in "${parts[@]:1}"; do
	fragments+=("$REPO/configs/$part")
done
if [[ $name == *-defconfig ]]; then
	defconfig=defconfig
	fragments=("$TREE/tools/testing/selftests/mm/config" "$REPO/configs/defconfig")
fi

cc=$(cached "$cc")

progress()
{
	local all=" of some $objects"

	[[ $name != *-* && $name != arm64 ]] || all=''
	[[ ! -d $out ]] || echo "$(find "$out" -name '*.o' | wc -l)$all objects"
}

kmake()
{
	make -C "$src" O="$out" -j"$JOBS" CC="$cc" "$@"
}

base_worktree()
{
	local tmp=$BUILD/base.tmp

	if [[ -d $src ]]; then
		# What a build of longterm that was cut off left behind.
		git -C "$src" diff --quiet || git -C "$src" checkout -q .
		return
	fi
	need_space 5 "the sources and the build of the unpatched base"
	rm -rf "$tmp"
	tgit worktree prune
	with_heartbeat "checking out the unpatched base" \
		tgit worktree add -q --detach "$tmp" base
	tgit worktree move "$tmp" "$src"
}

write_config()
{
	kmake "$defconfig" && cat "${fragments[@]}" >>"$out/.config" && kmake olddefconfig
}

configure()
{
	local missing

	mkdir -p "$out"
	try "configuring the $name kernel" "$log" write_config
	# Not every architecture has all that the selftests ask for.
	[[ $name != *-defconfig ]] || unset 'fragments[0]'
	missing=$(missing_options "$out/.config" "${fragments[@]}")
	[[ -z $missing ]] ||
		die "these options did not take in $out/.config (a dependency is missing, or the option" \
			"is gone): ${missing//$'\n'/, }"
}

# build_id: all that the image depends on; a tree with uncommitted work has none
build_id()
{
	git -C "$src" diff --quiet HEAD || return 0
	{
		kernel_id "$(git -C "$src" rev-parse HEAD)"
		wanted_options "${fragments[@]}"
		$cc --version
	} | hash_id
}

build()
{
	local id

	id=$(build_id)
	[[ -z $id || ! -e $out/image.id || $(cat "$out/image.id") != "$id" ]] || return 0
	rm -f "$out/image.id"
	[[ -d $out ]] || need_space 3 "the build of the $name kernel"
	configure
	build_image "$name"
	echo "$id" >"$out/image.id"
}

# build_longterm: one file differs, so it is built in the folder of the base,
# which then gets its own file back
build_longterm()
{
	local patch=$REPO/bench/foll-longterm.patch id

	build
	id=$(cat "$out/image.id" "$patch" | hash_id)
	[[ ! -e $copy/image.id || $(cat "$copy/image.id") != "$id" ]] || return 0
	rm -rf "$copy"
	mkdir -p "$(dirname "$copy/$image")"
	mv "$out/image.id" "$out/image.id.base"
	trap 'git -C "$src" checkout -q .' EXIT
	git -C "$src" apply "$patch"
	build_image longterm
	cp "$out/$image" "$copy/$image"
	echo "$id" >"$copy/image.id"
	git -C "$src" checkout -q .
	build_image base
	mv "$out/image.id.base" "$out/image.id"
}

# build_image NAME
build_image()
{
	try "building the $1 kernel (minutes)" "$log" kmake "${image##*/}"
}

lock
"$REPO/scripts/series/convert.sh" tree
for file in "${fragments[@]}"; do
	[[ -r $file ]] || die "no kernel called $name: there is no $file"
done
[[ $src == "$TREE" ]] || base_worktree
case $1-$name in
build-longterm) build_longterm ;;
config-*) configure ;;
build-* | lean-*) build ;;
esac
