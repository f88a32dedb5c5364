#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Do allocations from CMA fail because of pins, and who holds these? Watch the
# system for a while and tell. See Documentation/admin-guide/mm/cma_pins.rst.

usage()
{
	cat <<-'END'
	usage: cma_pins.sh [SECONDS]
	       cma_pins.sh COMMAND [ARG]...

	Watch CMA allocations for SECONDS (10), or while the command runs. Then tell how
	many failed and why, which pages were in the way, who has these mapped, who allocated
	them (with page_owner=on), and who waited to pin pages. Pages are looked up at the
	end: whoever has exited by then is not found.

	Needs root, CONFIG_TRACEPOINTS, and the tool page-types from tools/mm of the
	kernel, next to this file or in the PATH.
	Exit status: 0 no allocation failed, 1 some did, 2 error.
	END
}

die()
{
	echo "cma_pins.sh: $*" >&2
	exit 2
}

# Report at most this many pages.
MAX_PAGES=8
TRACING=/sys/kernel/tracing
COUNTERS='cma_alloc_success cma_alloc_fail alloc_fail_busy alloc_fail_no_room alloc_fail_no_memory
	cma_drain cma_drain_fail pin_gate_wait pin_gate_timeout'

# Those of sysfs are summed up over all areas.
counters()
{
	{
		cat /proc/vmstat
		grep -H . /sys/kernel/mm/cma/*/alloc_fail_* 2>/dev/null | sed 's|.*/||; s|:| |'
	} | awk -v names="$COUNTERS" '
		BEGIN { n = split(names, name) }
		{ value[$1] += $2 }
		END {
			for (i = 1; i <= n; i++)
				print name[i], (name[i] in value) ? value[name[i]] : "-"
		}'
}

cleanup()
{
	rmdir "$instance" 2>/dev/null
	rm -rf "$work"
}

watch()
{
	case $1 in
	*[!0-9]*) env "$@" ;;
	*)
		echo "watching for $1 s" >&2
		sleep "$1"
		;;
	esac
}

# The pages that were in the way, most often first: "TIMES PFN". For each failed
# allocation, that is the page that its drain found pinned last; or, without one,
# the first that was not free. Events are told apart by their thread.
pages_in_the_way()
{
	awk '
		function field(name) {
			if (!match($0, " " name "=0x[0-9a-f]+"))
				return ""
			return substr($0, RSTART + length(name) + 4, RLENGTH - length(name) - 4)
		}
		match($0, /-[0-9]+ +\[/) { thread = substr($0, RSTART, RLENGTH) }
		/ cma_alloc_start: / { inside[thread] = 1; pinned[thread] = busy[thread] = "" }
		/ contig_drain_pass: / { pinned[thread] = field("pinned_pfn") }
		/ contig_drain_pass: .* nr_pinned=0 / { pinned[thread] = "" }
		/ test_pages_isolated: .* ret=fail/ { busy[thread] = field("fin_pfn") }
		/ cma_alloc_finish: / && inside[thread] {
			pfn = pinned[thread] != "" ? pinned[thread] : busy[thread]
			if (!/ errorno=0/ && pfn != "")
				times[pfn]++
			inside[thread] = 0
		}
		END {
			for (pfn in times)
				print times[pfn], pfn
		}' "$work/trace" | sort -rn | head -n "$MAX_PAGES"
}

# Who has which of the pages mapped: "PFN PID" lines. Each process once.
mappers()
{
	for dir in /proc/[0-9]*; do
		pid=${dir#/proc/}
		"$page_types" -p "$pid" -N -L 2>/dev/null | awk -v pid="$pid" '
			NR == FNR { wanted[$2]; next }
			$2 in wanted { print $2, pid }' "$work/pages" - | sort -u
	done
}

# The record of page_owner for a page
owner()
{
	[ -r /sys/kernel/debug/page_owner ] || return 0
	awk -v pfn="0x$1" '
		BEGIN { RS = ""; FS = "\n" }
		$2 ~ "^PFN " pfn " " {
			for (i = 1; i <= NF; i++)
				print "      " $i
		}' /sys/kernel/debug/page_owner 2>/dev/null
}

name_of()
{
	cat "/proc/$1/comm" 2>/dev/null || echo 'gone'
}

report_page()
{
	echo "page 0x$2, in the way $1 times"
	"$page_types" -N -L -a "0x$2" 2>/dev/null |
		awk '$1 ~ /^[0-9a-f]+$/ { print "   flags: " $NF; exit }'
	awk -v pfn="$2" '$1 == pfn { print $2 }' "$work/mapped" | while read -r pid; do
		echo "   mapped by $(name_of "$pid") (pid $pid)"
	done
	owner "$2"
}

# rose NAME: how much that counter rose; nothing if this kernel does not have it
rose()
{
	awk -v name="$1" '
		$1 != name || $2 == "-" { next }
		NR == FNR { before = $2; next }
		{ print $2 - before }' "$work/before" "$work/after"
}

verdict()
{
	drains=$(rose cma_drain)
	failed_drains=$(rose cma_drain_fail)
	if [ "$(rose cma_alloc_fail)" = 0 ]; then
		echo "No allocation failed; $((drains)) had to wait for pins."
	elif [ -z "$drains" ]; then
		echo "Whether pins are the reason, this kernel does not tell."
	elif [ "$(rose alloc_fail_busy)" = 0 ]; then
		echo "Pins are not the reason: no room, no memory to migrate to, or killed."
	elif [ "$failed_drains" -gt 0 ]; then
		echo "Allocations failed because of pins that outlast the budget."
	elif [ "$drains" -gt 0 ]; then
		echo "Pins went away in time, but something else was left."
	else
		echo "No drain met pins: another reason, or the budget (drain_budget_ms) is 0."
	fi
	[ "$((drains))" -eq 0 ] ||
		echo "Of $drains waits for pins, $((drains - failed_drains)) ended in time."
	[ "$(rose pin_gate_timeout)" = "${drains:+0}" ] ||
		echo "Some pins were taken all the same, after they had waited for a second."
}

# What failed allocations found in their area right after. The log has the same
# numbers, but not for each failure; it also has failures from before.
obstacles()
{
	awk -v failures="$(rose alloc_fail_busy)" '
		BEGIN { n = split("pinned locked writeback referenced buffers", kind) }
		/ cma_alloc_fail: .* errorno=-16 / {
			for (i = 1; i <= n; i++)
				met[i] += $0 ~ " " kind[i] "=[1-9]"
		}
		END {
			if (failures > 0)
				printf "busy: of %d failures, %d met pinned folios in the area, " \
					"%d locked ones, %d writeback, %d references, %d buffers\n",
					failures, met[1], met[2], met[3], met[4], met[5]
		}' "$work/trace"
	dmesg 2>/dev/null | tac |
		sed -n '/.*cma: \(.*alloc failed, .*\)/{s//last in the log: \1/p;q}'
}

report()
{
	for name in $COUNTERS; do
		rise=$(rose "$name")
		[ -z "$rise" ] || printf '%-20s %s\n' "$name" "$rise"
	done
	[ -n "$(rose cma_drain)" ] || echo "this kernel does not wait for pins"
	echo
	verdict
	obstacles
	while read -r times pfn; do
		echo
		report_page "$times" "$pfn"
	done <"$work/pages"
	sed -n 's/^ *\(.*-[0-9]*\) .* pin_gate_wait_end: .*/\1/p' "$work/trace" |
		sort | uniq -c | sort -rn | head -n "$MAX_PAGES" | awk '
			NR == 1 { print "\nwaited to pin pages (times, thread):" }
			{ print "   " $1, $2 }'
}

case ${1:-10} in
-h | --help)
	usage
	exit 0
	;;
-*)
	usage >&2
	exit 2
	;;
esac
[ "$(id -u)" -eq 0 ] || die "only root can trace, and see whose a page is"
[ -d "$TRACING/events/cma" ] || die "no $TRACING/events/cma: mount tracefs" \
	"(mount -t tracefs none $TRACING), or the kernel has no CMA or no tracepoints"
page_types=$(dirname "$0")/page-types
[ -x "$page_types" ] || page_types=$(command -v page-types) ||
	die "page-types is missing: build it by 'make -C tools/mm' in the kernel's sources"

work=$(mktemp -d) || exit 2
instance=$TRACING/instances/cma_pins.$$
trap cleanup EXIT
trap 'exit 2' HUP INT TERM
mkdir "$instance" || die "cannot make a trace buffer of its own, $instance"
for events in cma page_isolation; do
	echo 1 >"$instance/events/$events/enable" || die "cannot enable the events of $events"
done
counters >"$work/before"
watch "${@:-10}"
counters >"$work/after"
echo 0 >"$instance/tracing_on"
cat "$instance/trace" >"$work/trace"
pages_in_the_way >"$work/pages"
: >"$work/mapped"
[ ! -s "$work/pages" ] || mappers >"$work/mapped"
report
[ "$(rose cma_alloc_fail)" = 0 ]
