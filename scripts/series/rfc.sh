#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A part of the series as final mails in BUILD/rfc/PART, with recipients, and
# checked. What is left for a person is to understand them, to sign them, and to
# press send.
#
#   PART=NAME              fixes: each alone, to its own recipients; core: the RFC;
#                          follow-up: on top of that
#   SIGNOFF="Name <mail>"  the submitter, who becomes the author and signs
#   V=2                    the number of the version, if it is not the first
#   SINCE=REF              the commit or tag of this repository from which the
#                          version before was sent, for a range-diff

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"

[[ $BASE == 7.3 ]] ||
	die "BASE=$BASE: a backport is not for linux-mm, which takes patches for the next kernel: leave BASE= out." \
		"For a tree of your own, make series BASE=$BASE writes mails that git am takes"
PART=${PART:-}
V=${V:-1}
SIGNOFF=${SIGNOFF:-}
SINCE=${SINCE:-}
word='[^][<>()@",;:[:space:][:cntrl:]]+'
check_var PART 'fixes|core|follow-up' 'fixes, core, follow-up'
[[ -n $PART ]] || die "which part? PART=fixes, PART=core (the RFC), or PART=follow-up"
check_var V '[1-9][0-9]?' 'the number of the version to send, such as 2'
check_var SIGNOFF "$word( $word)* <$word@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+>" \
	'the name and the mail address of who sends, such as SIGNOFF="Jane Doe <jane@example.org>"'

# Lists that get_maintainer.pl cannot know of: submitters of io_uring meet gates.
LISTS=(linux-mm@kvack.org io-uring@vger.kernel.org)

# patches DIR: its mails but for the cover letter
patches()
{
	find "$1" -name '*.patch' ! -name '*-cover-letter.patch' | sort
}

# sign RANGE: those commits once more, from the submitter and with the sign-off;
# prints the new range
sign()
{
	local head commit mail=${SIGNOFF##*<}

	head=$(tgit rev-parse "${1%..*}")
	while read -r commit; do
		head=$(tgit log -1 --format=%B "$commit" |
			git interpret-trailers --no-divider --trailer "Signed-off-by: $SIGNOFF" |
			GIT_AUTHOR_NAME=${SIGNOFF% <*} GIT_AUTHOR_EMAIL=${mail%>} \
				git -C "$TREE" commit-tree -p "$head" "$commit^{tree}")
	done < <(tgit rev-list --reverse "$1")
	echo "${1%..*}..$head"
}

# previous: this part of the version before, as commits; prints their range
previous()
{
	local head

	git -C "$REPO" rev-parse -q --verify "$SINCE^{commit}" >/dev/null ||
		die "SINCE=$SINCE is no commit of this repository: name the one that the last version was sent from"
	mkdir "$work/since"
	git -C "$REPO" archive "$SINCE" | tar -x -C "$work/since"
	head=$("$REPO/scripts/series/convert.sh" commits "$work/since")
	"$REPO/scripts/series/convert.sh" part "$PART" "$work/since" "$head"
}

# recipients RANGE: options for git format-patch, from what get_maintainer.pl says
recipients()
{
	{
		[[ $PART == fixes ]] || printf '%s\n' "${LISTS[@]}"
		tgit diff "$1" | (cd "$TREE" && scripts/get_maintainer.pl --nogit --nogit-fallback)
	} | awk -v part="$PART" '{
		person = match($0, />/)
		who = person ? substr($0, 1, RSTART) : $1
		if (!seen[who]++)
			print ((NR == 1 && part != "fixes") || / \((maintainer|supporter):/ ? "--to=" : "--cc=") who
	}'
}

# about_base: what the ids at the end of the cover letter stand for
about_base()
{
	local origin version

	origin=$(cat "$BUILD/tree.origin")
	version=$(tgit log -1 --format=%s base)
	if [[ $origin == KSRC* ]]; then
		origin='a tree of the submitter'
	else
		origin="Debian's package $(echo "${origin%_all.deb}" | tr _ ' '), with Debian's patches"
	fi
	fmt -w 72 <<-END
		The base is Linux ${version##* } from $origin. Its files were committed
		to git as they are, without history, so base-commit is not in the kernel's
		repository. It stands for the tree object
		$(tgit rev-parse 'base^{tree}').
	END
	echo
}

# complete_cover MAIL: from whom the patches are, and on what base
complete_cover()
{
	local from

	from=$(sed '/^From: /!d;q' "$(patches "$rfc" | head -n 1)")
	about_base >"$work/about"
	awk -v from="$from" -v about="$work/about" '
		/^From: / && !n++ { $0 = from }
		/^base-commit: / { while ((getline s < about) > 0) print s }
		{ print }' "$1" >"$work/cover"
	mv "$work/cover" "$1"
}

# mbox DIR: its mails as a thread, for b4. That wants message-ids, and Debian's
# b4 0.12 stumbles over folded subjects. Real ids come with the sending.
mbox()
{
	cat "$1"/*.patch | awk '
		/^From [0-9a-f]+ Mon Sep 17 00:00:00 2001$/ {
			header = 1
			print
			printf "Message-ID: <%04d@rfc.invalid>\n", n
			if (n++)
				print "In-Reply-To: <0000@rfc.invalid>"
			next
		}
		folded && /^ / { printf "%s", $0; next }
		folded { print ""; folded = 0 }
		/^$/ { header = 0 }
		header && /^Subject: / { printf "%s", $0; folded = 1; next }
		{ print }'
}

# write_fixes OPTION...: each patch by itself, to those whom it concerns
write_fixes()
{
	local n=0 commit whom

	while read -r commit; do
		n=$((n + 1))
		readarray -t whom < <(recipients "$commit^..$commit")
		"$REPO/scripts/series/convert.sh" format "$rfc" '' "$commit^..$commit" --start-number "$n" "$@" "${whom[@]}"
	done < <(tgit rev-list --reverse "$range")
}

# write_thread OPTION...: a cover letter and numbered patches, all to everybody
write_thread()
{
	local cover=cover-letter.txt since='' whom

	[[ $PART == core ]] || cover=cover-$PART.txt
	if [[ -n $SINCE ]]; then
		since=$(previous)
		[[ -z $SIGNOFF ]] || since=$(sign "$since")
		set -- "$@" "--range-diff=$since"
	fi
	readarray -t whom < <(recipients "$range")
	"$REPO/scripts/series/convert.sh" format "$rfc" "$cover" "$range" "$@" "${whom[@]}"
	complete_cover "$rfc"/*-cover-letter.patch
	mbox "$rfc" >"$rfc/series.mbox"
}

write_mails()
{
	local options=(--base=base)

	[[ $V -eq 1 ]] || options+=("-v$V")
	[[ -z $SIGNOFF ]] || range=$(sign "$range")
	if [[ $PART == fixes ]]; then
		write_fixes "${options[@]}"
	else
		write_thread "${options[@]}"
	fi
}

# check NAME CMD...: say that it holds; if it does not, what CMD says is the end
check()
{
	local name=$1 output

	shift
	output=$("$@" 2>&1) || die "not so: $name"$'\n'"$output"
	say "ok: $name"
}

# gives_tree DIR: do the mails in DIR, applied to what they follow, give the part?
gives_tree()
{
	[[ $("$REPO/scripts/series/convert.sh" am "$1" "${range%..*}") == "$(tgit rev-parse "${range#*..}^{tree}")" ]]
}

check_style()
{
	local options=() output

	[[ -n $SIGNOFF ]] || options=(--no-signoff)
	output=$(patches "$rfc" | while read -r mail; do
		checkpatch "$mail" "${options[@]}" || :
	done)
	echo "$output"
	[[ -z $output ]]
}

# check_signatures: the submitter's in each patch, and nobody else's in any
check_signatures()
{
	local mail wanted=${SIGNOFF:+Signed-off-by: $SIGNOFF}

	patches "$rfc" | while read -r mail; do
		[[ $(sed '/^---$/q' "$mail" | grep -i '^signed-off-by:') == "$wanted" ]] ||
			die "$(basename "$mail") has other sign-offs"
	done
}

check_send_email()
{
	(cd "$TREE" && git send-email --dry-run --confirm=never --suppress-cc=all \
		--from="${SIGNOFF:-$GIT_AUTHOR_NAME <$GIT_AUTHOR_EMAIL>}" "$rfc"/*.patch)
}

check_b4()
{
	mkdir "$work/b4"
	(cd "$TREE" && HOME=$work b4 --offline-mode --no-interactive --no-stdin \
		am --no-cover -n series -o "$work/b4" -m "$rfc/series.mbox") &&
		mv "$work"/b4/*.mbx "$work/b4/series.patch" &&
		gives_tree "$work/b4"
}

checks()
{
	check "git am of the mails, on what they follow, gives the tree of the series there" gives_tree "$rfc"
	check "checkpatch --strict has nothing to say" check_style
	check "the patches are signed by ${SIGNOFF:-nobody}${SIGNOFF:+, and nobody else}" check_signatures
	check "git send-email would send them (--dry-run)" check_send_email
	[[ $PART == fixes ]] || check "b4 am of series.mbox gives the same tree" check_b4
}

notes()
{
	[[ -n $SIGNOFF ]] ||
		say "note: these mails carry no Signed-off-by, so they are for reading only. Who has read, understood and" \
			"tested them, and wants to send them, says SIGNOFF=\"Name <mail>\""
	! grep -q '@@[A-Z]*@@' "$rfc"/*.patch ||
		say "note: the cover letter has a place that the submitter must fill in:" \
			"$(grep -h -o '@@[A-Z]*@@' "$rfc"/*.patch | sort -u | xargs)"
	[[ $V -eq 1 || -n $SINCE ]] ||
		say "note: no range-diff to version $((V - 1)); SINCE=REF gives one"
}

[[ -z $SINCE || $V -gt 1 ]] || die "SINCE=$SINCE is for a version after the first: say V=2 as well"
lock
"$REPO/scripts/series/convert.sh" export
work=$(mktemp -d "$BUILD/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
rfc=$work/rfc
range=$("$REPO/scripts/series/convert.sh" part "$PART")
mkdir "$rfc"
write_mails
checks
notes
rm -rf "$BUILD/rfc/$PART"
mkdir -p "$BUILD/rfc"
mv "$rfc" "$BUILD/rfc/$PART"
say "rfc: $(patches "$BUILD/rfc/$PART" | wc -l) patches$([[ $PART == fixes ]] || echo " and a cover letter") in" \
	"$BUILD/rfc/$PART"
