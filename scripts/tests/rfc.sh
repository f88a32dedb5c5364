#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Tests of rfc.sh, as TAP.

# shellcheck source=scripts/tests/clone.sh
. "$(dirname "$0")/clone.sh"

rfc=$clone/build/rfc/core
export PART=core
me='Jürgen van Doe <j.doe@mail.example.org>'

# kernel_script NAME: one for the small kernel tree, from standard input
kernel_script()
{
	mkdir -p "$ksrc/scripts"
	cat >"$ksrc/scripts/$1"
	chmod +x "$ksrc/scripts/$1"
}

# A checkpatch.pl and a get_maintainer.pl that are easy to foresee
new_kernel_scripts()
{
	kernel_script checkpatch.pl <<-'END'
		#!/bin/sh
		for mail; do :; done
		grep -H '^+.*ugly' "$mail"
		case $* in
		*--no-signoff*) ;;
		*) grep -q '^Signed-off-by: ' "$mail" || echo "$mail: no sign-off" ;;
		esac
	END
	kernel_script get_maintainer.pl <<-'END'
		#!/bin/sh
		echo 'A Maintainer <a@mm.example.org> (maintainer:MEMORY (ALL OF IT))'
		echo '"B. Reviewer" <b@mm.example.org> (reviewer:MEMORY)'
		echo 'linux-mm@kvack.org (open list:MEMORY)'
		echo 'linux-kernel@vger.kernel.org (open list)'
	END
}

refresh()
{
	make -s -C "$clone" refresh >"$said" 2>&1
}

# parts NAME SUBJECT...: the parts of the series, each with its last patch
parts()
{
	printf '%s %s\n' "$@" >"$clone/patches/v7.3/parts"
}

# new_series: two patches in a repository, where a version 1 was sent
new_series()
{
	make -s -C "$clone" tree KSRC="$ksrc" 2>"$said"
	sed -i 's/^10$/ten/' "$tree/mm/gup.c"
	commit 'mm/gup: ten'
	echo new >"$tree/mm/new.c"
	commit 'mm: a new file'
	refresh
	parts core 'mm: a new file'
	git init -q "$clone"
	git -C "$clone" add patches mm
	git -C "$clone" commit -q -m 'version 1'
	git -C "$clone" tag v1
}

# mails_with PATTERN: how many mails have such a line
mails_with()
{
	grep -l -e "$1" "$rfc"/*.patch | wc -l
}

rfc_id()
{
	sha256sum "$rfc"/* | hash_id
}

test_refusals()
{
	expect "a SIGNOFF without an address" fails 'SIGNOFF=Jane Doe is not known. Right values: the name and the mail' \
		env SIGNOFF='Jane Doe' scripts/series/rfc.sh
	expect "a second line in SIGNOFF" fails 'Right values: the name and' \
		env SIGNOFF=$'Jane <jane@example.org>\nAcked-by: X <x@example.org>' scripts/series/rfc.sh
	expect "SINCE for a first version" fails 'say V=2 as well' env SINCE=v1 scripts/series/rfc.sh
	expect "SINCE that does not exist" fails 'SINCE=v0 is no commit of this repository' env V=2 SINCE=v0 scripts/series/rfc.sh
	expect "a part that is never sent" fails 'PART=kit is not known' env PART=kit scripts/series/rfc.sh
	parts core 'mm: a renamed file'
	expect "a part whose last patch has another name" fails 'no patch is called "mm: a renamed file"' scripts/series/rfc.sh
	parts core 'mm: a new file'
	report "no mails are left by these" test ! -e "$rfc"
}

test_unsigned()
{
	expect "without SIGNOFF it says that nothing is signed" works 'carry no Signed-off-by' scripts/series/rfc.sh
	report "and nothing is" test "$(mails_with '^Signed-off-by')" -eq 0
	report "the mails are numbered" test "$(mails_with '^Subject: \[RFC PATCH [0-2]/2\] mm')" -eq 3
	report "linux-mm is in To:" test "$(mails_with '^To: linux-mm@kvack.org,$')" -eq 3
	report "and so are maintainers" test "$(mails_with '^    A Maintainer <a@mm.example.org>$')" -eq 3
	report "and reviewers in Cc:" test "$(mails_with '^ *"B. Reviewer" <b@mm.example.org>,$')" -eq 3
	report "the base is named" grep -q '^The base is Linux 7.3.4 from a tree of the submitter' "$rfc/0000-cover-letter.patch"
}

test_signed()
{
	sed -i 's/^11$/eleven/' "$tree/mm/gup.c"
	git -C "$tree" commit -q -a --fixup=HEAD~1
	GIT_SEQUENCE_EDITOR=: git -C "$tree" rebase -q -i --autosquash base
	refresh
	expect "a signed second version" works 'ok: the patches are signed by J.*rgen van Doe' \
		env V=2 SINCE=v1 SIGNOFF="$me" scripts/series/rfc.sh
	report "has its number" test "$(mails_with '^Subject: \[RFC PATCH v2 [0-2]/2\] mm')" -eq 3
	report "has the sign-off" test "$(mails_with "^Signed-off-by: $me\$")" -eq 2
	report "is from who signs" test "$(mails_with '^From: =?UTF-8?q?J=C3=BCrgen=20van=20Doe?= <j.doe@mail.example.org>$')" -eq 3
	report "has a range-diff" grep -q '^    ++eleven$' "$rfc/v2-0000-cover-letter.patch"
	report "in which the other patch is the same" grep -q '^2: .* = 2: .* mm: a new file$' "$rfc/v2-0000-cover-letter.patch"
}

test_failures()
{
	local before

	before=$(rfc_id)
	echo ugly >>"$tree/mm/cma.c"
	commit 'mm/cma: ugly'
	refresh
	parts core 'mm/cma: ugly'
	expect "what checkpatch.pl says is the end" fails 'not so: checkpatch --strict has nothing to say' scripts/series/rfc.sh
	git -C "$tree" reset -q --hard HEAD~1
	echo fine >>"$tree/mm/cma.c"
	commit $'mm/cma: fine\n\nSigned-off-by: Some Body <some@body.example.org>'
	refresh
	parts core 'mm/cma: fine'
	expect "somebody else's sign-off" fails '0003-mm-cma-fine.patch has other sign-offs' \
		env SIGNOFF="$me" scripts/series/rfc.sh
	report "the mails are as before" test "$before" = "$(rfc_id)"
}

test_parts()
{
	git -C "$tree" reset -q --hard HEAD~1
	refresh
	parts fixes 'mm/gup: ten' core 'mm: a new file'
	expect "the fixes" works 'rfc: 1 patches in' env PART=fixes SIGNOFF="$me" scripts/series/rfc.sh
	report "are mails by themselves" grep -q '^Subject: \[PATCH\] mm/gup: ten$' "$clone/build/rfc/fixes/0001-mm-gup-ten.patch"
	report "to the maintainers" grep -q '^To: A Maintainer <a@mm.example.org>$' "$clone/build/rfc/fixes/0001-mm-gup-ten.patch"
	expect "what follows them" works 'ok: git am of the mails, on what they follow' scripts/series/rfc.sh
	report "is a thread of its own" test "$(mails_with '^Subject: \[RFC PATCH [01]/1\] mm')" -eq 2
	report "and names them" grep -q '^prerequisite-patch-id: ' "$rfc/0000-cover-letter.patch"
}

new_ksrc
new_kernel_scripts
new_clone
new_series
test_refusals
test_unsigned
test_signed
test_failures
test_parts
