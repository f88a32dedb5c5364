#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Everything that can be checked without a build, as TAP. The complete mails
# are made from the files, so a kernel tree is needed for checkpatch.pl only.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"

failed=0

# own_files: this repository's text, but for the licence, the mails, and what was
# measured
own_files()
{
	git -C "$REPO" ls-files -co --exclude-standard | grep -v -e '^LICENSES/' -e '^COPYING$' -e '\.patch$' \
		-e '^bench/results/' |
		while read -r file; do
			[[ ! -f $file || -L $file ]] || echo "$file"
		done
}

manifest()
{
	[[ ! -e $PATCHES/manifest ]] || cat "$PATCHES/manifest"
}

shell_files()
{
	own_files | while read -r file; do
		! head -n 1 "$file" | grep -q '^#!.*/\(ba\)\{0,1\}sh' || echo "$file"
	done
}

check_shell()
{
	shell_files | xargs shellcheck
}

check_python()
{
	own_files | grep '\.py$' | while read -r file; do
		python3 -c 'import ast, sys; ast.parse(open(sys.argv[1]).read(), sys.argv[1])' "$file"
	done
}

check_manifest()
{
	local patch path

	manifest | while read -r patch path; do
		[[ -f $PATCHES/$patch ]] || echo "$PATCHES/manifest names $patch, which does not exist"
		[[ -f $path ]] || echo "$PATCHES/manifest names $path, which does not exist"
	done
	manifest | cut -d' ' -f2 | sort | uniq -d | sed "s,^,$PATCHES/manifest names it twice: ,"
	grep -l '^new file mode' "$PATCHES"/*.patch 2>/dev/null |
		sed 's,$, adds a file; make refresh puts it in the manifest,'
	[[ $BASE == 7.3 ]] || return 0
	own_files | grep -E '^(mm|tools|Documentation|include|lib|kernel|fs|block|io_uring)/' |
		while read -r path; do
			manifest | cut -d' ' -f2 | grep -qxF "$path" || echo "$PATCHES/manifest does not have $path"
		done
}

check_subjects()
{
	grep -n -i -E '^Subject: \[PATCH\] *(fixup|squash|amend|wip|tmp)\b|^Subject:.*\b(fix|in) (the )?previous (patch|commit)' \
		"$PATCHES"/*.patch /dev/null
}

check_spdx()
{
	own_files | grep -v -e '^README' -e '^patches/' -e '\.cfg$' -e '\.csv$' -e '\.md$' -e '\.kunitconfig$' | while read -r file; do
		head -n 3 "$file" | grep -q 'SPDX-License-Identifier: ' || echo "$file has no SPDX line"
	done
}

# our_words: what the series itself says in messages and added lines, a file per mail
our_words()
{
	local mail

	for mail in "$work"/mails/*.patch; do
		awk '/^diff --git /{ diff = 1 } !diff && NR > 1 || /^\+/ && !/^\+\+\+/ { sub(/^\+/, ""); print }' \
			"$mail" >"$work/words/$(basename "$mail")"
	done
}

check_spelling()
{
	own_files | xargs codespell --ignore-words-list="$IGNORE_WORDS"
	codespell --ignore-words-list="$IGNORE_WORDS" "$work/words"
}

# No promise that a counterexample would break, and nobody's signature but his own.
check_words()
{
	{
		own_files
		find "$work/words" -type f
	} | xargs grep -n -i -E 'guarante[e]d|^(signed-off|reviewed|acked|tested)-by:'
}

check_whitespace()
{
	own_files | xargs grep -n -E '[[:blank:]]+$'
}

# checkpatch_mails: what it says about each mail. On every CPU: it takes longest here.
checkpatch_mails()
{
	local mail

	for mail in "$work"/mails/*.patch; do
		[[ -e $mail ]] || continue
		while [[ $(jobs -rp | wc -l) -ge $JOBS ]]; do
			wait -n || :
		done
		checkpatch "$mail" --no-signoff &>"$work/checkpatch/$(basename "$mail")" &
	done
	wait
}

# Words of the kernel that codespell takes for others.
IGNORE_WORDS=inflight

lock
[[ -d $TREE ]] || "$REPO/scripts/series/fetch-base.sh"
work=$(mktemp -d "$BUILD/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$REPO"
mkdir "$work/words" "$work/mails" "$work/checkpatch"
report_silent "manifest and files" check_manifest
scripts/series/convert.sh mails "$work/mails" 2>/dev/null
our_words 2>/dev/null
report_silent "shellcheck" check_shell
report_silent "python syntax" check_python
report_silent "no fixup commits" check_subjects
report_silent "SPDX lines" check_spdx
report_silent "spelling" check_spelling
report_silent "words that have no place here" check_words
report_silent "no blanks at line ends" check_whitespace
checkpatch_mails
for said in "$work"/checkpatch/*.patch; do
	[[ ! -e $said ]] || report_silent "checkpatch $(basename "$said")" cat "$said"
done
exit "$failed"
