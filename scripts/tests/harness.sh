#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Tests of the harness itself, as TAP.

# shellcheck source=scripts/tests/clone.sh
. "$(dirname "$0")/clone.sh"

files_id()
{
	(cd "$clone" && find . -path ./build -prune -o -type f -print0 | sort -z | xargs -0 sha256sum) | hash_id
}

tree_id()
{
	git -C "$tree" rev-parse HEAD
}

test_variables()
{
	expect "an unknown variable is refused" fails 'Right ones: KSRC JOBS' make help JOB=3
	expect "MEM is checked" fails 'MEM=768 is not known. Right values:' make tree MEM=768
	expect "BUILD is checked" fails 'Right values: a folder without' make tree BUILD='a b'
	expect "make help lists the targets" works 'make refresh  *write the tree' make help
	report "nothing was made by these" test ! -e "$clone/build"
}

# With scripts that succeed at once, and guests that leave a log
test_minutes()
{
	local script

	for script in "$clone"/scripts/*/*.sh "$clone/verify/run.sh"; do
		[[ $script == */check/test.sh ]] || echo 'echo "ok - stub"' >"$script"
	done
	cat >"$clone/scripts/vm/boot.sh" <<-'END'
		out=build/$(sed 's/.*--out \([^ ]*\).*/\1/' <<<"$*")
		mkdir -p "$out"
		printf '[ 1.0] %s\n' 'KTAP version 1' 1..1 'ok 1 stub' | tee "$out/console.log"
	END
	expect "TEST_MINUTES=1 leaves out what takes longer" works '^ok - the debug kernel # SKIP' \
		env TEST_MINUTES=1 bash scripts/check/test.sh
	report "but not the KUnit suites and cma_gup_pin" \
		test "$(grep -c -E '^ok - (kunit|pin): ([^#]*|stub.*)$' "$clone/build/test/results")" -eq 2
	expect "make debug leaves out nothing" works ' passed, 0 failed$' \
		env TEST_MINUTES=1 bash scripts/check/test.sh debug
}

test_base()
{
	expect "KSRC without a kernel" fails 'no kernel tree' make tree KSRC="$work"
	mkdir "$work/old"
	sed 's/= 3/= 2/' "$ksrc/Makefile" >"$work/old/Makefile"
	expect "KSRC of another version" fails 'is Linux 7.2.4; the series is for 7.3' make tree KSRC="$work/old"
	touch "$ksrc/.config"
	expect "KSRC with a build in it" fails "run 'make mrproper' there" make tree KSRC="$ksrc"
	rm "$ksrc/.config"
	fake df <<<'printf "h\n/ 1 1 1048576 1 /\n"'
	expect "a full disk is told before the work" fails 'needs 8 GB in .*, 1 GB are free' \
		with_fakes make tree KSRC="$ksrc"
	rm "$work/bin/df"
	report "no tree is left by these" test ! -e "$tree"
	expect "a tree from KSRC" works 'tree: 0 patches on base: linux 7.3.4' make tree KSRC="$ksrc"
	report "KSRC is not written to" test "$(find "$ksrc" -newer "$series/cover-letter.txt" -type d)" = "$ksrc"
	expect "another KSRC needs another BUILD" fails 'use another BUILD= folder' make tree KSRC="$work/old"
}

test_download()
{
	fake apt-get <<-'END'
		case $1 in
		indextargets) echo http://archive.example/debian-security; echo http://archive.example/debian ;;
		update) grep -q "http://archive.example/debian trixie" "${APT_CONFIG%/*}/sources.list" ;;
		download) echo cut >linux-source-7.3.deb; exit 100 ;;
		esac
	END
	fake apt-cache <<<'echo "linux-source-7.3 | 7.3.4-1~bpo13+1 | x"'
	expect "a cut-off download" fails 'was cut off or refused; nothing was kept' with_fakes make tree
	report "nothing of it is left" test -z "$(find "$clone/build" -name '*.deb' -o -name '*.tmp' -o -name tree)"
	fake apt-cache <<-'END'
		echo "linux-source-7.3 | 7.3.2-1~bpo13+1 | x"
		echo "linux-source-7.3 | 7.3.11-1~bpo13+1 | x"
	END
	expect "a newer 7.3.y gives a notice" fails 'NOTICE: .*7.3.4 is gone.*taking 7.3.11-1' with_fakes make tree
	fake apt-get <<-'END'
		[ "$1" = indextargets ] && echo http://archive.example/debian
	END
	expect "no network names KSRC" fails 'or say KSRC=' with_fakes make tree
	rm "$work/bin/apt-get" "$work/bin/apt-cache"
	echo damaged >"$clone/build/linux-source-7.3_7.3.4-1_all.deb"
	expect "a damaged package" fails 'did not unpack; it was removed' make tree
	report "the damaged package is gone" test -z "$(find "$clone/build" -name '*.deb')"
	fake dpkg-query <<<'exit 1'
	fake id <<<'echo 1000'
	expect "missing packages without root" fails 'As root: apt-get install git xz-utils' with_fakes make tree
	rm "$work/bin/dpkg-query" "$work/bin/id"
}

test_roundtrip()
{
	local head before

	sed -i 's/^10$/ten/' "$tree/mm/gup.c"
	commit 'mm/gup: ten

Why it is ten.
From: a line that looks like a header.'
	mkdir "$tree/mm/tests"
	printf 'no newline at its end' >"$tree/mm/tests/new.c"
	printf '#!/bin/sh\n' >"$tree/mm/run.sh"
	chmod +x "$tree/mm/run.sh"
	commit 'mm: only new files'
	echo more >>"$tree/mm/cma.c"
	echo last >"$tree/mm/tests/last.c"
	commit 'mm/cma: an edit, a new file, and a subject so long that a mail has to fold it in its header'
	expect "refresh writes the series" works 'refresh: 3 patches' make refresh
	report "no person's name gets into the files" test -z "$(grep -rl -e Somebody -e some@body "$series")"
	report "new files are files" test -x "$clone/mm/run.sh" -a -f "$clone/mm/tests/new.c"
	before=$(files_id)
	head=$(tree_id)
	expect "a second refresh" works 'refresh: 3 patches' make refresh
	report "changes nothing" test "$before $head" = "$(files_id) $(tree_id)"
	expect "the round trips hold" works 'ok - git am of the exported mails' scripts/series/convert.sh check
	report "all of them" test "$(grep -c '^ok' "$said")" -eq 3
	report "the cover letter is filled in" grep -q 'RFC PATCH 0/3\] mm: a series' "$clone/build/mails/0000-cover-letter.patch"
	mv "$clone/build" "$clone/build.old"
	expect "a tree from nothing" works 'tree: 3 patches' make tree KSRC="$ksrc"
	report "gives the same commit" test "$head" = "$(tree_id)"
	rm -rf "$clone/build.old"
}

test_refusals()
{
	local before head

	before=$(files_id)
	head=$(tree_id)
	echo x >>"$tree/mm/gup.c"
	expect "refresh of uncommitted work" fails 'has uncommitted work' make refresh
	expect "distclean with uncommitted work" fails 'has uncommitted work' make distclean
	echo y >>"$tree/mm/tests/new.c"
	commit 'mm: edit the new file'
	expect "a new file that is edited again" fails 'mm/tests/new.c is added by "mm: only new files" and edited' make refresh
	expect "distclean with commits of one's own" fails 'not written back' make distclean
	expect "export with commits of one's own" fails 'make refresh first' make series
	git -C "$tree" reset -q --hard "$head"
	echo y >>"$tree/mm/gup.c"
	commit "mm: a message$(printf '\n\nAbove\n---\nbelow')"
	expect "a message that a mail would cut" fails 'would not give back the commits' make refresh
	git -C "$tree" reset -q --hard "$head"

	echo z >>"$tree/mm/gup.c"
	commit 'mm: one more'
	echo edited >>"$clone/mm/tests/new.c"
	expect "tree when both sides changed" fails 'the files of the series changed, but' make tree
	expect "refresh when both sides changed" fails 'refresh would undo that' make refresh
	git -C "$tree" reset -q --hard "$head"
	expect "tree takes an edited new file" works 'tree: 3 patches' make tree
	report "and has it" grep -q edited "$tree/mm/tests/new.c"
	printf 'no newline at its end' >"$clone/mm/tests/new.c"
	expect "and back" works 'tree: 3 patches' make tree
	mkdir -p "$clone/lib"
	echo 'of this repository' >"$clone/lib/clash.c"
	mkdir -p "$tree/lib"
	echo 'of the tree' >"$tree/lib/clash.c"
	commit 'lib: clash'
	expect "a new file where this repository has another" fails 'the series adds lib/clash.c, but' make refresh
	git -C "$tree" reset -q --hard "$head"
	rm "$clone/lib/clash.c"
	report "refusals change no file" test "$before" = "$(files_id)"
	report "nor the tree" test "$head" = "$(tree_id)"
}

test_apply()
{
	local head patch

	head=$(tree_id)
	patch=$(echo "$series"/0001-*.patch)
	cp "$patch" "$work/patch"
	sed -i 's/^ 9$/ nine/' "$patch"
	expect "a patch that does not apply is named, with its file" fails \
		"0001-mm-gup-ten.patch does not apply to mm/gup.c" make tree
	report "the tree is as before" test "$head" = "$(tree_id)"
	cp "$work/patch" "$patch"
	expect "mended, it goes on" works '' make tree

	git -C "$tree" reset -q --hard HEAD~1
	expect "a commit taken out" works 'removed mm/tests/last.c' make refresh
	report "takes its patch out" test "$(find "$series" -name '*.patch' | wc -l)" -eq 2
	expect "distclean" works '' make distclean
	report "leaves nothing" test ! -e "$clone/build"
}

test_lock()
{
	mkdir -p "$clone/build"
	exec 8>"$clone/build/lock"
	flock 8
	expect "a second make in the same BUILD" fails 'another make is at work' make tree KSRC="$ksrc"
	exec 8>&-
}

# race TITLE ACCESS LINE...: a report of KCSAN
race()
{
	printf '%s\n' ============ "BUG: KCSAN: data-race in $1" '' "$2 by task 1 on cpu 0:" "${@:3}" '' ============ |
		sed 's/^/[    1.234567][   T12] /; s/$/\r/'
}

# Next to pin_gate_wait(), further away, in pin_gate_open(), in its compound_head(), and
# with the flags of the current task
races_log()
{
	race 'schedule+0x1/0x2 / other+0x3/0x4' 'read to 0xffff888003c0f018 of 8 bytes' ' schedule+0x1/0x2' ' pin_gate_wait+0x5/0x6'
	race 'tick / tick' 'read-write to 0xffff888003c0f020 of 4 bytes' ' tick+0x1/0x2' ' do_tick+0x1a/0x20' ' pin_gate_wait+0x7/0x8'
	race 'a_reader / pin_gate_open' 'write to 0xffff888003c0f020 of 4 bytes' ' pin_gate_open+0x7/0x8'
	race 'list_user / pin_gate_open' 'read (marked) to 0xffd4000000bde0c8 of 8 bytes' ' pin_gate_open+0x7/0x8'
	race 'pin_gate_wait+0x1/0x2' 'race at unknown origin, with read to 0xff11000000bb166c of 4 bytes' ' pin_gate_wait+0x1/0x2' '' \
		'value changed: 0x20400040 -> 0x00400040'
}

found_races()
{
	awk -v functions='pin_gate_wait pin_gate_open' "$@" -f scripts/check/races.awk "$work/console"
}

test_races()
{
	races_log >"$work/console"
	expect "data races of certain functions are found" works 'pin_gate_wait+0x5' found_races
	report "both of them, and no other" \
		test "$(grep KCSAN: "$said" | sed 's/.* //' | xargs)" = 'other+0x3/0x4 pin_gate_open'
	expect "but for known ones" works 'schedule+0x1' found_races -v known=$'x / y;\n\ta_reader / pin_gate_open'
	report "of that title" test "$(grep -c KCSAN: "$said")" -eq 1
	sed -i 's/-> 0x00400040/-> 0x00400041/; s/read (marked) to/read to/' "$work/console"
	expect "another flag of the task is none of them" works '-> 0x00400041' found_races
	report "nor is a plain read of compound_head" test "$(grep -c KCSAN: "$said")" -eq 4
}

new_ksrc
new_clone
test_races
test_variables
test_base
test_roundtrip
test_refusals
test_apply
test_lock
new_clone
mkdir "$clone/build"
test_download
new_clone
test_minutes
