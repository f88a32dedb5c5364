#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Debian packages of the patched kernel, for this machine or one of the same release,
# and of the selftests, in BUILD/deb:
#
#   deb.sh          with the configuration CONFIG=FILE; by default that of the running
#                   kernel, or Debian's if there is none in /boot. LOCALMOD=1 leaves
#                   out the modules that are not loaded now.
#   deb.sh DIR      there

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=scripts/series/archive.sh
. "$REPO/scripts/series/archive.sh"

DEBIAN=linux-config-7.3
TESTS=linux-selftests-cma-gup-pin
out=${1:-$BUILD/deb}
build=$out/kernel
log=$out/deb.log
fragments=("$REPO/configs/series" "$REPO/configs/deb")

export KDEB_CHANGELOG_DIST=unstable

progress()
{
	echo "$(find "$build" -name '*.o' | wc -l) objects"
}

kmake()
{
	make -C "$TREE" O="$build" -j"$JOBS" CC="$(cached gcc)" "$@"
}

# find_config: set CONFIG to the file to begin with
find_config()
{
	local running

	running=/boot/config-$(uname -r)
	[[ -n ${CONFIG:-} || ! -r $running ]] || CONFIG=$running
	if [[ -z ${CONFIG:-} ]]; then
		say "there is no $running: taking Debian's configuration"
		fetch_deb "$DEBIAN" "1 MB" "CONFIG=FILE, such as one of /boot/config-*"
		CONFIG=$out/config.debian
		dpkg-deb --fsys-tarfile "$(newest_deb "$DEBIAN")" |
			tar -x -O "./usr/src/$DEBIAN/config.amd64_none_amd64.xz" | xz -dc >"$CONFIG"
	fi
	[[ -r $CONFIG ]] || die "CONFIG=$CONFIG cannot be read: say which file has your kernel's configuration"
}

# localmodconfig asks about new options, of which there are none.
write_config()
{
	cat "$CONFIG" "${fragments[@]}" >"$build/.config" && kmake olddefconfig || return
	[[ -z ${LOCALMOD:-} ]] || kmake localmodconfig < <(yes '')
}

# Modules can be built in instead, if the user's kernel has it so, and need no keys then.
configure()
{
	local missing

	try "configuring your kernel, beginning with $CONFIG" "$log" write_config
	missing=$(missing_options "$build/.config" "${fragments[@]}" | grep -v -e '=m$' -e '=""$' || :)
	[[ -z $missing ]] || die "these options did not take in $build/.config (a dependency is missing):" \
		"${missing//$'\n'/, }"
}

# remove_old: a package that is built anew has another version
remove_old()
{
	rm -f "$out"/*.deb "$out"/*.buildinfo "$out"/*.changes
}

# The kernel's version, so that both packages are updated together
package_tests()
{
	local root=$out/selftests dir=$out/selftests/usr/lib/cma-gup-pin libc version

	version=$(dpkg-deb -f "$(echo "$out"/linux-image-*.deb)" Version)
	libc=$(dpkg-query -W -f '${Version}' libc6)
	rm -rf "$root"
	mkdir -p "$dir" "$root/DEBIAN"
	cp "$BUILD"/selftests/{cma_gup_pin,cma_gup_bench,cma_pins.sh,page-types} "$REPO/scripts/build/run-tests" "$dir/"
	strip "$dir"/{cma_gup_pin,cma_gup_bench,page-types}
	cat >"$root/DEBIAN/control" <<-CONTROL
		Package: $TESTS
		Version: $version
		Architecture: $(dpkg --print-architecture)
		Maintainer: $GIT_AUTHOR_NAME <$GIT_AUTHOR_EMAIL>
		Section: kernel
		Priority: optional
		Depends: libc6 (>= ${libc%%-*}), kmod, mount
		Description: tests of CMA allocations under direct I/O
		 As root, /usr/lib/cma-gup-pin/run-tests tests a kernel that was booted with
		 cma=64M, and measures; cma_pins.sh there tells why an allocation fails.
	CONTROL
	dpkg-deb --root-owner-group -b "$root" "$out"
	rm -rf "$root"
}

lock
"$REPO/scripts/packages.sh" tree build deb
"$REPO/scripts/series/convert.sh" tree
[[ -d $build ]] || need_space 15 "a kernel of your own configuration"
mkdir -p "$build"
find_config
configure
remove_old
try "building your kernel and its packages (minutes, or hours if all modules are)" "$log" kmake bindeb-pkg
rm "$out"/linux-libc-dev_*.deb
"$REPO/scripts/build/selftests.sh"
try "packing the selftests" "$log" package_tests
say "as root: apt install $out/linux-image-*.deb $out/$TESTS*.deb"
