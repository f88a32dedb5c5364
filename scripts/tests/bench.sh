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
	} | tr -s ' ' ',' >"$work/$1"
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

# lines FILE: it has those from standard input, but for the number of blanks
lines()
{
	local line

	while read -r line; do
		report "$line" grep -qxF "$line" <(tr -s ' ' <"$out/$1" | sed 's/^ //')
	done
}

# refused TEXT FILE...: the samples are, with that text, and the results stay
refused()
{
	echo earlier >"$out/results.csv"
	! analyse "${@:2}" && grep -q -e "^error: .*$1" "$said" && grep -qx earlier "$out/results.csv"
}

# For hot-2x32 on the unpatched kernel 8 of 10 succeed; on the patched one they take 1
# to 300 ms, backwards, in the first run
make_fixture()
{
	cat >"$work/loads" <<-'END'
		hot-2x32	334 1 all 64m --completion-us 4000
		hot-2x32-outside 1 1 all 64m --outside
		hot-1x1		334 1 all 64m
		hot-1x8		334 1 all 64m
		fresh-2x1	1 1 all count --fresh --watch-ms 2000
	END
	samples run1 <<-END
		$(times unpatched hot-2x32 alloc_us 1 4)
		unpatched hot-2x32 fail_us 1000 1
		unpatched hot-2x32 fail_pin 3 1
		unpatched hot-2x32 fail_off_lru 1 1
		unpatched fresh-2x1 iops 1000 1
		unpatched fresh-2x1 alloc_us 2000000 1
		unpatched pin-1 insns 1000 1
	END
	samples run2 <<-END
		$(times patched hot-2x32 alloc_us 1 300 | sort -r)
		patched hot-2x32 iops 500 1
		patched hot-2x32 io_us 5000 998
		patched hot-2x32 io_us 70000 1
		patched hot-2x32 io_us 80000 1
		patched hot-2x32-outside alloc_us 181000 100
		patched hot-1x1 alloc_us 1000 999
		patched hot-1x8 alloc_us 1000 1000
		patched hot-1x8 fail_us 1000 1
		patched fresh-2x1 iops 1010 1
		patched pin-1 insns 1005 1
		longterm hot-2x32 alloc_us 201000 100
		longterm hot-2x32 iops 501 1
	END
	samples run3 <<-END
		$(times unpatched hot-2x32 alloc_us 21 24)
		unpatched hot-2x32 fail_us 1000 1
		unpatched fresh-2x1 iops 3000 1
	END
	samples run4 <<-END
		$(times patched hot-2x32 alloc_us 101 400)
		patched fresh-2x1 iops 2700 1
	END
	samples run5 <<<"$(times patched hot-2x32 alloc_us 1 401)"
}

# Medians, ranges and numbers of runs. p50 of the runs: 150, 250, 201 ms. p99 by nearest
# rank: 297 of 300, 397 (396.99) of 401; p99.9: 999 of 1000. All tries in one pot, with
# the roots of |8/10 - p| = 1.959964 sqrt(p (1 - p) / 10), found by bisection. Ratios by
# pairs of runs: 1010 / 1000, 2700 / 3000.
test_results()
{
	report "samples are taken" analyse "$work"/run[1-5]
	lines results.csv <<-'END'
		patched,hot-2x32,alloc_p50_ms,201,150,250,3
		patched,hot-2x32,alloc_p99_ms,397,297,397,3
		patched,hot-2x32,io_p999_ms,70,70,70,1
		unpatched,hot-2x32,success_percent,80,49.0162,94.3318,2
		unpatched,hot-2x32,fail_off_lru_percent,25,4.5587,69.9358,2
		patched,fresh-2x1,iops_ratio,0.955,0.9,1.01,2
	END
	report "what was only watched is no allocation" test -z "$(grep fresh-2x1,alloc "$out/results.csv")"
	lines tables.txt <<-'END'
		hot-2x32 1001 of 1001 met
		hot-1x1 999 of 999, too few tries missed
		hot-1x8 1000 of 1001 missed
		hot-2x32 p50 201.0 <= 201.0 met
		hot-2x32 IOPS 500.0 >= 501.0 missed
		fresh-2x1 patched 0.955 (0.900-1.010) missed
		hot-2x32 p50 201.0 <= 1.1 x (181.0 + 4.0) = 203.5 met
		pin-1 +0.500 % <= 0.5 % met
	END
}

test_refusals()
{
	local row text

	while read -r row text; do
		samples bad <<<"$row"
		report "refused: $row" refused "$text" "$work/run2" "$work/bad"
	done <<-'END'
		patched,hot-2x32,iops,1 bad, line 2: 4 columns instead of 5
		pached,hot-2x32,iops,1,1 no kernel pached; there are unpatched
		patched,hot-3x3,iops,1,1 does not have hot-3x3
		patched,hot-2x32,iops,nan,1 value nan, count 1
	END
	: | samples empty
	report "refused: a run without samples" refused 'no samples, only the header' "$work/run2" "$work/empty"
}

# options FILE: those of cma_gup_bench that are in it
options()
{
	grep -o -e '--[a-z-]*' "$1" | sort -u
}

test_list()
{
	cp "$REPO/bench/loads" "$work/loads"
	samples insns <<<'patched pin-1 insns 1 1'
	report "bench/loads is well-formed" analyse "$work/insns"
	report "its options are those of cma_gup_bench" \
		test -z "$(comm -13 <(options "$bench") <(options "$work/loads"))"
}

make_fixture
test_results
test_refusals
test_list
