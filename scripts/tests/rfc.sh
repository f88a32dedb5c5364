#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Tests of rfc.sh, as TAP.

# shellcheck source=scripts/tests/clone.sh
. "$(dirname "$0")/clone.sh"

rfc=$clone/build/rfc/core
export PART=core
me='Jürgen van Doe <j.doe@mail.example.org>'

# sent_series: in a repository, where version 1 was sent from; checkpatch.pl and
# get_maintainer.pl are easy to foresee
sent_series()
{
	program "$ksrc/scripts/checkpatch.pl" <<<$'#!/bin/sh\necho "$COMPLAINT"'
	program "$ksrc/scripts/get_maintainer.pl" <<-'END'
		#!/bin/sh
		echo 'A Maintainer <a@mm.example.org> (maintainer:MEMORY (ALL OF IT))'
		echo '"B. Reviewer" <b@mm.example.org> (reviewer:MEMORY)'
		echo 'linux-mm@kvack.org (open list:MEMORY)'
	END
	make -s -C "$clone" tree 2>"$said"
	commit_series
	refresh
	git init -q "$clone"
	git -C "$clone" add patches mm
	git -C "$clone" commit -q -m 'version 1'
	git -C "$clone" tag v1
}

refresh()
{
	make -s -C "$clone" refresh >"$said" 2>&1
}

# mails_with PATTERN: how many mails have such a line
mails_with()
{
	grep -l -e "$1" "$rfc"/*.patch | wc -l
}

test_refusals()
{
	expect "a SIGNOFF without an address" fails 'Right values: the name and' \
		env SIGNOFF='Jane Doe' scripts/series/rfc.sh
	expect "a second line in SIGNOFF" fails 'Right values: the name and' \
		env SIGNOFF=$'Jane <jane@example.org>\nAcked-by: X <x@example.org>' scripts/series/rfc.sh
	expect "SINCE for a first version" fails 'say V=2 as well' env SINCE=v1 scripts/series/rfc.sh
	expect "a part that is never sent" fails 'PART=kit is not known' env PART=kit scripts/series/rfc.sh
}

test_fixes()
{
	rfc=$clone/build/rfc/fixes
	expect "the fixes" works 'rfc: 1 patches in' env PART=fixes SIGNOFF="$me" scripts/series/rfc.sh
	report "are mails by themselves" test "$(mails_with '^Subject: \[PATCH\] mm/gup: ten$')" -eq 1
	report "go to their maintainers" test "$(mails_with '^To: A Maintainer <a@mm.example.org>$')" -eq 1
	report "go to no list of the core" test "$(mails_with io-uring@)" -eq 0
	rfc=$clone/build/rfc/core
}

test_unsigned()
{
	local line

	expect "mails without SIGNOFF" works 'carry no Signed-off-by' scripts/series/rfc.sh
	report "carry none" test "$(mails_with '^Signed-off-by')" -eq 0
	report "are numbered" test "$(mails_with '^Subject: \[RFC PATCH [0-2]/2\] mm')" -eq 3
	report "name the base" test "$(mails_with '^The base is Linux 7.3.4 from a tree of')" -eq 1
	report "name the fixes" test "$(mails_with '^prerequisite-patch-id: ')" -eq 1
	for line in 'To: linux-mm@kvack.org,' '    A Maintainer <a@mm.example.org>' \
		'Cc: io-uring@vger.kernel.org,' '    "B. Reviewer" <b@mm.example.org>'; do
		report "all have: $line" test "$(mails_with "^$line\$")" -eq 3
	done
}

test_signed()
{
	sed -i 's/^11$/eleven/' "$tree/mm/cma.c"
	git -C "$tree" commit -q -a --amend --no-edit
	refresh
	expect "a signed second version" works 'are signed by J.*rgen van Doe' \
		env V=2 SINCE=v1 SIGNOFF="$me" scripts/series/rfc.sh
	report "has its number" test "$(mails_with '^Subject: \[RFC PATCH v2 [0-2]/2\] mm')" -eq 3
	report "has the sign-off" test "$(mails_with "^Signed-off-by: $me\$")" -eq 2
	report "is from who signs" test \
		"$(mails_with '^From: =?UTF-8?q?J=C3=BCrgen=20van=20Doe?= <j.doe@mail.example.org>$')" -eq 3
	report "has a range-diff, in which one patch differs" test \
		"$(grep -c -e '^1: .* = 1: ' -e '^2: .* ! 2: ' "$rfc/v2-0000-cover-letter.patch")" -eq 2
}

test_failures()
{
	local before

	before=$(files_id "$rfc")
	expect "a complaint of checkpatch.pl" fails 'not so: checkpatch' env COMPLAINT='too ugly' scripts/series/rfc.sh
	git -C "$tree" commit -q --amend -m $'mm/cma: fine\n\nSigned-off-by: Some Body <some@body.example.org>'
	refresh
	expect "a part that ends with no patch" fails 'no patch is called "mm/cma: an edit' scripts/series/rfc.sh
	echo 'core mm/cma: fine' >"$series/parts"
	expect "somebody else's sign-off" fails 'other sign-offs' env SIGNOFF="$me" scripts/series/rfc.sh
	report "the mails are as before" test "$before" = "$(files_id "$rfc")"
}

sent_series
test_refusals
test_fixes
test_unsigned
test_signed
test_failures
