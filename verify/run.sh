#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# Check the model of the pin gate protocol, pin_gate.pml, with spin.
#
# 1. Each scene is searched exhaustively, for broken assertions and invalid end
#    states (safety), or for an acceptance cycle under weak fairness (the name
#    of a property of the model).  A search that was cut short counts as failed,
#    and so does one that never got to the places a scene is there for: a model
#    that cannot do anything breaks no property either.
# 2. Each mutant of the protocol must be caught, by the property meant for it.

set -euo pipefail

usage()
{
	cat <<-END
	usage: $0 [--quick]
	  --quick   leave out the big scenes (a minute and a half instead of five)
	END
}

die()
{
	echo "$0: $*" >&2
	exit 2
}

quick=false
for arg in "$@"; do
	case $arg in
	--quick)	quick=true ;;
	-h | --help)	usage; exit 0 ;;
	*)		usage >&2; die "unknown argument '$arg'" ;;
	esac
done

for tool in spin gcc; do
	command -v "$tool" >/dev/null ||
		die "'$tool' is missing; on Debian: apt-get install spin gcc"
done

model=$(cd "$(dirname "$0")" && pwd)/pin_gate.pml
[ -r "$model" ] || die "cannot read $model"

# Limits of one search: memory, depth, CPU time (a busy machine is no failure).
mem_mb=3500
depth=1000000
cpu_seconds=300

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
cd "$tmp"
cp "$model" pin_gate.pml

passed=0
failed=0

report()		# ok|"not ok" description
{
	if [ "$1" = ok ]; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
	fi
	echo "$1 $((passed + failed)) - $2"
}

# One search; its output is in the file "out", spin's and gcc's before it.
search()		# property, optimisation, options for spin ...
{
	local property=$1 opt=$2
	local cflags=() pan=(./pan -w22 "-m$depth")

	shift 2
	if [ "$property" = safety ]; then
		cflags=(-DSAFETY -DNOCLAIM)
	else
		cflags=(-DNFAIR=3)
		pan+=(-a -f -N "$property")
	fi
	rm -f pan ./pan.? ./*.trail
	spin "$@" -a pin_gate.pml >out 2>&1 &&
		gcc "$opt" -w "${cflags[@]}" -DMEMLIM=$mem_mb -o pan pan.c >>out 2>&1 ||
		return 0
	(ulimit -t $cpu_seconds && exec "${pan[@]}") >>out 2>&1 ||
		echo "pan: exit status $? (limit: $cpu_seconds s of CPU time)" >>out
}

states()
{
	sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1 states/p' out | tail -n 1
}

# How a search was cut short, or why there was none; nothing if it was complete.
cut_short()
{
	grep -m 1 -E 'max search depth too small|out of memory|MEMLIM bound|Search not completed|pan: exit status|[Ee]rror:' out ||
		grep -q '^State-vector .* errors: [0-9]' out || tail -n 1 out
}

# The place is in the model, and not in the list of what was not reached.
got_to()		# place
{
	grep -qF "Printf(\"$1\")" pan.m && ! grep -qF "printf('$1')" out
}

# The end of the counterexample.
show_trail()		# options for spin ...
{
	[ -e pin_gate.pml.trail ] || return 0
	spin "$@" -t -p -b pin_gate.pml 2>&1 |
		sed -nE '/\[(\.\(goto\)|goto .*|break|else|DO|IF|sub-sequence|x = .*|y = .*)\]/d
			/\tproc +[0-9]|CYCLE/s/^/# /p' | tail -n 40
}

check()			# scene, property, places it must get to ...
{
	local scene=$1 property=$2 name why place

	name="${1,,}: $2"
	shift 2
	search "$property" -O1 "-DSCENE_$scene"
	why=$(grep -m 1 '^pan:1:' out || cut_short)
	for place in "$@"; do
		[ -n "$why" ] || got_to "$place" || why="never got to $place"
	done
	if [ -z "$why" ]; then
		report ok "$name, $(states)"
	else
		report "not ok" "$name: $why"
		show_trail "-DSCENE_$scene"
	fi
}

# The search of a mutant ends at the first error, so it need not be complete.
mutant()		# mutant, scene, property, how it must be caught
{
	local name="mutant ${1,,} in ${2,,}" error

	search "$3" -O0 "-DSCENE_$2" "-D$1"
	error=$(sed -n 's/^pan:1: \(.*\) (at depth.*/\1/p' out | head -n 1)
	if grep -q "$4" <<<"$error"; then
		report ok "$name is caught: $error"
	else
		: "${error:=$(cut_short)}"
		report "not ok" "$name should end in '$4': ${error:-no error, $(states)}"
	fi
}

check FAST_SLOW safety HANDED_OUT FREEZE_FAILED STRAGGLER OPEN_WHEN_QUEUED \
	WOKEN TRIED_IN_VAIN NOT_GATED
check DIO safety HANDED_OUT WOKEN SLIPPED LOOK_SKIPS
check DIO_SPAN safety WOKEN MOVED_ON SOME_MOVABLE
check KILL safety KILLED KILLED_ASLEEP TIMED_OUT GAVE_UP ERROR
check KILL_DIO safety KILLED KILLED_ASLEEP TIMED_OUT GAVE_UP ERROR
check STUCK_KILL safety KILLED_ASLEEP
check STUCK_KILL call_ends KILLED_ASLEEP
check MOVED safety MOVED_ON SOME_MOVABLE
check HOT drain_ends HANDED_OUT WOKEN TRIED_IN_VAIN
check HOT_DIO drain_ends HANDED_OUT WOKEN SLIPPED
check BACK_TO_BACK call_ends TIMED_OUT WOKEN
check BACK_TO_BACK_DIO call_ends TIMED_OUT WOKEN
if ! $quick; then
	check FAST_FAST_SLOW safety WOKEN HANDED_OUT
	check SAME_BLOCK safety BUSY WOKEN GAVE_UP
	check OVERLAP safety BUSY WOKEN GAVE_UP
	check BUCKET safety WOKEN HANDED_OUT
	check SPAN safety WOKEN HANDED_OUT SOME_MOVABLE PART_DROPPED \
		REST_SLIPPED
	check EMPTIED safety WOKEN
	check HOLDER safety GAVE_UP MOVED_ON
	check STUCK safety TIMED_OUT KILLED
	check HOT_PAGES drain_ends HANDED_OUT MOVED_ON
	check HOT_PAGES call_ends
fi

assertion='assertion violated'
asleep='invalid end state'
cycle='acceptance cycle'

# the isolator
mutant NO_BARRIER FAST_SLOW safety "$assertion .*(expired"
mutant COUNT_AFTER_BARRIER FAST_SLOW safety "$assertion .*(expired"
mutant NO_OPEN_BARRIER FAST_SLOW safety "$asleep"
mutant WAKE_BEFORE_CLEAR FAST_SLOW safety "$asleep"
mutant WRONG_KEY BUCKET safety "$asleep"
mutant NO_WAKE MOVED safety "$asleep"
mutant EMPTY_STAYS_CLOSED EMPTIED safety "$asleep"
mutant FORGOTTEN_ERROR_PATH KILL safety "$assertion .*closed"
mutant OPEN_AFTER_UNISOLATE OVERLAP safety "$assertion .*closed"
mutant LOSER_OPENS SAME_BLOCK safety "$assertion (owner"
mutant NO_GATE HOT drain_ends "$cycle"
mutant NO_TRIES_LIMIT HOT drain_ends "$cycle"
# GUP
mutant CHECK_BEFORE_PIN FAST_SLOW safety "$assertion .*missed"
mutant FAST_KEEPS_GATED FAST_SLOW safety "$assertion .*missed"
mutant FAST_KEEPS_PART SPAN safety "$assertion .*late"
mutant REST_WAITS SPAN safety "$assertion .*held"
mutant NO_RECHECK FAST_SLOW safety "$asleep"
mutant WAITER_NO_BARRIER FAST_SLOW safety "$asleep"
mutant STATE_TOO_LATE FAST_SLOW safety "$asleep"
mutant UNPIN_BEFORE_QUEUE MOVED safety "$asleep"
mutant SLEEP_HOLDING_PIN FAST_SLOW safety "$asleep"
mutant NOT_KILLABLE STUCK_KILL safety "$asleep"
mutant KILLED_STARTS_OVER STUCK_KILL call_ends "$cycle"
mutant REARMED_DEADLINE BACK_TO_BACK call_ends "$cycle"
# direct I/O
mutant NO_LOOK DIO safety "$assertion .*late"
mutant LOOK_ONCE DIO safety "$assertion .*late"
mutant WAIT_HOLDING_PIECE DIO_SPAN safety "$assertion .*held"
mutant SLEEP_HOLDING_PIN DIO safety "$asleep"
mutant REARMED_DEADLINE BACK_TO_BACK_DIO call_ends "$cycle"
# what the gate stands on and the kernel has always done
mutant NO_PTE_RECHECK FAST_SLOW safety "$assertion .*handed_out"
mutant PIN_OUTSIDE_PTL FAST_SLOW safety "$assertion .*held"

echo "1..$((passed + failed))"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
