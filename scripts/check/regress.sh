#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The kernel's own tests, on the unpatched and on the patched kernel: its mm
# selftests as the base has them, and all KUnit suites. What passes on the first
# has to pass on the second. Prints the difference, and leaves it with a table of
# the results in BUILD/regress/table. A run that was stopped goes on where it was.
#
#   regress.sh               that
#   regress.sh GROUP...      some of the groups only, for a look

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"

OUT=$BUILD/regress
TESTS=$OUT/selftests
KERNELS=(base-regress series-regress)
# Seconds that each test may take; emulated, the longest takes 200 to more than 600.
LIMIT=1800
# How often what got lost is tried again.
RETRIES=2

# Those of run_vmtests.sh, but for vmalloc, hmm and page_frag: these test by way
# of modules, of which the guest has none. "other" has the programs that it leaves
# out. The last one takes memory away for good.
GROUPS_ALL=(kunit gup_test cow migration compaction hugetlb memfd_secret userfaultfd thp ksm ksm_numa mmap mlock
	mremap hugevm madv_guard madv_populate process_madv process_mrelease pkey soft_dirty pagemap pfnmap
	mkdirty mdwe vma_merge rmap other memory-failure)

# adapt: run_vmtests.sh with a limit of time for each test, with a way to run one
# only, without names that are others each time, and with the programs that it does
# not know or runs through sudo
adapt()
{
	# shellcheck disable=SC2016 # these are its variables
	sed -e 's/("\$@" 2>&1)/(timeout -k 5 "$LIMIT" "$@" 2>\&1)/' \
		-e 's/^run_test() {/&\n\t[[ -z $ONLY || $(pretty_name "$*") == "$ONLY" ]] || return 0/' \
		-e 's/mktemp -d \(.*\)_XXXXXX/mkdir \1 \&\& echo \1/' \
		-e '/^echo "SUMMARY/i CATEGORY=mlock run_test setpriv --reuid=65534 --clear-groups ./on-fault-limit' \
		-e '/^echo "SUMMARY/i for i in mseal_test prctl_thp_disable pkey_sighandler_tests_64; do' \
		-e '/^echo "SUMMARY/i CATEGORY=other run_test ./$i; done'
}

compile()
{
	local dir=$BUILD/base/tools/testing/selftests/mm

	make -C "$BUILD/base" O="$OUT/headers" headers &&
		make -C "$dir" -j"$JOBS" OUTPUT="$TESTS.tmp" KHDR_INCLUDES="-isystem $OUT/headers/usr/include" &&
		cp "$dir"/{va_high_addr_switch,charge_reserved_hugetlb,hugetlb_reparenting_test,write_hugetlb_memory}.sh \
			"$TESTS.tmp" &&
		adapt <"$dir/run_vmtests.sh" >"$TESTS.tmp/run_vmtests.sh" || return
	[[ $(diff "$dir/run_vmtests.sh" "$TESTS.tmp/run_vmtests.sh" | grep -c '^>') -eq 6 ]] ||
		die "run_vmtests.sh is another one than expected"
}

# selftests: compile them once
selftests()
{
	local id

	id=$({
		git -C "$BUILD/base" rev-parse 'HEAD^{tree}'
		gcc --version
		declare -f adapt compile
	} | hash_id)
	[[ ! -e $TESTS/id || $(cat "$TESTS/id") != "$id" ]] || return 0
	rm -rf "$TESTS" "$TESTS.tmp"
	mkdir -p "$TESTS.tmp"
	try "compiling the mm selftests of the base" "$TESTS.log" compile
	echo "$id" >"$TESTS.tmp/id"
	mv "$TESTS.tmp" "$TESTS"
}

# guest KERNEL GROUP [TEST]: in the folder dir
guest()
{
	local vm=(scripts/vm/boot.sh --kernel "$1" --out "$dir" --timeout 3600) disk=format=raw,if=virtio,cache=unsafe

	if [[ $2 == kunit ]]; then
		# Those of KUnit itself have an oops, at which the guest panics.
		"${vm[@]}" \
			--append "cma=64M kunit.autorun=1 kunit.filter=module!=kunit_test kunit.filter_glob=${3:-*}" -- true
		return
	fi
	truncate -s 1G "$dir/swap"
	truncate -s 2G "$dir/disk"
	# migration wants two CPUs and one for each of its threads.
	[[ $2 != migration ]] || vm+=(--smp "${SMP:-4}")
	# Two nodes, for those that move pages from one to the other.
	"${vm[@]}" --mem "${MEM:-3G}" --append 'cma=64M numa=fake=2' \
		--qemu "-drive $disk,file=$dir/swap -drive $disk,file=$dir/disk" \
		-- env LIMIT="$LIMIT" scripts/check/guest-regress "$TESTS" "${@:2}"
}

# kinds: of reports in the kernel log, without what is different each time
kinds()
{
	quiet_log "$dir" |
		sed -E -e 's/^[0-9]+:\[ *[0-9.]+\] //; s/\r//; s#\.\./(base|tree)/##; s/0x[0-9a-f]+|[0-9a-f]{8,}|[0-9]+/N/g' | sort -u || :
}

# run_group DIR KERNEL GROUP [TEST]: leaves results, reports and seconds there
run_group()
{
	local dir=$1 status start=$SECONDS id try

	id=$({
		cat "$BUILD/kernel-$2/arch/x86/boot/bzImage" "$TESTS"/* scripts/check/guest-regress scripts/check/regress.awk
		declare -f guest
		echo "$LIMIT ${MEM:-} ${SMP:-}"
	} | hash_id)
	[[ ! -e $dir/id || $(cat "$dir/id") != "$id" ]] || return 0
	say "$2: $3${4:+, again: $4}"
	for try in 1 2 3; do
		rm -rf "$dir"
		mkdir -p "$dir"
		status=0
		guest "${@:2}" >"$dir/output" 2>"$dir/errors" || status=$?
		rm -f "$dir/swap" "$dir/disk"
		# boot.sh tries again as well, but not after the start of the command.
		stale_breakpoint "$dir" || break
		say "note: guest $try ended at a stale breakpoint of the emulation"
	done
	[[ $status -eq 0 || $status -eq 125 ]] || {
		cat "$dir/errors" >&2
		die "the guest for $3 on $2 could not run: see above"
	}
	[[ $3 != kunit ]] || cp "$dir/console.log" "$dir/output"
	{
		awk -v group="$3" -f scripts/check/regress.awk "$dir/output" | grep -v $'^[a-z]*\tkunit\tpin_gate' || :
		printf '%s\t%s\tguest\tgot to its end\n' "$([[ $status -eq 0 ]] && echo pass || echo fail)" "$3"
	} >"$dir/results"
	kinds >"$dir/reports"
	echo $((SECONDS - start)) >"$dir/seconds"
	echo "$id" >"$dir/id"
}

# all KERNEL FILE: of the groups asked for, sorted
all()
{
	local group

	for group in "${groups[@]}"; do
		cat "$OUT/$1/$group/$2"
	done | sort -u
}

passes()
{
	all "$1" results | sed -n 's/^pass\t//p' | sort
}

again()
{
	echo "$OUT/again/$1/$2/${3//[^A-Za-z0-9]/_}"
}

# retry: what got lost, a guest for each test
retry()
{
	local group test kernel try

	cut -f1,2 "$OUT/lost" | sort -u | while IFS=$'\t' read -r group test; do
		for ((try = 1; try <= RETRIES; try++)); do
			for kernel in "${KERNELS[@]}"; do
				[[ $test != guest ]] || test=
				run_group "$(again "$kernel" "$group" "${test:-guest}")-$try" "$kernel" "$group" ${test:+"$test"}
			done
		done
	done
}

# passed_again KERNEL RESULT: how often
passed_again()
{
	local group test

	IFS=$'\t' read -r group test _ <<<"$2"
	cat "$(again "$1" "$group" "$test")"-*/results | grep -cxF "pass	$2" || :
}

# judge: what is lost for good goes to lost_again, the others to flaky
judge()
{
	local result base series

	: >"$OUT/flaky"
	: >"$OUT/lost_again"
	while IFS= read -r result; do
		base=$(passed_again "${KERNELS[0]}" "$result")
		series=$(passed_again "${KERNELS[1]}" "$result")
		printf '%s\tunpatched %d, patched %d of %d\n' "$result" $((base + 1)) "$series" $((RETRIES + 1)) \
			>>"$OUT/$([[ $base -gt 0 && $series -eq 0 ]] && echo lost_again || echo flaky)"
	done <"$OUT/lost"
}

# row GROUP: passed, failed, skipped and seconds, for both kernels
row()
{
	local kernel

	printf '%-17s' "$1"
	for kernel in "${KERNELS[@]}"; do
		cut -f1 "$OUT/$kernel/$1/results" | awk -v seconds="$(cat "$OUT/$kernel/$1/seconds")" '
			{ n[$1]++ }
			END { printf "  %8d %6d %7d %5d", n["pass"], n["fail"], n["skip"], seconds }'
	done
	echo
}

# section TITLE FILE: unless there is nothing in it
section()
{
	[[ -s $2 ]] || return 0
	echo
	echo "$1:"
	sed 's/^/  /; s/\t/ | /g' "$2"
}

table()
{
	local group

	printf '%-17s  %-29s  %s\n' '' 'unpatched' 'patched'
	printf '%-17s  %8s %6s %7s %5s  %8s %6s %7s %5s\n' group passed failed skipped s passed failed skipped s
	for group in "${groups[@]}"; do
		row "$group"
	done
	section "lost: pass on the unpatched kernel, and not on the patched one" "$OUT/lost_again"
	section "in the kernel log of the patched kernel only" "$OUT/reported"
	section "flaky: passed on the unpatched kernel, and at first not on the patched one" "$OUT/flaky"
	section "gained: passed on the patched kernel, and not on the unpatched one" "$OUT/gained"
	[[ -s $OUT/lost_again || -s $OUT/reported ]] || printf '\nnothing got lost\n'
}

cd "$REPO"
lock
groups=("$@")
[[ $# -gt 0 ]] || groups=("${GROUPS_ALL[@]}")
for group in "${groups[@]}"; do
	[[ " ${GROUPS_ALL[*]} " == *" $group "* ]] || die "no group $group; there are: ${GROUPS_ALL[*]}"
done
scripts/packages.sh tree build selftests vm regress
for kernel in "${KERNELS[@]}"; do
	scripts/build/kernel.sh build "$kernel"
done
need_space 2 "the files of the guests"
mkdir -p "$OUT"
selftests
for kernel in "${KERNELS[@]}"; do
	for group in "${groups[@]}"; do
		run_group "$OUT/$kernel/$group" "$kernel" "$group"
	done
done
comm -23 <(passes "${KERNELS[0]}") <(passes "${KERNELS[1]}") >"$OUT/lost"
comm -13 <(passes "${KERNELS[0]}") <(passes "${KERNELS[1]}") >"$OUT/gained"
comm -13 <(all "${KERNELS[0]}" reports) <(all "${KERNELS[1]}" reports) >"$OUT/reported"
retry
judge
table >"$OUT/table.tmp"
mv "$OUT/table.tmp" "$OUT/table"
cat "$OUT/table"
[[ ! -s $OUT/lost_again && ! -s $OUT/reported ]]
