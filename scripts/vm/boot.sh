#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Boot a kernel in QEMU with the host's root read-only under it and run one
# command there as root.
#
#   boot.sh --kernel KERNEL --out DIR [OPTION]... -- CMD [ARG]...
#   boot.sh --kernel KERNEL --out DIR [OPTION]... --shell
#
#   --kernel KERNEL      the path of a bzImage, or NAME for BUILD/kernel-NAME; arm64
#                        has as its root what scripts/check/arm64.sh made
#   --out DIR            below BUILD if it has no slash
#   --mem 768M --smp 2   size of the guest
#   --append "cma=256M"  more boot parameters
#   --timeout 300        seconds until the guest counts as hung
#   --qemu "ARG ARG"     more arguments for QEMU
#   --count              emulate one CPU whose clock counts instructions: 1 ns each
#
# The command starts in the repository's root; its output comes out here as it
# is written and its exit status is the exit status of this script. DIR is the
# one writable folder it has (VM_OUT in its environment, same path as here);
# DIR/console.log holds the kernel's messages. ACCEL=kvm|tcg skips the probe.
#
# virtme-ng cannot do this: Debian 12 does not have it, and it wants VIRTIO_CONSOLE,
# OVERLAY_FS and more in kernels that are to have little beside what is measured.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"

usage()
{
	sed -n '3,/^$/s/^# \{0,1\}//p' "$0" >&2
	exit 2
}

# Exit status if the guest itself failed, apart from what commands use.
GUEST_FAILED=125

kernel='' out='' mem=${MEM:-768M} smp=${SMP:-2} append='' timeout=300 extra='' shell='' count=''
while [[ $# -gt 0 ]]; do
	case $1 in
	--kernel | --out | --mem | --smp | --append | --timeout | --qemu)
		[[ $# -ge 2 ]] || usage
		case $1 in
		--qemu) extra=$2 ;;
		*) printf -v "${1#--}" %s "$2" ;;
		esac
		shift 2
		;;
	--shell | --count)
		printf -v "${1#--}" 1
		shift
		;;
	--)
		shift
		break
		;;
	*) usage ;;
	esac
done
[[ -n $kernel && -n $out && ( -n $shell || $# -gt 0 ) ]] || usage
# erms has the kernel clear and copy by the byte, which TCG emulates one by one.
qemu=(qemu-system-x86_64)
package=qemu-system-x86 image=arch/x86/boot/bzImage root=/ model='max,-erms,-fsrm' console=ttyS0 tty=ttyS1
if [[ $kernel == arm64* ]]; then
	# This machine has no second serial port of its own.
	qemu=(qemu-system-aarch64 -M virt -device 'pci-serial,chardev=serial1')
	package=qemu-system-arm image=arch/arm64/boot/Image root=$BUILD/arm64-root model=max console=ttyAMA0 tty=ttyS0
	ACCEL=tcg
fi
[[ $kernel == */* ]] || kernel=$BUILD/kernel-$kernel/$image
[[ $out == */* ]] || out=$BUILD/$out
[[ -r $kernel ]] || die "no kernel at $kernel"
command -v "${qemu[0]}" >/dev/null || die "no ${qemu[0]} here: as root, apt-get install $package"

# accel: print kvm or tcg. A /dev/kvm that opens can still hang the guest, so
# only a guest that got through its boot (to the panic for want of a root)
# counts. The verdict holds until the machine is booted again.
accel()
{
	local memo log
	local boot

	if [[ -n ${ACCEL:-} ]]; then
		echo "$ACCEL"
		return
	fi
	boot=$(cat /proc/sys/kernel/random/boot_id)
	memo=$BUILD/accel
	if [[ ! -e $memo || $(cut -d' ' -f2 "$memo") != "$boot" ]]; then
		mkdir -p "$BUILD"
		log=$(mktemp)
		if [[ -r /dev/kvm && -w /dev/kvm ]] &&
			timeout -k 1 20 qemu-system-x86_64 -nodefaults -no-user-config \
				-display none -no-reboot -accel kvm -cpu host -m 256M \
				-serial "file:$log" -kernel "$kernel" \
				-append "console=ttyS0 panic=-1" </dev/null &>/dev/null &&
			grep -q 'Kernel panic' "$log"; then
			echo "kvm $boot" >"$memo.$$"
		else
			echo "tcg $boot" >"$memo.$$"
		fi
		rm -f "$log"
		mv "$memo.$$" "$memo"
	fi
	cut -d' ' -f1 "$memo"
}

last_lines()
{
	say "--- last lines of $out/console.log:"
	tail -n 25 "$out/console.log" | tr -d '\r' >&2
}

mkdir -p "$out"
out=$(cd "$out" && pwd -P)
mkdir -p "$root$out"
rm -f "$out/status" "$out/started" "$out/cmd" "$out/console.log"
printf 'exec' >"$out/cmd"
for arg in "$@"; do
	printf " '%s'" "${arg//\'/\'\\\'\'}"
done >>"$out/cmd"
echo >>"$out/cmd"

[[ -n $count ]] && accel=count || accel=$(accel)
case $accel in
count)
	cpu=(-accel "tcg,thread=single" -icount "shift=0,sleep=off" -cpu "$model")
	smp=1
	# There is no other clock to check it against, and timers would have only ticks.
	[[ $kernel == *arm64* ]] || append="tsc=reliable tsc_early_khz=1000000 $append"
	;;
kvm) cpu=(-accel kvm -cpu host) ;;
tcg)
	cpu=(-accel "tcg,thread=multi" -cpu "$model")
	[[ $kernel == *arm64* ]] || append="$(guest_clock) $append"
	# An interrupt during identify_cpu() sees a CPU without LA57, and KASAN then
	# takes every address for a wild one.
	[[ $kernel != *-debug/* ]] || append="no5lvl $append"
	;;
esac
if [[ -n $shell ]]; then
	say "booting ($accel); exit ends the guest, Ctrl-A X kills it"
	cmdport=mon:stdio
	limit=()
	read -r rows cols < <(stty size 2>/dev/null || echo 24 80)
	append+=" vm_shell=1 vm_term=${TERM:-linux} vm_rows=$rows vm_cols=$cols"
else
	cmdport=stdio
	limit=(timeout --foreground -k 5 "$timeout")
	exec </dev/null
fi
share=security_model=none,multidevs=remap
read -ra extra_args <<<"$extra"

# panic=, oops= and kunit.autorun= come first, so that --append can say otherwise.
# One CPU per socket: SeaBIOS' MP table has no more. A backport's guest needs the selftests
# in the build folder of the series, which has its own inside.
boot()
{
	status=0
	"${limit[@]}" "${qemu[@]}" -nodefaults -no-user-config -display none -no-reboot \
		"${cpu[@]}" -m "$mem" -smp "$smp,sockets=$smp" \
		-fsdev "local,id=root,path=$root,readonly=on,$share" \
		-device virtio-9p-pci,fsdev=root,mount_tag=/dev/root \
		-fsdev "local,id=out,path=${out//,/,,},$share" \
		-device virtio-9p-pci,fsdev=out,mount_tag=vmout \
		-serial "file:$out/console.log" -serial "$cmdport" \
		-kernel "$kernel" \
		-append "console=$console panic=-1 oops=panic kunit.autorun=0 root=/dev/root rootfstype=9p \
rootflags=trans=virtio,version=9p2000.L,msize=262144,cache=loose,access=any ro \
init=$REPO/scripts/vm/guest-init vm_repo=$REPO vm_build=$SERIES_BUILD vm_out=$out vm_tty=$tty $append" \
		${extra_args[@]+"${extra_args[@]}"} || status=$?
}

# Before the command starts, a stale breakpoint, and nothing else, is worth another
# try. They are most likely one second after the start, in sched_clock_cpu() or
# ktime_get(), when the clock source changes.
for try in 1 2 3; do
	boot
	if [[ -s $out/status ]]; then
		exit "$(cat "$out/status")"
	fi
	[[ $accel == tcg && ! -e $out/started ]] || break
	stale_breakpoint "$out" || break
	say "note: boot $try ended at a stale breakpoint of the emulation, before the command"
done
panic=$(sed -n '/Kernel panic - not syncing: /{s/.*syncing: //p;q}' "$out/console.log")
if [[ -n $panic ]]; then
	last_lines
	say "error: the guest panicked (${panic%$'\r'}; $accel, kernel $kernel): see $out/console.log"
elif [[ $status -eq 124 || $status -eq 137 ]]; then
	last_lines
	say "error: the guest did not end within $timeout s ($accel, kernel $kernel): hung;" \
		"see $out/console.log"
elif [[ $status -ne 0 ]]; then
	die "QEMU failed with status $status ($accel): see its message above"
else
	last_lines
	say "error: the guest ended without running the command to its end; see $out/console.log"
fi
exit "$GUEST_FAILED"
