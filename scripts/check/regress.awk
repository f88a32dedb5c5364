# SPDX-License-Identifier: GPL-2.0
#
# One line per result, of what run_vmtests.sh has to say or of the KTAP in a kernel
# log (the group "kunit"): pass, fail or skip, the group, the test (a program with
# its arguments, or a suite), and which one of the test; there is none with the
# verdict on a test as a whole.
#
#   awk -v group=NAME -f regress.awk

function report(verdict, name)
{
	gsub(/[ \t]+/, " ", name)
	# pagemap_ioctl counts, which is another number each time.
	sub(/ Extra pages [0-9].*/, "", name)
	name = group "\t" test "\t" name
	if (seen[name]++)
		name = name " #" seen[name]
	print verdict "\t" name
}

# leave INDENT: the groups that are further in are over
function leave(indent,    i)
{
	for (i in subtest)
		if (i + 0 > indent)
			delete subtest[i]
}

function path(name,    i)
{
	for (i = indent; i >= 0; i--)
		if (i in subtest)
			name = subtest[i] ": " name
	return name
}

{
	sub(/\r$/, "")
	inner = group == "kunit" ? /^\[ *[0-9.]+\]  / : /^# /
	sub(/^(# |\[ *[0-9.]+\] )/, "")
	match($0, /^ */)
	indent = RLENGTH
	line = substr($0, indent + 1)
}

inner && /^running / {
	test = substr($0, 9)
	sub(/^(bash )?\.\//, "", test)
}

line ~ /^# Subtest: / {
	leave(indent)
	if (group == "kunit" && indent == 4)
		test = substr(line, 12)
	else
		subtest[indent] = substr(line, 12)
}

line ~ /^(not )?ok [0-9]+/ {
	leave(indent)
	verdict = line ~ /^not/ ? "fail" : line ~ /# SKIP/ ? "skip" : "pass"
	sub(/^(not )?ok [0-9]+ *(- )?(# (SKIP|XFAIL) *)?/, "", line)
	sub(/ *# *(SKIP|XFAIL|exit=).*/, "", line)
	if (!inner)
		test = line
	report(verdict, inner ? path(line) : "")
}
