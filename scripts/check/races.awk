# SPDX-License-Identifier: GPL-2.0
#
# Of the data races that KCSAN reports in a kernel log, those in which one of certain
# functions (names separated by blanks) accesses the data, or calls what does: a
# list or a reference count of theirs is accessed by others. Not those with such a
# title (separated by semicolons), nor those of compound_head() and PF_BLOCK_TS.
#
#   awk -v functions="NAME NAME" -v known="NAME / NAME; NAME" -f races.awk

BEGIN {
	split(functions, names)
	for (i in names)
		ours[names[i]] = 1
	split(known, names, /;[ \t\n]*/)
	for (i in names)
		is_known[names[i]] = 1
}

{
	sub(/\r$/, "")
	sub(/^\[ *[0-9]+\.[0-9]+\](\[[^]]*\])? /, "")
}

/^BUG: KCSAN: / {
	report = title = ""
	in_report = 1
	is_ours = is_known_data = is_word = 0
	for (i = 5; i <= NF; i++) {
		name = $i
		sub(/[+.].*/, "", name)
		title = title (i == 5 ? "" : " ") name
	}
}

in_report {
	report = report "\n" $0
}

# compound_head() reads the second word of a struct page (x86_64: 64 bytes each, in
# the vmemmap), by READ_ONCE(), also of a page that others have in a list and whose
# list_head has a pointer there. It tells the two apart by bit 0.
/^read \(marked\) to 0xff(d4|ffea)[0-9a-f]*[048c]8 of 8 bytes / {
	is_known_data = 1
}

# The flags of the current task lose PF_BLOCK_TS, 0x20000000, when it is preempted,
# for which no writer is named.
/^race at unknown origin, with read to 0x[0-9a-f]* of 4 bytes / {
	is_word = 1
}

/^value changed: / {
	bit = index("2367abef", substr($3, 3, 1))
	if (is_word && bit && bit == index("014589cd", substr($5, 3, 1)) &&
	    substr($3, 4) == substr($5, 4))
		is_known_data = 1
}

# In a stack: function+0x12/0x34
in_report && /^ / {
	name = $1
	sub(/[+.].*/, "", name)
	if (++frame <= 2 && name in ours)
		is_ours = 1
}

/^[^ ]/ || !NF {
	frame = 0
}

in_report && /^=====/ {
	in_report = 0
	if (is_ours && !is_known_data && !(title in is_known))
		print report
}
