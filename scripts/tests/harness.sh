#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Tests of the harness itself, as TAP.

# shellcheck source=scripts/tests/clone.sh
. "$(dirname "$0")/clone.sh"

tree_id()
{
	git -C "$tree" rev-parse HEAD
}

# race TITLE ACCESS LINE...: a report of KCSAN
race()
{
	printf '%s\n' ============ "BUG: KCSAN: data-race in $1" '' "$2 by task 1 on cpu 0:" "${@:3}" '' ============ |
		sed 's/^/[    1.234567][   T12] /; s/$/\r/'
}

# What looks like those that races.awk leaves out, but is not: anything less is silent.
test_races()
{
	{
		race 'a / known' 'read to 0xffff888003c0f018 of 8 bytes' ' tick+0x1/0x2' ' pin_gate_wait+0x5/0x6'
		race 'a / b' 'read to 0xffd4000000bde0c8 of 8 bytes' ' pin_gate_open+0x7/0x8'
		race 'a / c' 'race at unknown origin, with read to 0xff11000000bb166c of 4 bytes' \
			' pin_gate_wait+0x1/0x2' '' 'value changed: 0x20400040 -> 0x00400041'
	} >"$work/console"
	report "none of our data races is left out" test "$(awk -v functions='pin_gate_wait pin_gate_open' \
		-v known='b / known; known' -f "$REPO/scripts/check/races.awk" "$work/console" | grep -c KCSAN:)" -eq 3
}

test_base()
{
	local before

	mkdir "$work/old"
	sed 's/= 3/= 2/' "$ksrc/Makefile" >"$work/old/Makefile"
	before=$(files_id "$ksrc")
	expect "an unknown variable" fails 'JOB: not a variable.* KSRC JOBS' make help JOB=3
	expect "a malformed variable" fails 'MEM=768 is not known. Right values:' make clean MEM=768
	expect "a BUILD that the kernel's make cannot have" fails 'Right values: a folder' make clean BUILD='a b'
	expect "KSRC of another version" fails '7.2.4; the series is for 7.3' make tree KSRC="$work/old"
	touch "$ksrc/.config"
	expect "KSRC with a build in it" fails "run 'make mrproper' there" make tree
	rm "$ksrc/.config"
	echo damaged >"$clone/build/linux-source-7.3_7.3.4-1_all.deb"
	expect "a damaged package" fails 'did not unpack; it was removed' make tree KSRC=
	report "no tree or package is left by these" test -z "$(find "$clone/build" -name '*.deb' -o -name '*tree*')"
	expect "a second make in the same BUILD" fails 'another make is at work' flock build/lock make tree
	expect "a tree from KSRC" works 'tree: 0 patches on base: linux 7.3.4' make tree
	report "KSRC is not written to" test "$before" = "$(files_id "$ksrc")"
	expect "another KSRC needs another BUILD" fails 'another BUILD= folder' make tree KSRC="$work/old"
}

test_roundtrip()
{
	local head

	commit_series
	expect "refresh writes the series" works 'refresh: 3 patches' make refresh
	report "no person's name gets into the files" test -z "$(grep -rl -e Somebody -e some@body "$series")"
	expect "files, commits and mails" works '^ok' scripts/series/convert.sh check
	report "give each other" test "$(grep -c '^ok' "$said")" -eq 4
	head=$(tree_id)
	rm -rf "$clone/build"
	expect "a tree from nothing" works 'tree: 3 patches' make tree
	report "is the same commit" test "$head" = "$(tree_id)"
}

# The new file of the series, changed in the patch of the backport
test_backport()
{
	local tree=$clone/build/v6.12/tree series=$clone/patches/v6.12 before

	before=$(files_id "$clone/mm")
	sed -i.old 's/= 7/= 6/; s/= 3/= 12/' "$ksrc/Makefile"
	expect "a backport has its own tree" works 'tree: 0 patches on base: linux 6.12.4' make tree BASE=6.12
	mkdir -p "$tree/mm/tests" "$series"
	echo 'for 6.12' >"$tree/mm/tests/new.c"
	commit 'mm: the new file'
	echo 'core mm: the new file' >"$series/parts"
	printf 'mm: a backport\n\nWhat it is.\n' >"$series/cover-letter.txt"
	expect "refresh of a backport" works 'refresh: 1 patches' make refresh BASE=6.12
	report "leaves the new file alone" test "$before" = "$(files_id "$clone/mm")"
	report "and has an edit of it" grep -q '^+for 6.12' "$series/0001-mm-the-new-file.patch"
	expect "files, commits and mails of a backport" works '^ok' env BASE=6.12 scripts/series/convert.sh check
	report "give each other, too" test "$(grep -c '^ok' "$said")" -eq 4
	echo x >"$tree/mm/tests/own.c"
	commit 'mm: a file of its own'
	expect "a new file of a backport alone" fails 'the backport adds mm/tests/own.c' make refresh BASE=6.12
	git -C "$tree" reset -q --hard HEAD~1
	expect "a backport is not for linux-mm" fails 'a backport is not for linux-mm' make rfc BASE=6.12
	expect "nor is it measured like the series" fails 'BASE=6.12 has no target bench' make bench BASE=6.12
	expect "its folder goes by itself" works gone sh -c 'make distclean BASE=6.12 && test ! -e build/v6.12 && echo gone'
	mv "$ksrc/Makefile.old" "$ksrc/Makefile"
}

# Work that is in the tree only, or was changed on both sides, must not get lost.
test_refusals()
{
	local before head

	mkdir -p "$clone/lib" "$tree/lib"
	echo 'of this repository' >"$clone/lib/clash.c"
	before=$(files_id "$clone")
	head=$(tree_id)
	echo x >>"$tree/mm/gup.c"
	expect "refresh of uncommitted work" fails 'has uncommitted work' make refresh
	expect "distclean with uncommitted work" fails 'has uncommitted work' make distclean
	echo y >>"$tree/mm/tests/new.c"
	commit 'mm: edit the new file'
	expect "distclean with commits of one's own" fails 'not written back' make distclean
	expect "mails without these commits" fails 'make refresh first' make series
	expect "a new file that is edited again" fails 'mm/tests/new.c is added by "mm: only new files"' make refresh
	git -C "$tree" reset -q --hard "$head"
	echo y >>"$tree/mm/gup.c"
	commit $'mm: a message\n\nAbove\n---\nbelow'
	expect "a message that a mail would cut" fails 'would not give back the commits' make refresh
	git -C "$tree" reset -q --hard "$head"
	echo 'of the tree' >"$tree/lib/clash.c"
	commit 'lib: clash'
	expect "a new file where there is another" fails 'the series adds lib/clash.c, but' make refresh
	report "refusals change no file" test "$before" = "$(files_id "$clone")"
	echo edited >>"$clone/mm/tests/new.c"
	expect "tree when both sides changed" fails 'the files of the series changed, but' make tree
	expect "refresh when both sides changed" fails 'refresh would undo that' make refresh
	git -C "$tree" reset -q --hard "$head"
}

# With an edited new file
test_apply()
{
	local head patch

	head=$(tree_id)
	patch=$(echo "$series"/0001-*.patch)
	sed -i 's/^ 9$/ nine/' "$patch"
	expect "a patch that does not apply" fails '0001-mm-gup-ten.patch does not apply to mm/gup.c' make tree
	report "leaves the tree as it was" test "$head" = "$(tree_id)"
	sed -i 's/^ nine$/ 9/' "$patch"
	expect "mended, it goes on" works 'tree: 3 patches' make tree
	report "with the edited new file" grep -q edited "$tree/mm/tests/new.c"
	git -C "$tree" reset -q --hard HEAD~1
	expect "a commit taken out" works 'removed mm/tests/last.c' make refresh
	report "takes its patch out" test "$(find "$series" -name '*.patch' | wc -l)" -eq 2
	expect "distclean leaves nothing" works gone sh -c 'make distclean && test ! -e build && echo gone'
}

test_races
test_base
test_roundtrip
test_backport
test_refusals
test_apply
