#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What the kernel's documentation tools say about the series, but not about the
# base, as TAP. Only the pages that the series touches are built: the whole of
# htmldocs takes long, and warns a lot.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"

# What Sphinx needs beside the pages
SPHINX=(Documentation/conf.py Documentation/sphinx Documentation/sphinx-includes Documentation/sphinx-static
	MAINTAINERS)
TOOLS=(tools/docs tools/lib/python tools/net/ynl/pyynl)

changed()
{
	tgit diff --name-only --no-renames base series -- "$@"
}

# quoted_sources: the files whose kernel-doc the changed pages quote
quoted_sources()
{
	local page

	for page in "${pages[@]}"; do
		tgit show "series:$page" | sed -n 's/^\.\. kernel-doc:: *//p'
	done
}

# take_files REV: what is looked at, and the tools for that, as they are in REV
take_files()
{
	local files

	readarray -t files < <(tgit ls-tree -r --name-only "$1" -- "${SPHINX[@]}" "${TOOLS[@]}" \
		Documentation/ABI "${pages[@]}" "${sources[@]}")
	mkdir "$work/$1"
	tgit archive "$1" "${files[@]}" | tar -x -C "$work/$1"
}

# sphinx: build the pages; prints the warnings
sphinx()
{
	srctree=$PWD sphinx-build -q -b html -c Documentation -d ../doctrees -D version=7.3 -D release=7.3 \
		-D kerneldoc_srctree="$PWD" -D html_theme=alabaster -D master_doc=mm/index Documentation ../html
}

kernel_doc()
{
	local file present=()

	for file in "${sources[@]}"; do
		[[ ! -e $file ]] || present+=("$file")
	done
	tools/docs/kernel-doc -Wall -none "${present[@]}"
}

abi()
{
	tools/docs/get_abi.py --dir Documentation/ABI validate
}

# says TOOL REV: what a tool says about REV, without line numbers
says()
{
	rm -rf "$work/doctrees" "$work/html"
	(cd "$work/$2" && "$1" 2>&1 || echo "$1 failed on $2") |
		sed -E "s,$work/$2/,,g; s/:[0-9]+\b//g" | sort
}

# nothing_new NAME TOOL
nothing_new()
{
	says "$2" base >"$work/$2.base"
	says "$2" series >"$work/$2.series"
	report_silent "$1" comm -13 "$work/$2.base" "$work/$2.series"
}

# references: files under Documentation that the series names, but that do not exist
references()
{
	(cd "$TREE" && tools/docs/documentation-file-ref-check 2>&1 || :) | while IFS=': ' read -r file name; do
		tgit diff base series -- "$file" | grep -q "^+.*$name" && echo "$file: $name"
	done || :
}

failed=0
lock
[[ -d $TREE ]] || die "no tree in $TREE: make tree first"
work=$(mktemp -d "$BUILD/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
export PYTHONPYCACHEPREFIX=$work/pycache
readarray -t pages < <(changed 'Documentation/*.rst')
readarray -t sources < <({ changed '*.[ch]'; quoted_sources; } | sort -u)
take_files base
take_files series
nothing_new "Sphinx has no new warning about ${#pages[@]} pages" sphinx
nothing_new "kernel-doc -Wall has no new warning about ${#sources[@]} sources" kernel_doc
nothing_new "get_abi.py has no new warning about Documentation/ABI" abi
report_silent "the files under Documentation that the series names exist" references
exit "$failed"
