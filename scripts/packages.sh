#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Install the Debian packages that the groups named need, if any is missing.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

declare -A PACKAGES=(
	[tree]='git xz-utils'
	[build]='gcc libc6-dev make flex bison bc libelf-dev perl python3'
	[vm]='qemu-system-x86'
	[selftests]='gcc libc6-dev make liburing-dev libfuse3-dev e2fsprogs xfsprogs btrfs-progs f2fs-tools
		gfs2-utils dosfstools mount'
	[installed]='libcap-dev libnuma-dev pkg-config rsync util-linux'
	[fio]='fio'
	[stress]='stress-ng'
	[regress]='libcap-dev libnuma-dev pkg-config psmisc e2fsprogs xfsprogs util-linux'
	[rfc]='git git-email libmailtools-perl b4 perl'
	[docs]='python3-sphinx python3-yaml perl'
	[lint]='shellcheck codespell perl git'
	[bench]='gnuplot-nox python3'
	[arm64]='qemu-system-arm gcc-aarch64-linux-gnu libc6-dev-arm64-cross mmdebstrap'
	[deb]='dpkg-dev debhelper kmod rsync cpio openssl libssl-dev libdw-dev zstd xz-utils'
	[deb-test]='mmdebstrap e2fsprogs fdisk'
	[matrix]='gcc-aarch64-linux-gnu gcc-arm-linux-gnueabihf gcc-powerpc64le-linux-gnu gcc-riscv64-linux-gnu
		gcc-s390x-linux-gnu clang-19 lld-19 llvm-19'
	[static]='sparse coccinelle ocaml-nox ocaml-findlib'
	[verify]='spin gcc libc6-dev'
)

wanted=()
for group in "$@"; do
	[[ -n ${PACKAGES[$group]:-} ]] || die "no package group $group; there are: ${!PACKAGES[*]}"
	read -d '' -ra list <<<"${PACKAGES[$group]}" || :
	wanted+=("${list[@]}")
done

command -v dpkg-query >/dev/null || {
	say "note: no dpkg here; assuming that there is what Debian has in: ${wanted[*]}"
	exit 0
}
missing=()
for package in "${wanted[@]}"; do
	[[ " ${missing[*]} " == *" $package "* ]] ||
		dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed ||
		missing+=("$package")
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

[[ $(id -u) -eq 0 ]] ||
	die "these packages are missing: ${missing[*]}. As root: apt-get install ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
mkdir -p "$BUILD"
install()
{
	apt-get -q update && apt-get -q install -y --no-install-recommends "${missing[@]}"
}
try "installing ${missing[*]}" "$BUILD/packages.log" install
