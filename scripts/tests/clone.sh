# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Sourced by tests of the harness: a copy of it works on a kernel tree of three
# files (KSRC=), and on programs that fail on purpose (first in PATH).

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

unset BUILD_LOCKED KSRC JOBS MEM SMP ACCEL V SIGNOFF SINCE
BUILD_REAL=$BUILD
mkdir -p "$BUILD_REAL"
work=$(mktemp -d "$BUILD_REAL/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
unset BUILD TREE

clone=$work/clone
ksrc=$work/linux
tree=$clone/build/tree
said=$work/said
series=$clone/$PATCHES

# expect NAME STATUS TEXT CMD...: does CMD end so and say so?
expect()
{
	local name=$1 want=$2 text=$3 status=0

	shift 3
	(cd "$clone" && "$@") >"$said" 2>&1 </dev/null || status=$?
	if [[ ($want == fails && $status -ne 0 || $want == works && $status -eq 0) ]] &&
		{ [[ -z $text ]] || grep -q -e "$text" "$said"; }; then
		echo "ok - $name"
	else
		echo "not ok - $name"
		echo "# status $status, wanted: $want, and: $text"
		tail -n 8 "$said" | sed 's/^/# /'
	fi
}

# fake NAME: a program of that name from standard input, first in PATH
fake()
{
	mkdir -p "$work/bin"
	{
		echo '#!/bin/sh'
		cat
	} >"$work/bin/$1"
	chmod +x "$work/bin/$1"
}

with_fakes()
{
	PATH=$work/bin:$PATH "$@"
}

new_clone()
{
	rm -rf "$clone"
	mkdir -p "$series"
	cp -a "$REPO/Makefile" "$REPO/scripts" "$REPO/configs" "$REPO/verify" "$clone/"
	printf 'mm: a series\n\nWhat it is.\n' >"$series/cover-letter.txt"
}

new_ksrc()
{
	mkdir -p "$ksrc/mm"
	printf 'VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\n' >"$ksrc/Makefile"
	seq 20 >"$ksrc/mm/gup.c"
	seq 30 >"$ksrc/mm/cma.c"
	printf '/*\n' >"$ksrc/.gitignore"
}

# commit MESSAGE: all that there is in the tree, as somebody else
commit()
{
	git -C "$tree" add -f -A
	GIT_AUTHOR_NAME=Somebody GIT_AUTHOR_EMAIL=some@body GIT_AUTHOR_DATE=2020-02-02T00:00:00Z \
		git -C "$tree" commit -q -m "$1"
}
