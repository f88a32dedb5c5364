#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The series as files here and as commits in BUILD/tree.
#
#   convert.sh tree     make the tree's branch "series" from the files
#   convert.sh refresh  write the tree's commits back to the files
#   convert.sh export   complete mails to BUILD/mails
#   convert.sh check    the round trips, as TAP
#   convert.sh saved    fail if the tree has what the files have not
#
# For other scripts:
#
#   convert.sh mails DIR                 complete mails, made without a tree
#   convert.sh commits ROOT              the files below ROOT as commits on base;
#                                       prints the last one
#   convert.sh format DIR COVER RANGE [OPTION...]  RANGE as mails, with COVER as
#                                       the cover letter, if it is not empty;
#                                       options of git format-patch
#   convert.sh part NAME [ROOT HEAD]     the range of commits that a part of the
#                                       series is: of the tree, or of HEAD, made
#                                       from the files below ROOT
#   convert.sh am DIR [COMMIT]           git am DIR's mails to COMMIT (base); prints
#                                       the tree object
#
# Files: patches/v7.3/NNNN-subject.patch holds a commit's message and its edits
# of existing files; a file that the series adds lies here at its in-tree path,
# and patches/v7.3/manifest says which patch brings it ("PATCH PATH" lines).
# patches/v7.3/parts has the parts of the series in their order, each with the
# subject of its last patch ("NAME SUBJECT" lines).
#
# A backport, such as patches/v6.12 (BASE=6.12), has the same new files. What it
# must change in one of them is an edit in the patch that brings it.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"

STAMP=$BUILD/tree.stamp
# Spelled out, so that no version or configuration of git changes the files.
DIFF=(-U3 --full-index --no-renames --diff-algorithm=myers --src-prefix=a/ --dst-prefix=b/
	--no-ext-diff --no-textconv --no-color --binary)
FORMAT=("${DIFF[@]}" --no-stat -p --zero-commit --no-signature --no-base --no-thread
	--no-attach --no-cover-letter)

# manifest ROOT: its lines; an absent file is an empty one
manifest()
{
	[[ ! -e $1/$PATCHES/manifest ]] || cat "$1/$PATCHES/manifest"
}

# patches ROOT: its patches in order, relative to ROOT; there may be none yet
patches()
{
	[[ ! -d $1/$PATCHES ]] || (cd "$1" && find "$PATCHES" -name '*.patch' | sort)
}

# inputs_id ROOT: one name for the state of all files of the series
inputs_id()
{
	(
		cd "$1"
		patches . | xargs -r sha256sum
		manifest . | while read -r patch path; do
			[[ -f $path ]] || die "$PATCHES/manifest: $patch brings $path, which does not exist here"
			stat -c %A "$path" | cut -c4
			sha256sum "$path"
		done
		manifest .
	) | hash_id
}

# mails ROOT DIR: complete mails, that is with the new files as diffs in them
mails()
{
	local patch path new

	mkdir -p "$2"
	manifest "$1" | while read -r patch path; do
		[[ -f $1/$PATCHES/$patch ]] ||
			die "$PATCHES/manifest: $path belongs to $patch, which does not exist"
		[[ -f $1/$path ]] ||
			die "$PATCHES/manifest: $patch brings $path, which does not exist here"
	done
	patches "$1" | while read -r path; do
		patch=$(basename "$path")
		{
			# A new file comes before its edits.
			sed '/^diff --git /,$d' "$1/$path"
			manifest "$1" | awk -v p="$patch" '$1 == p { print $2 }' | while read -r new; do
				(cd "$1" && git diff --no-index "${DIFF[@]}" -- /dev/null "$new") || :
			done
			sed -n '/^diff --git /,$p' "$1/$path"
		} >"$2/$patch"
	done
}

# commit_mails DIR: commits on top of base without touching the worktree;
# prints the last one. A mail that does not apply leaves no trace.
commit_mails()
{
	local head tree mail path

	export GIT_INDEX_FILE=$WORK/index
	head=$(tgit rev-parse base)
	tgit read-tree base
	for mail in "$1"/*.patch; do
		[[ -e $mail ]] || break
		git mailinfo "$WORK/body" "$WORK/diff" <"$mail" >"$WORK/info"
		{
			sed -n 's/^Subject: //p' "$WORK/info"
			echo
			cat "$WORK/body"
		} | git stripspace >"$WORK/message"
		tgit apply --cached --whitespace=nowarn "$WORK/diff" 2>"$WORK/errors" || {
			cat "$WORK/errors" >&2
			path=$(sed -n '/^error: /{s/^error: \(patch failed: \)\{0,1\}\([^:]*\):.*/\2/p;q}' "$WORK/errors")
			die "$PATCHES/$(basename "$mail") does not apply to ${path:-the base}:" \
				"mend the patch, or take the base it was made for"
		}
		tree=$(tgit write-tree)
		head=$(tgit commit-tree -p "$head" -F "$WORK/message" "$tree")
	done
	echo "$head"
}

# commit_files ROOT: the files of the series as commits; prints the last one
commit_files()
{
	rm -rf "$WORK/mails"
	mails "$1" "$WORK/mails"
	commit_mails "$WORK/mails"
}

stamp_inputs()
{
	[[ ! -e $STAMP ]] || cut -d' ' -f1 "$STAMP"
}

# stamp_head: the commit that the files gave, or base if there is no series yet
stamp_head()
{
	if [[ -e $STAMP ]]; then
		cut -d' ' -f2 "$STAMP"
	else
		tgit rev-parse base
	fi
}

write_stamp()
{
	echo "$1 $2" >"$STAMP.tmp"
	mv "$STAMP.tmp" "$STAMP"
}

tree_dirty()
{
	[[ -n $(tgit status --porcelain) ]]
}

tree_ahead()
{
	[[ $(tgit rev-parse HEAD) != "$(stamp_head)" ]]
}

cmd_tree()
{
	local inputs head

	"$REPO/scripts/series/fetch-base.sh"
	inputs=$(inputs_id "$REPO")
	if [[ $inputs == "$(stamp_inputs)" ]]; then
		! tree_ahead || say "note: $TREE has commits that 'make refresh' has not written back; using them"
		return
	fi
	! tree_ahead ||
		die "the files of the series changed, but $TREE has commits of its own: 'make refresh' in the state" \
			"they were made from, or set them aside (git -C $TREE branch mine; git -C $TREE checkout $(stamp_head))"
	! tree_dirty ||
		die "the files of the series changed, but $TREE has uncommitted work: commit or stash it there," \
			"then set it aside (git branch mine) and check out $(stamp_head)"
	head=$(commit_files "$REPO")
	tgit checkout -q -B series "$head"
	write_stamp "$inputs" "$head"
	say "tree: $(tgit rev-list --count base..series) patches on $(tgit log -1 --format=%s base) in $TREE"
}

cmd_saved()
{
	! tree_ahead || die "$TREE has commits that are not written back: make refresh, or remove $TREE by hand"
	! tree_dirty || die "$TREE has uncommitted work: commit it and make refresh, or remove $TREE by hand"
}

# edits_only: filter a mail, leaving out the diffs that add a file
edits_only()
{
	awk '/^diff --git / { held = $0; next }
		held { skip = /^new file mode /; if (!skip) print held; held = "" }
		!skip'
}

# check_folded: a file of the series comes whole, by one commit
check_folded()
{
	local commit path adder

	tgit rev-list --reverse base..HEAD | while read -r commit; do
		tgit diff-tree -r --no-commit-id --no-renames --name-only --diff-filter=a "$commit" |
			while read -r path; do
				tgit cat-file -e "base:$path" 2>/dev/null && continue
				adder=$(tgit log --diff-filter=A --no-renames --format=%s base..HEAD -- "$path" | tail -n 1)
				die "$path is added by \"$adder\" and edited by \"$(tgit log -1 --format=%s "$commit")\":" \
					"fold the edit into the first (git rebase -i base), then make refresh"
			done
	done
}

# share ROOT PATH PATCH: for a backport, the file of the series instead of its own
# below ROOT, and in the patch what is different
share()
{
	[[ -f $REPO/$2 ]] || die "the backport adds $2, which the series does not have: it belongs there"
	cmp -s "$REPO/$2" "$1/$2" || {
		echo "diff --git a/$2 b/$2"
		diff -u --label "a/$2" --label "b/$2" "$REPO/$2" "$1/$2" || :
	} >>"$1/$PATCHES/$3"
	cp -p "$REPO/$2" "$1/$2"
}

# write_files ROOT: the tree's commits as files below ROOT
write_files()
{
	local n=0 commit name path mode

	mkdir -p "$1/$PATCHES"
	: >"$1/$PATCHES/manifest"
	while read -r commit; do
		n=$((n + 1))
		name=$(tgit format-patch -1 "${FORMAT[@]}" --start-number $n -o "$1" "$commit")
		name=$(basename "$name")
		# Headers end at the first empty line; the message keeps its From: lines.
		edits_only <"$1/$name" |
			sed -e "1,/^\$/s/^From: .*/From: $GIT_AUTHOR_NAME <$GIT_AUTHOR_EMAIL>/" \
				-e "1,/^\$/s/^Date: .*/Date: $GIT_AUTHOR_DATE/" >"$1/$PATCHES/$name"
		rm "$1/$name"
		tgit diff-tree -r --no-commit-id --no-renames --name-only --diff-filter=A "$commit" |
			while read -r path; do
				mkdir -p "$1/$(dirname "$path")"
				tgit cat-file blob "$commit:$path" >"$1/$path"
				mode=$(tgit ls-tree "$commit" -- "$path" | cut -c4-6)
				chmod "$mode" "$1/$path"
				echo "$name $path" >>"$1/$PATCHES/manifest"
				[[ $BASE == 7.3 ]] || share "$1" "$path" "$name"
			done
	done < <(tgit rev-list --reverse base..HEAD)
}

# same_commits A B: the same files and messages at each commit?
same_commits()
{
	[[ $(tgit log --format=%T%n%B "base..$1") == "$(tgit log --format=%T%n%B "base..$2")" ]]
}

# install_files ROOT: move what differs from ROOT to the repository, one rename
# per file, and remove what the series no longer has
install_files()
{
	local file

	(cd "$1" && find . -type f -printf '%P\n' | sort) | while read -r file; do
		if ! cmp -s "$1/$file" "$REPO/$file" || [[ $(stat -c %a "$1/$file") != $(stat -c %a "$REPO/$file") ]]; then
			mkdir -p "$REPO/$(dirname "$file")"
			mv "$1/$file" "$REPO/$file"
			say "wrote $file"
		fi
	done
}

# series_files ROOT: what belongs to this series alone
series_files()
{
	patches "$1"
	[[ $BASE != 7.3 ]] || manifest "$1" | cut -d' ' -f2
}

remove_stale()
{
	local file

	series_files "$REPO" | sort >"$WORK/old"
	series_files "$1" | sort >"$WORK/new"
	comm -23 "$WORK/old" "$WORK/new" | while read -r file; do
		rm -f "${REPO:?}/$file"
		say "removed $file"
	done
}

# check_clash ROOT: never overwrite a file of the repository that no patch brought
check_clash()
{
	local path

	manifest "$1" | cut -d' ' -f2 | while read -r path; do
		[[ ! -e $REPO/$path ]] || cmp -s "$1/$path" "$REPO/$path" ||
			manifest "$REPO" | cut -d' ' -f2 | grep -qxF "$path" ||
			die "the series adds $path, but this repository has another file there that is not in" \
				"$PATCHES/manifest: move one of them"
	done
}

cmd_refresh()
{
	local tmp head

	[[ -d $TREE ]] || die "no tree in $TREE to refresh from: make tree first"
	! tree_dirty || die "$TREE has uncommitted work: commit it there (git add -f for new files), then make refresh"
	[[ ! -e $STAMP || $(inputs_id "$REPO") == "$(stamp_inputs)" ]] ||
		die "the files of the series changed since $TREE was made from them, refresh would undo that:" \
			"put them back (git stash), or set the tree's commits aside and make tree"
	tgit merge-base --is-ancestor base HEAD || die "HEAD of $TREE does not descend from base"
	[[ -z $(tgit rev-list --merges base..HEAD) ]] || die "$TREE has merge commits: make it one line (git rebase base)"
	check_folded
	mkdir -p "$REPO/$PATCHES"
	tmp=$(mktemp -d "$REPO/patches/.refresh.XXXXXX")
	trap 'rm -rf "$WORK" "$REPO"/patches/.refresh.*' EXIT
	write_files "$tmp"
	check_clash "$tmp"
	head=$(commit_files "$tmp")
	same_commits "$head" HEAD ||
		die "the files would not give back the commits of $TREE, so nothing was written:" \
			"look for a message that a mail would change, such as a line that starts with '---' or 'diff '"
	remove_stale "$tmp"
	install_files "$tmp"
	tgit checkout -q -B series "$head"
	write_stamp "$(inputs_id "$REPO")" "$head"
	say "refresh: $(tgit rev-list --count base..series) patches written to $PATCHES"
}

# part NAME [ROOT HEAD]: its commits, as FROM..TO
part()
{
	local root=${2:-$REPO} head=${3:-series} name subject commit from=base

	[[ -r $root/$PATCHES/parts ]] || die "no $PATCHES/parts${2:+ in that version}: it says what belongs to which part"
	while read -r name subject; do
		commit=$(tgit log --format='%H %s' "base..$head" | awk -v s="$subject" 'substr($0, 42) == s { print $1 }')
		[[ -n $commit ]] || die "$PATCHES/parts: no patch is called \"$subject\", with which part $name should end"
		[[ $name != "$1" ]] || {
			echo "$from..$commit"
			return
		}
		from=$commit
	done <"$root/$PATCHES/parts"
	die "PART=$1 is no part of the series. Right ones: $(cut -d' ' -f1 "$root/$PATCHES/parts" | xargs)"
}

# format DIR COVER RANGE [OPTION...]: the commits as mails; with the file COVER in
# $PATCHES numbered and below that as the cover letter
format()
{
	local text=${2:+$REPO/$PATCHES/$2} dir=$1 range=$3 options=(--no-numbered) mail

	[[ -z $text || -s $text ]] || die "no $PATCHES/$2: write one (subject, empty line, text)"
	[[ -z $text ]] || options=(--numbered --cover-letter --subject-prefix='RFC PATCH')
	shift 3
	tgit format-patch -q -U3 --no-renames --binary --abbrev=12 --zero-commit --no-signature --no-base \
		--no-thread "${options[@]}" -o "$dir" "$@" "$range"
	[[ -n $text ]] || return 0
	mail=$(echo "$dir"/*0000-cover-letter.patch)
	awk -v text="$text" '
		/\*\*\* SUBJECT HERE \*\*\*/ { getline s < text; sub(/\*\*\* SUBJECT HERE \*\*\*/, ""); print $0 s; next }
		/\*\*\* BLURB HERE \*\*\*/ { getline s < text; while ((getline s < text) > 0) print s; next }
		{ print }' "$mail" >"$dir/cover.tmp"
	mv "$dir/cover.tmp" "$mail"
}

cmd_export()
{
	cmd_tree
	! tree_ahead || die "$TREE has commits that are not written back: make refresh first"
	format "$WORK/series" cover-letter.txt base..series
	rm -rf "$BUILD/mails"
	mv "$WORK/series" "$BUILD/mails"
	say "series: $(find "$BUILD/mails" -name '*.patch' | wc -l) mails in $BUILD/mails"
}

# am_tree DIR [COMMIT]: print the tree object that git am of DIR's mails gives on
# COMMIT, or base. Only the files that the series touches are checked out for it.
am_tree()
{
	local dir=$WORK/am

	tgit worktree prune
	tgit worktree add -q --no-checkout --detach "$dir" "${2:-base}"
	{
		echo /Makefile
		tgit diff --name-only --no-renames base series | sed 's,^,/,'
	} | git -C "$dir" sparse-checkout set --no-cone --stdin
	git -C "$dir" checkout -q
	find "$1" -name '*.patch' ! -name '*-cover-letter.patch' | sort | xargs git -C "$dir" am -q >&2
	git -C "$dir" rev-parse 'HEAD^{tree}'
	tgit worktree remove --force "$dir"
}

check_identity()
{
	local again=$WORK/again

	write_files "$again"
	[[ $(inputs_id "$again") == "$(inputs_id "$REPO")" ]] && return
	diff -r "$again/$PATCHES" "$REPO/$PATCHES" | head -n 20 | sed 's/^/# /'
	return 1
}

check_commits()
{
	[[ $(commit_files "$REPO") == "$(tgit rev-parse series)" ]]
}

check_parts()
{
	local last

	last=$(part "$(tail -n 1 "$REPO/$PATCHES/parts" | cut -d' ' -f1)")
	[[ ${last#*..} == "$(tgit rev-parse series)" ]]
}

check_am()
{
	[[ $(am_tree "$BUILD/mails") == "$(tgit rev-parse 'series^{tree}')" ]]
}

cmd_check()
{
	cmd_export
	report "files -> tree gives the commits of the tree" check_commits
	report "each patch belongs to a part" check_parts
	report "tree -> refresh gives the same files" check_identity
	report "git am of the exported mails on the base gives the same tree object" check_am
}

lock
WORK=$(mktemp -d "$BUILD/work.XXXXXX")
trap 'rm -rf "$WORK"' EXIT
case ${1:-} in
tree | refresh | export | check | saved) "cmd_$1" ;;
mails) mails "$REPO" "$2" ;;
commits) commit_files "$2" ;;
format) format "${@:2}" ;;
part) part "${@:2}" ;;
am) am_tree "${@:2}" ;;
*) die "usage: convert.sh tree|refresh|export|check|saved, or as its first lines say" ;;
esac
