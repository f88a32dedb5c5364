#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Tests of what the benchmark makes of its samples, as TAP.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"

mkdir -p "$BUILD"
work=$(mktemp -d "$BUILD/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
out=$work/out
said=$work/said
bench=$REPO/tools/testing/selftests/mm/cma_gup_bench.c

# samples FILE: the rows of one run from standard input, columns split by blanks
samples()
{
	{
		echo 'kernel load metric value count'
		cat
	} | tr -s ' \t' ',' | sed 's/^,//' >"$work/$1"
}

# times KERNEL LOAD METRIC FROM TO: a sample of each number of ms
times()
{
	seq -f "$1 $2 $3 %.0f000 1" "$4" "$5"
}

analyse()
{
	python3 -B "$REPO/bench/analyse.py" --loads "$work/loads" "$out" "$@" >"$said" 2>&1
}

# refused TEXT FILE...: the samples are, with that text, and nothing is written
refused()
{
	rm -rf "$out"
	! analyse "${@:2}" && grep -q -e "^error: .*$1" "$said" && [[ ! -e $out ]]
}

# result KERNEL,LOAD,METRIC MEDIAN,LOW,HIGH,RUNS
result()
{
	grep -qxF "$1,$2" "$out/results.csv"
}

# goal TEXT OUTCOME: the line of a goal, with single blanks
goal()
{
	sed '1,/^Goals/d' "$out/tables.txt" | tr -s ' ' | grep -qxF " $1 $2"
}

make_fixture()
{
	cat >"$work/loads" <<-'END'
		hot-2x32	334 1 all 64m --completion-us 4000
		hot-2x32-outside 1 1 all 64m --outside
		fresh-2x1	1 1 all count --fresh --watch-ms 2000
		attr-fresh	1 1 unpatched 64m --attribute
		wait-64m	1 1 patched 2g
		wait-2048m	1 1 patched 2g
	END
	# 8 of 10 on the unpatched kernel; on the patched one 1 to 300 ms, backwards
	samples run1 <<-END
		$(times unpatched hot-2x32 alloc_us 1 4)
		unpatched hot-2x32 fail_us 9000 1
		unpatched fresh-2x1 iops 1000 1
		unpatched fresh-2x1 alloc_us 2000000 1
		unpatched fresh-2x1 io_errors 0 1
		unpatched pin-1 insns 1000 1
		unpatched attr-fresh fail_pin 3 1
		unpatched attr-fresh fail_off_lru 1 1
	END
	samples run2 <<-END
		$(times patched hot-2x32 alloc_us 1 300 | sort -r)
		patched hot-2x32-outside alloc_us 181000 99
		patched hot-2x32-outside alloc_us 265000 2
		patched hot-2x32 iops 500 1
		longterm hot-2x32 alloc_us 201000 100
		longterm hot-2x32 iops 501 1
		longterm hot-2x32 io_us 70000 1000
		patched hot-2x32 io_us 5000 998
		patched hot-2x32 io_us 70000 1
		patched hot-2x32 io_us 80000 1
		patched fresh-2x1 iops 1010 1
		patched fresh-2x1 io_errors 7 1
		patched pin-1 insns 1005 1
		patched wait-64m wait_us 1000 100
		patched wait-2048m wait_us 1201 100
	END
	samples run3 <<-END
		$(times unpatched hot-2x32 alloc_us 21 24)
		unpatched hot-2x32 fail_us 11000 1
		unpatched fresh-2x1 iops 3000 1
	END
	samples run4 <<-END
		$(times patched hot-2x32 alloc_us 101 400)
		patched fresh-2x1 iops 2700 1
	END
	samples run5 <<-END
		$(times patched hot-2x32 alloc_us 1 401)
	END
}

test_results()
{
	report "samples are taken" analyse "$work"/run[1-5]
	report "no temporary file is left" test -z "$(find "$out" -name '*.tmp')"
	# p50 of the runs: 150, 250, 201 ms
	report "p50: median and range of the runs" result patched,hot-2x32,alloc_p50_ms 201,150,250,3
	# rank 297 of 300, and 397 (396.99) of 401
	report "p99 is by nearest rank" result patched,hot-2x32,alloc_p99_ms 397,297,397,3
	report "p99.9: rank 999 of 1000, samples weighted" result patched,hot-2x32,io_p999_ms 70,70,70,1
	report "failed calls have their own median" result unpatched,hot-2x32,fail_p50_ms 10,9,11,2
	# The roots of |8/10 - p| = 1.959964 sqrt(p (1 - p) / 10), found by bisection
	report "success: all runs in one pot, Wilson interval" \
		result unpatched,hot-2x32,success_percent 80,49.0162,94.3318,2
	report "the shares of the culprits" result unpatched,attr-fresh,fail_off_lru_percent 25,4.5587,69.9358,1
	# 1010 / 1000 and 2700 / 3000
	report "IOPS ratio: by pairs of runs" result patched,fresh-2x1,iops_ratio 0.955,0.9,1.01,2
	report "what was only watched is no allocation" test -z "$(grep fresh-2x1,alloc "$out/results.csv")"
	report "the table has succeeded/tried" grep -q '^hot-2x32 .* 8/10 .* 1001/1001$' "$out/tables.txt"
	report "no line of the tables is longer than 72" test -z "$(awk 'length > 72' "$out/tables.txt")"
}

test_goals()
{
	report "as good is enough" goal "hot-2x32 p50 201.0 <= 201.0" met
	report "IOPS the other way round" goal "hot-2x32 IOPS 500.0 >= 501.0" missed
	report "a ratio, with its range" goal "fresh-2x1 patched 0.955 (0.900-1.010)" missed
	report "the twin outside, and the load's completion time" \
		goal "hot-2x32 p50 201.0 <= 1.1 x (181.0 + 4.0) = 203.5" met
	report "a share of one" goal "pin-1 +0.500 % <= 0.5 %" met
	report "missed by a little" goal "wait-2048m 1.20 <= 1.2 x 1.00 = 1.20" missed
	report "1001 of 1001" goal "hot-2x32 1001 of 1001" met
	analyse "$work/run4"
	report "it takes 1000 tries" goal "hot-2x32 300 of 300, too few tries" missed
	report "what was not measured says so" grep -qx " *not measured" "$out/tables.txt"
	samples failed <<-END
		patched hot-2x32 alloc_us 1000 1000
		patched hot-2x32 fail_us 1000 1
	END
	analyse "$work/failed"
	report "one failure is too many" goal "hot-2x32 1000 of 1001" missed
}

test_refusals()
{
	cut -d, -f1-4 "$work/run1" >"$work/narrow"
	report "a column that is missing" refused 'first line has to be kernel,load,metric,value,count' "$work/narrow"
	sed '$s/,[^,]*$//' "$work/run1" >"$work/cut"
	report "a file that is cut off, after a good one" refused 'cut, line 12: 4 columns instead of 5' \
		"$work/run2" "$work/cut"
	samples kernel <<<'pached hot-2x32 iops 1 1'
	report "an unknown kernel" refused 'no kernel pached; there are unpatched' "$work/kernel"
	samples load <<<'patched hot-3x3 iops 1 1'
	report "a load that is not in the list" refused 'does not have hot-3x3' "$work/load"
	samples value <<<'patched hot-2x32 iops nan 1'
	report "a value that is no number" refused 'value nan, count 1' "$work/value"
	: | samples empty
	report "a run without samples" refused 'no samples, only the header' "$work/empty"
	report "a file that does not exist" refused 'cannot read .*/nowhere' "$work/nowhere"
	analyse "$work/run4"
	cp "$out/results.csv" "$work/before"
	! analyse "$work/cut" || :
	report "an error leaves earlier results alone" cmp -s "$work/before" "$out/results.csv"
	echo 'hot-2x32 1 1 patched 64m --threads 9' >>"$work/loads"
	report "a load with two meanings" refused 'hot-2x32 is there already, with other options' "$work/run1"
	echo 'hot-9x9 many 1 patched 64m' >"$work/loads"
	report "a list without numbers" refused 'FULL and QUICK are numbers of tries, not many' "$work/run1"
}

unknown_options()
{
	grep -v '^#' "$work/loads" | grep -o -e '--[a-z-]*' | sort -u | while read -r option; do
		grep -qF -- "$option " "$bench" || echo "$option"
	done
}

test_list()
{
	cp "$REPO/bench/loads" "$work/loads"
	samples insns <<<'patched pin-1 insns 1 1'
	report "bench/loads is well-formed" analyse "$work/insns"
	report "its options are those of cma_gup_bench" test -z "$(unknown_options)"
	report "each twin has a load" test -z "$(awk '
		/^[a-z]/ { seen[$1] }
		END {
			for (name in seen)
				if (sub(/-(idle|outside)$/, "", name) && !(name in seen))
					print name
		}' "$work/loads")"
}

make_fixture
test_results
test_goals
test_refusals
test_list
