#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Tests of the packages of "make deb", as TAP and a count: of a small kernel, installed
# into a Debian on a disk, booted there by GRUB and its initramfs, tested, and purged.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"

OUT=$BUILD/deb-test
ROOT=$OUT/root
DISK=$OUT/disk.img
CONSOLE=$OUT/boot/console.log
PACKAGES=initramfs-tools,zstd,kmod,udev,grub-pc,mount
log=$OUT/test.log

small_config()
{
	make -C "$TREE" O="$OUT/config" tinyconfig &&
		cat "$OUT/config/.config" "$REPO/configs/lean" "$REPO/configs/deb-test" >"$OUT/small.config"
}

make_root()
{
	local codename

	# shellcheck source=/dev/null
	codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
	rm -rf "$ROOT"
	mmdebstrap --variant=apt --include="$PACKAGES" --aptopt='APT::Sandbox::User "root"' "$codename" "$ROOT"
	cp "$OUT"/deb/linux-image-*.deb "$OUT"/deb/linux-selftests-*.deb "$ROOT/root/"
	cp "$REPO/scripts/tests/guest-deb" "$ROOT/root/"
	mkdir -p "$ROOT/etc/default/grub.d"
	cat >"$ROOT/etc/default/grub.d/test.cfg" <<-CONF
		GRUB_TIMEOUT=1
		GRUB_TERMINAL="console serial"
		GRUB_CMDLINE_LINUX="console=ttyS0 panic=-1 cma=64M $(guest_clock) init=/root/guest-deb"
	CONF
}

# make_disk: one partition after the space that GRUB needs
make_disk()
{
	rm -f "$DISK"
	truncate -s 2G "$DISK"
	echo '2048,,L,*' | sfdisk -q "$DISK"
	mke2fs -q -t ext4 -d "$ROOT" -E offset=1048576 "$DISK" 2047M
	rm -rf "$ROOT"
}

# The first guest has the root file system of this machine, and that of the disk below it.
install_there()
{
	"$REPO/scripts/vm/boot.sh" --kernel series --out "$OUT/install" --timeout 900 \
		--qemu "-drive file=$DISK,format=raw,if=virtio" -- scripts/tests/guest-deb install
}

boot_disk()
{
	local model=(-accel tcg -cpu "max,-erms,-fsrm")

	[[ $(cut -d' ' -f1 "$BUILD/accel") != kvm ]] || model=(-accel kvm -cpu host)
	mkdir -p "${CONSOLE%/*}"
	timeout -k 5 900 qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot "${model[@]}" \
		-m 1G -smp 2,sockets=2 -drive "file=$DISK,format=raw,if=virtio" -serial "file:$CONSOLE"
}

# said TEXT...: on the console of the disk
said()
{
	local text

	for text; do
		grep -q -- "$text" "$CONSOLE" || echo "wanted: $text"
	done
}

left()
{
	said '^== purged' '^== end'
	grep '^== left' "$CONSOLE"
}

lock
"$REPO/scripts/packages.sh" tree build vm deb deb-test
mkdir -p "$OUT"
"$REPO/scripts/build/kernel.sh" build series
try "configuring a small kernel with modules" "$log" small_config
CONFIG=$OUT/small.config LOCALMOD='' "$REPO/scripts/build/deb.sh" "$OUT/deb"
try "making a Debian root" "$log" make_root
try "making a disk of it" "$log" make_disk
try "installing the packages there, in a guest" "$OUT/install.log" install_there
try "booting the disk" "$log" boot_disk
{
	report_silent "the disk boots by GRUB" said 'GRUB'
	report_silent "that kernel, with modules from its initramfs" said '^== kernel .*-cma-gup-pin' \
		'^== root /dev/vda1 ext4' '^== module virtio_blk' '^== module ext4'
	report_silent "the selftest passes, and the benchmark runs" said '^# .*pass:[1-9][0-9]* fail:0 ' '^== tested'
	report_silent "apt purge removes all of it" left
} | tee "$OUT/results"
summary "$OUT/results"
