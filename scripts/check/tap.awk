# SPDX-License-Identifier: GPL-2.0
#
# Flatten TAP or KTAP to one line per single test: the verdict on a group goes,
# as its tests are there. A kernel log with KTAP in it will do.
#
#   awk -v group=NAME -f tap.awk

function report(verdict, name)
{
	print verdict " - " group ": " name
	fflush()
	if (verdict == "not ok")
		failures++
}

# up_to D: the levels deeper than D are over
function up_to(d)
{
	for (; depth > d; depth--) {
		if (seen[depth] < planned[depth])
			report("not ok", "only " seen[depth] " of " planned[depth] " tests ran")
		seen[depth] = planned[depth] = 0
		subtest[depth] = ""
	}
	depth = d
}

{
	sub(/\r$/, "")
	sub(/^\[ *[0-9]+\.[0-9]+\] /, "")
	match($0, /^ */)
	indent = RLENGTH
	line = substr($0, indent + 1)
}

line ~ /^# Subtest: / {
	up_to(indent)
	subtest[indent] = substr(line, 12) ": "
}

line ~ /^1\.\.0 # SKIP/ {
	report("ok", substr(line, 6))
	results++
}

line ~ /^1\.\.[0-9]+/ {
	up_to(indent)
	planned[indent] = substr(line, 4) + 0
	failures_before[indent] = failures
}

line ~ /^(not )?ok( |$)/ {
	is_group = depth > indent
	failed_inside = is_group && failures > failures_before[depth]
	up_to(indent)
	seen[indent]++
	results++
	verdict = line ~ /^not/ ? "not ok" : "ok"
	name = line
	sub(/^(not )?ok *[0-9]* *(- )?/, "", name)
	if (!is_group || (verdict == "not ok" && !failed_inside))
		report(verdict, subtest[indent] name)
}

line ~ /^Bail out!/ {
	report("not ok", line)
}

END {
	up_to(-1)
	if (!results)
		report("not ok", "no results")
}
