# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Sourced after lib.sh: packages of the base kernel from Debian's archive, whatever
# release this machine has.

case $BASE in
7.3) WANTED=7.3.4 SUITE=trixie-backports ;;
6.12) WANTED=6.12.117 SUITE=trixie ;;
esac

# mirrors: the machine's own archive addresses, Debian's usual name first
mirrors()
{
	# shellcheck disable=SC2016 # apt expands this
	apt-get indextargets --format '$(REPO_URI)' | grep -v -e security -e '^cdrom:' |
		awk '!seen[$0]++ { if (/\/debian\/?$/) print; else other = other $0 "\n" }
			END { printf "%s", other }'
}

# private_apt MIRROR: an apt state of our own; the system's stays as it is
private_apt()
{
	local dir=$BUILD/apt

	rm -rf "$dir"
	mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
	: >"$dir/status"
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $1 $SUITE main" \
		>"$dir/sources.list"
	cat >"$dir/apt.conf" <<-CONF
		Dir::State "$dir";
		Dir::State::Lists "$dir/lists";
		Dir::State::status "$dir/status";
		Dir::Cache "$dir/cache";
		Dir::Etc::SourceList "$dir/sources.list";
		Dir::Etc::SourceParts "-";
		APT::Sandbox::User "root";
	CONF
	export APT_CONFIG=$dir/apt.conf
}

# newest_deb PACKAGE
newest_deb()
{
	find "$BUILD" -maxdepth 1 -name "$1_*.deb" | sort -V | tail -n 1
}

# fetch_deb PACKAGE SIZE INSTEAD: into BUILD; nothing is left there if it fails. INSTEAD
# is what the user can say on the command line.
fetch_deb()
{
	local package=$1 mirror version log=$BUILD/apt.log part=$BUILD/download.tmp found=''

	[[ -z $(newest_deb "$package") ]] || return 0
	command -v apt-get >/dev/null ||
		die "no apt-get here to fetch $package: say $3"
	for mirror in $(mirrors); do
		private_apt "$mirror"
		apt-get update --error-on=any >"$log" 2>&1 || continue
		found=$mirror
		break
	done
	[[ -n $found ]] || {
		[[ ! -e $log ]] || tail -n 5 "$log" >&2
		die "no archive of this machine's apt sources has $SUITE (see $log):" \
			"mend the network or the sources, or say $3"
	}
	version=$(apt-cache madison "$package" | awk '{ print $3 }' | sort -Vr |
		awk -v want="$WANTED-" 'NR == 1 { v = $0 } index($0, want) == 1 { v = $0; exit }
			END { print v }')
	[[ -n $version ]] ||
		die "$package is no longer in $SUITE: say $3"
	[[ $version == "$WANTED"-* ]] ||
		say "NOTICE: $package $WANTED is gone from the archive; taking $version instead"
	rm -rf "$part"
	mkdir "$part"
	say "fetching $package $version ($2)"
	(cd "$part" && apt-get download "$package=$version") || {
		rm -rf "$part"
		die "the download of $package $version was cut off or refused; nothing was kept: call make again"
	}
	mv "$part"/*.deb "$BUILD/"
	rm -rf "$part"
}
