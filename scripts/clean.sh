#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
#   clean.sh clean      remove what was built
#   clean.sh distclean  remove everything this repository made in BUILD
#
# By name, because BUILD= may be a folder with other things in it.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

BUILT=(kernel-'*' selftests mails rfc results test bench bench-quick scenario matrix each-patch static arm64
	regress deb deb-test vm-'*' accel tsc-khz '*.log' '*.tmp' work.'*')
FETCHED=(tree tree.origin tree.stamp base src arm64-root apt linux-'*'.deb lock)

remove()
{
	local name

	for name in "$@"; do
		# shellcheck disable=SC2086 # the names are patterns
		(cd "$BUILD" && rm -rf -- $name)
	done
}

[[ -d $BUILD ]] || exit 0
lock
case ${1:-} in
clean) remove "${BUILT[@]}" ;;
distclean)
	[[ ! -d $TREE ]] || "$REPO/scripts/series/convert.sh" saved
	remove "${BUILT[@]}" "${FETCHED[@]}"
	rmdir "$BUILD" 2>/dev/null || :
	;;
*) die "usage: clean.sh clean|distclean" ;;
esac
