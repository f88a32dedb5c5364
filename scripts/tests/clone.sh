# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Sourced by tests of the harness: a copy of it works on a kernel tree of three
# files, without the network.

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

mkdir -p "$BUILD"
work=$(mktemp -d "$BUILD/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
unset BUILD TREE BUILD_LOCKED JOBS MEM SMP ACCEL V SIGNOFF SINCE

clone=$work/clone
ksrc=$work/linux
export KSRC=$ksrc
tree=$clone/build/tree
said=$work/said
series=$clone/$PATCHES

# expect NAME STATUS TEXT CMD...: does CMD end so and say so?
expect()
{
	local name=$1 want=$2 text=$3 status=works

	shift 3
	(cd "$clone" && "$@") >"$said" 2>&1 </dev/null || status=fails
	if [[ $status == "$want" ]] && grep -q -e "$text" "$said"; then
		echo "ok - $name"
	else
		echo "not ok - $name"
		echo "# it $status, wanted: $want, and: $text"
		tail -n 8 "$said" | sed 's/^/# /'
	fi
}

# program FILE: an executable one, from standard input
program()
{
	mkdir -p "${1%/*}"
	cat >"$1"
	chmod +x "$1"
}

# files_id DIR: one name for all its files but for what was made in build
files_id()
{
	(cd "$1" && find . -path ./build -prune -o -type f -print0 | sort -z | xargs -0 sha256sum) | hash_id
}

# commit MESSAGE: all that there is in the tree, as somebody else
commit()
{
	git -C "$tree" add -f -A
	GIT_AUTHOR_NAME=Somebody GIT_AUTHOR_EMAIL=some@body GIT_AUTHOR_DATE=2020-02-02T00:00:00Z \
		git -C "$tree" commit -q -m "$1"
}

# commit_series: three commits that it takes some care to write to files and mails
commit_series()
{
	local last='mm/cma: an edit, a new file, and a subject so long that a mail has to fold it in its header'

	sed -i 's/^10$/ten/' "$tree/mm/gup.c"
	commit $'mm/gup: ten\n\nWhy it is ten.\nFrom: a line that looks like a header.'
	mkdir "$tree/mm/tests"
	printf 'no newline at its end' >"$tree/mm/tests/new.c"
	program "$tree/mm/run.sh" <<<'#!/bin/sh'
	commit 'mm: only new files'
	sed -i 's/^10$/ten/' "$tree/mm/cma.c"
	echo last >"$tree/mm/tests/last.c"
	commit "$last"
	printf '%s\n' 'fixes mm/gup: ten' "core $last" >"$series/parts"
}

mkdir -p "$series" "$ksrc/mm"
cp -a "$REPO/Makefile" "$REPO/scripts" "$clone/"
printf 'mm: a series\n\nWhat it is.\n' >"$series/cover-letter.txt"
printf 'VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\n' >"$ksrc/Makefile"
seq 20 >"$ksrc/mm/gup.c"
seq 30 >"$ksrc/mm/cma.c"
printf '/*\n' >"$ksrc/.gitignore"
