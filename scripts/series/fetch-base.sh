#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Bring the base kernel into BUILD/tree as a git tree with one commit, branch
# "base": from Debian's linux-source package, or a copy of KSRC=.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=scripts/series/archive.sh
. "$(dirname "$0")/archive.sh"

PACKAGE=linux-source-$BASE

# unpack_deb DEB DIR
unpack_deb()
{
	if ! dpkg-deb -x "$1" "$2/deb" ||
		! tar -x -C "$2/tree" --strip-components=1 -f "$2/deb/usr/src/$PACKAGE.tar.xz"; then
		rm -f "$1"
		die "$(basename "$1") did not unpack; it was removed: call make again to fetch it anew"
	fi
}

# copy_ksrc DIR: the files of KSRC, of which nothing is ever written
copy_ksrc()
{
	if git -C "$KSRC" rev-parse --show-cdup 2>/dev/null | grep -qx ''; then
		git -C "$KSRC" ls-files -z |
			(cd "$KSRC" && while IFS= read -r -d '' f; do
				[[ ! -e $f && ! -L $f ]] || printf '%s\0' "$f"
			done) | tar -C "$KSRC" --null --no-recursion -T - -c |
			tar -x -C "$1"
		return
	fi
	[[ ! -e $KSRC/.config && ! -d $KSRC/include/config ]] ||
		die "KSRC=$KSRC holds a build: run 'make mrproper' there, or give a clean copy"
	tar -C "$KSRC" -c . | tar -x -C "$1"
}

# commit_base DIR MESSAGE: same files, same commit id, wherever it is run
commit_base()
{
	git init -q --template= -b base "$1"
	git -C "$1" config gc.auto 0
	git -C "$1" config core.looseCompression 0
	git -C "$1" config user.name "$GIT_AUTHOR_NAME"
	git -C "$1" config user.email "$GIT_AUTHOR_EMAIL"
	git -C "$1" add -f -A
	git -C "$1" commit -q -m "$2"
}

make_version()
{
	awk -F' *= *' '/^(VERSION|PATCHLEVEL|SUBLEVEL) =/ { v = v s $2; s = "." }
		v && /^SUBLEVEL/ { exit } END { print v }' "$1/Makefile"
}

lock
origin=$BUILD/tree.origin
if [[ -d $TREE ]]; then
	[[ -z $KSRC || $(cat "$origin") == "KSRC $(realpath "$KSRC")" ]] ||
		die "$TREE was made from $(cat "$origin"): use another BUILD= folder, or make distclean"
	exit 0
fi

tmp=$BUILD/base.tmp
rm -rf "$tmp"
need_space 8 "the kernel tree and its builds"
mkdir -p "$tmp/tree"
trap 'rm -rf "$tmp"' EXIT
if [[ -n $KSRC ]]; then
	[[ -r $KSRC/Makefile ]] || die "KSRC=$KSRC is no kernel tree: no Makefile in it"
	version=$(make_version "$KSRC")
	[[ $version == "$BASE" || $version == "$BASE".* ]] ||
		die "KSRC=$KSRC is Linux ${version:-of no known version}; the series is for $BASE"
	echo "KSRC $(realpath "$KSRC")" >"$tmp/origin"
	with_heartbeat "copying $KSRC" copy_ksrc "$tmp/tree"
else
	fetch_deb "$PACKAGE" "170 MB" "KSRC=/path/to/linux for a $BASE tree of your own"
	deb=$(newest_deb "$PACKAGE")
	basename "$deb" >"$tmp/origin"
	with_heartbeat "unpacking $(basename "$deb")" unpack_deb "$deb" "$tmp"
fi
with_heartbeat "committing the base to git" \
	commit_base "$tmp/tree" "base: linux $(make_version "$tmp/tree")"
mv "$tmp/origin" "$origin"
mv "$tmp/tree" "$TREE"
