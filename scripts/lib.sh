# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Sourced first by every script here: shell options, paths, messages, values
# from the make command line.

set -euo pipefail
shopt -s inherit_errexit
umask 022
export LC_ALL=C

# The calling make's variables must not reach the kernel's make, nor the
# caller's git configuration the commits and patches written here.
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES ARCH CROSS_COMPILE
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 GIT_OPTIONAL_LOCKS=0
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
BASE=${BASE:-7.3}
BUILD=${BUILD:-build}
[[ $BUILD == /* ]] || BUILD=$REPO/$BUILD
# A backport is built beside the series, in a folder of its own.
[[ $BASE == 7.3 || $BUILD == */v$BASE ]] || BUILD=$BUILD/v$BASE
# shellcheck disable=SC2034 # of those that source this
SERIES_BUILD=${BUILD%/v"$BASE"}
JOBS=${JOBS:-$(nproc)}
KSRC=${KSRC:-}
TREE=$BUILD/tree
PATCHES=patches/v$BASE
export BASE BUILD TREE PATCHES
# CMA in a guest that runs cma_gup_stress. Small areas: the more often are they
# allocated.
# shellcheck disable=SC2034 # of those that source this
STRESS_AREAS='cma=96M numa_cma=0:64M loglevel=5'

# Kernels do not say who built them, nor that the tree is a git one.
export KBUILD_BUILD_USER=cma-gup-pin KBUILD_BUILD_HOST=localhost LOCALVERSION=

# Everybody's commits get the same ids: one name, one date.
export GIT_AUTHOR_NAME='CMA GUP pin series' GIT_AUTHOR_EMAIL='cma-gup-pin@localhost'
export GIT_AUTHOR_DATE='Thu, 1 Jan 2026 00:00:00 +0000'
export GIT_COMMITTER_NAME=$GIT_AUTHOR_NAME GIT_COMMITTER_EMAIL=$GIT_AUTHOR_EMAIL
export GIT_COMMITTER_DATE=$GIT_AUTHOR_DATE

say()
{
	printf '%s\n' "$*" >&2
}

die()
{
	printf 'error: %s\n' "$*" >&2
	exit 1
}

hash_id()
{
	sha256sum | cut -c1-32
}

# check_var NAME PATTERN WHAT: refuse an ill-formed value, name the right ones
check_var()
{
	local value=${!1:-}

	[[ -z $value || $value =~ ^($2)$ ]] || die "$1=$value is not known. Right values: $3"
}

check_vars()
{
	check_var BASE '7\.3|6\.12' '7.3 (leave it out), 6.12 (the backport)'
	check_var JOBS '[1-9][0-9]{0,3}' 'the number of compilers to run at once, such as 4'
	check_var SMP '[1-9][0-9]?' 'the number of guest CPUs, such as 2'
	check_var TEST_MINUTES '[1-9][0-9]{0,4}' 'minutes after which "make test" leaves out the rest, such as 60'
	check_var LOCALMOD 1 '1 (leave it out to have all modules)'
	check_var MEM '[1-9][0-9]*[MG]' 'guest memory, such as 768M or 2G'
	check_var ACCEL 'kvm|tcg' 'kvm, tcg (leave it out to have it found out)'
	# The kernel's own makefiles stop at spaces and colons.
	check_var BUILD '[^[:space:]:,]+' 'a folder without space, colon or comma in its whole path'
	check_var KSRC '[^[:space:]:]+' 'the folder of a Linux tree, without space or colon in its path'
}
check_vars

# lock: one make at a time works in BUILD
lock()
{
	[[ -z ${BUILD_LOCKED:-} ]] || return 0
	mkdir -p "$BUILD"
	exec 9>"$BUILD/lock"
	flock -n 9 || die "another make is at work in $BUILD: wait for it, or use another BUILD= folder"
	export BUILD_LOCKED=1
}

# cached COMPILER: how to call it, with a cache if there is one
cached()
{
	! command -v ccache >/dev/null || echo -n 'ccache '
	echo "$1"
}

# series_tree: make the tree that a backport's tests are compiled in
series_tree()
{
	[[ $BASE == 7.3 ]] || BASE=7.3 BUILD=$SERIES_BUILD BUILD_LOCKED='' "$REPO/scripts/series/convert.sh" tree
}

# need_space GB WHAT: refuse early rather than stop half-way on a full disk
need_space()
{
	local have

	mkdir -p "$BUILD"
	have=$(df -Pk "$BUILD" | awk 'NR == 2 { print int($4 / 1048576) }')
	[[ $have -ge $1 ]] ||
		die "$2 needs $1 GB in $BUILD, $have GB are free: free some, or use another BUILD= folder"
}

# progress: what the heartbeat says beside the time; a script can have its own
progress()
{
	[[ -z ${BEAT_LOG:-} ]] || tail -n 1 "$BEAT_LOG"
}

# with_heartbeat TEXT CMD...: a line every half minute while CMD runs, with its
# progress. The output goes to BEAT_LOG, if that is set.
with_heartbeat()
{
	local text=$1 beat status start=$SECONDS never how

	shift
	say "$text"
	(
		# A pipe that nobody writes to: a sleep would outlive this shell.
		exec {never}<> <(:)
		while ! read -r -t 30 -u "$never" && kill -0 $$ 2>/dev/null; do
			how=$(progress 2>/dev/null) || :
			say "  ... $((SECONDS - start)) s${how:+: $how}"
		done
	) 9>&- &
	beat=$!
	set +e
	(
		set -e
		[[ -z ${BEAT_LOG:-} ]] || exec >"$BEAT_LOG" 2>&1
		"$@"
	)
	status=$?
	set -e
	kill "$beat" 2>/dev/null
	wait "$beat" 2>/dev/null || :
	return "$status"
}

# try TEXT LOG CMD...: with a heartbeat; its output to LOG, and if it fails, its first errors
try()
{
	BEAT_LOG=$2 with_heartbeat "$1" "${@:3}" && return
	grep -m 12 -E 'error:|Error [0-9]|undefined reference|No space left|^E: ' "$2" >&2 || tail -n 12 "$2" >&2
	say "error: $1: failed, see $2"
	return 1
}

# wanted_options FRAGMENT...: their lines, but for those that a later one takes back
wanted_options()
{
	cat "$@" | awk '
		/^CONFIG_/ { wanted[substr($1, 1, index($1, "=") - 1)] = $0 }
		/^# CONFIG_.* is not set/ { wanted[$2] = $0 }
		END { for (option in wanted) print wanted[option] }' | sort
}

# missing_options CONFIG FRAGMENT...: wanted ones that CONFIG did not take
missing_options()
{
	local line option

	wanted_options "${@:2}" | while read -r line; do
		grep -qxF "$line" "$1" && continue
		option=$(grep -o 'CONFIG_[A-Z0-9a-z_]*' <<<"$line")
		# "is not set" also holds for an option that cannot be set at all
		[[ $line == \#* ]] && ! grep -q "^$option=" "$1" && continue
		echo "$line"
	done
}

# checkpatch MAIL [OPTION...]: what checkpatch.pl has to say about a mail.
# FILE_PATH_CHANGES asks about MAINTAINERS at every new file. Without a git
# folder checkpatch leaves out spdxcheck.py, which wants more Python packages.
checkpatch()
{
	GIT_DIR=/nonexistent "$TREE/scripts/checkpatch.pl" --root="$TREE" --strict --quiet --no-summary \
		--show-types --ignore FILE_PATH_CHANGES "${@:2}" "$1"
}

# guest_clock: boot parameters for an emulated guest, whose TSC is that of this machine.
# The kernel cannot measure it: without ACPI it has only the PIT, for which a guest is too
# slow. It must not distrust the TSC either: because the guest is slow, or because there
# are several sockets, without which it would not find the CPUs.
guest_clock()
{
	local program=$BUILD/tsc-khz source=$REPO/scripts/vm/tsc-khz.c

	[[ $program -nt $source ]] || gcc -O2 -o "$program" "$source"
	echo "tsc=reliable tsc_early_khz=$("$program")"
}

# quiet_log DIR: nothing in the guest's kernel log that a developer must look at.
# stress-ng is there to be killed when memory runs out, the tests are not.
# For the data races of KCSAN, which are many, there is races.awk.
quiet_log()
{
	! grep -n -E -e 'WARNING: |BUG[: ]|INFO: (task|rcu|trying)|Oops|UBSAN|DEBUG_LOCKS_WARN' \
		-e 'corruption|Out of memory: .*\(cma_' "$1/console.log" | grep -v 'BUG: KCSAN: '
}

# stale_breakpoint DIR: the first that went wrong in the guest is a breakpoint that
# nobody has set. While a guest patches its code, QEMU's emulation of several CPUs
# can run into one that has been removed already.
stale_breakpoint()
{
	[[ $(grep -m 1 -oE 'Oops: [a-z0-9]*|BUG: |WARNING: ' "$1/console.log") == 'Oops: int3' ]]
}

# ktap DIR: the KUnit results in the guest's kernel log. kunit.py cannot do this: it
# builds a kernel of its own, and tap.awk also has to read what kselftests print.
ktap()
{
	grep -E '^\[[^]]*\] *(KTAP|1\.\.|(not )?ok |# )' "$1/console.log"
}

# tgit ARG...: git, in the kernel tree
tgit()
{
	git -C "$TREE" "$@"
}

# kernel_id REV: one name for all that a kernel is made of
kernel_id()
{
	{
		tgit rev-parse base
		tgit diff --raw --no-abbrev --no-renames base "$1" -- . ':!Documentation' ':!MAINTAINERS' ':!tools/testing'
	} | hash_id
}

# summary FILE: of results, a line each: what was skipped or failed, and the count; is
# all well?
summary()
{
	grep '# SKIP' "$1" || :
	grep '^not ok' "$1" || :
	awk '
		/# SKIP/ { skipped++; next }
		/^ok/ { passed++ }
		/^not ok/ { failed++ }
		END {
			printf "%d passed, %d failed%s\n", passed, failed, skipped ? ", " skipped " skipped" : ""
			exit failed || !passed
		}' "$1"
}

# report NAME CMD...: one TAP line, the exit status of CMD its verdict
report()
{
	local name=$1

	shift
	if "$@"; then
		echo "ok - $name"
	else
		echo "not ok - $name"
	fi
}

# report_silent NAME CMD...: one TAP line, ok if CMD has nothing to say; what it
# says follows otherwise, and failed is 1
report_silent()
{
	local name=$1 output

	shift
	output=$("$@" 2>&1) || :
	if [[ -z $output ]]; then
		echo "ok - $name"
	else
		echo "not ok - $name"
		echo "# ${output//$'\n'/$'\n'# }"
		# shellcheck disable=SC2034 # the caller's
		failed=1
	fi
}
