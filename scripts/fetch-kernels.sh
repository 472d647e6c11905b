#!/bin/bash
# Gets the guest kernels that the tests of introspection want beside
# build/guest, one directory each below build/kernels, as install-deps.sh makes
# build/guest: vmlinuz, modules/, release, busybox.
#
#   fetch-kernels.sh [SUITE…]   bullseye (5.10), bookworm (6.1), trixie (6.12) and
#                               sid (7 and later) if none is named
#
# What is there already is left alone; a suite that cannot be had in time is
# told and counts as a failure, and the others are got nevertheless. The suites'
# package lists go to a temporary directory: this machine's own configuration of
# apt stays as it is. Needs apt, and build/guest for busybox.
set -euo pipefail
shopt -s inherit_errexit nullglob

top=$(cd "$(dirname "$0")/.." && pwd)
limit=180 # seconds that all of one suite may take
suites=("$@")
((${#suites[@]})) || suites=(bullseye bookworm trixie sid)
declare -A release=([bullseye]=5.10. [bookworm]=6.1. [trixie]=6.12. [sid]=7.)

say() { echo "fetch-kernels: $*"; }
die() {
	echo "fetch-kernels: cannot $*" >&2
	exit 1
}

# has DIRECTORY SUITE: it holds a kernel of the suite, complete.
has() { [[ -e $1/vmlinuz && -x $1/busybox && -e $1/release && $(<"$1/release") == "${release[$2]:-}"* ]]; }

# in_suite COMMAND… runs an apt tool that knows the one suite only.
in_suite() { "$@" 2>>"$state/log"; }

# why is what went wrong last.
why() { grep -v '^W:' "$state/log" | tail -n 3 || true; }

# fetch SUITE: in a process of its own, with state, a directory, and mirror.
fetch() {
	local suite=$1 kernel more package
	mkdir -p "$state"/{lists/partial,cache/archives/partial,parts,root,out}
	cat >"$state/apt.conf" <<-EOF2
		Dir::State::lists "$state/lists";
		Dir::Cache "$state/cache";
		Dir::Etc::sourcelist "$state/sources.list";
		Dir::Etc::sourceparts "$state/parts";
		Dir::State::status "$state/status";
		APT::Architecture "amd64";
		APT::Sandbox::User "root";
		Acquire::Languages "none";
		Acquire::Retries "2";
		Acquire::http::Timeout "20";
		Acquire::https::Timeout "20";
	EOF2
	: >"$state/status"
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$state/sources.list"
	export APT_CONFIG=$state/apt.conf
	in_suite apt-get -q -o APT::Update::Error-Mode=any update >/dev/null || die "read the package list of $suite: $(why)"
	kernel=$(in_suite apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[^ ]*\).*$/\1/p' | head -n 1)
	[[ -n $kernel ]] || die "find a cloud kernel in $suite"
	(
		cd "$state"
		in_suite apt-get -q download "$kernel" >/dev/null || die "download $kernel: $(why)"
		# From some release on the kernel's modules, or its image, are packages
		# of their own that the image's depends on.
		for more in $(in_suite apt-cache depends "$kernel" | sed -n 's/^ *Depends: \(linux-\(modules\|binary\|base\)-[^ ]*\).*$/\1/p'); do
			in_suite apt-get -q download "$more" >/dev/null || die "download $more: $(why)"
		done
		for package in ./*.deb; do dpkg-deb --extract "$package" root; done
	)
	collect "$state/root" "$state/out" "${kernel#linux-image-}"
	has "$state/out" "$suite" || die "use $kernel of $suite: the tests want ${release[$suite]:-no such suite}"
	rm -rf "$top/build/kernels/$suite"
	mv "$state/out" "$top/build/kernels/$suite"
	say "kernel ${kernel#linux-image-} of $suite is in build/kernels/$suite"
}

# collect ROOT INTO RELEASE; modules that are built in are not found, and need not be.
collect() {
	local root=$1 into=$2 module found images
	mkdir -p "$into/modules"
	images=("$root"/boot/vmlinuz-* "$root"/usr/lib/modules/*/vmlinuz)
	((${#images[@]})) || die "find a kernel image for $3"
	cp "${images[0]}" "$into/vmlinuz"
	cp "$top/build/guest/busybox" "$into/busybox"
	echo "$3" >"$into/release"
	for module in virtio virtio_ring virtio_pci virtio_pci_modern_dev virtio_pci_legacy_dev \
		failover net_failover virtio_net libcrc32c udp_tunnel ip6_udp_tunnel sctp; do
		found=$(find "$root" -name "$module.ko*" | head -n 1)
		case "$found" in
		*.ko) cp "$found" "$into/modules/" ;;
		*.ko.xz) xz -dc "$found" >"$into/modules/$module.ko" ;;
		*.ko.zst) zstd -qdc "$found" >"$into/modules/$module.ko" ;;
		esac
	done
}

# One suite, as started below.
if [[ -n ${FETCH_KERNELS_STATE:-} ]]; then
	state=$FETCH_KERNELS_STATE mirror=$FETCH_KERNELS_MIRROR
	fetch "$1"
	exit
fi

missing=()
for suite in "${suites[@]}"; do
	has "$top/build/kernels/$suite" "$suite" || has "$top/build/guest" "$suite" || missing+=("$suite")
done
((${#missing[@]})) || exit 0

[[ -x $top/build/guest/busybox ]] || die "find build/guest/busybox: run scripts/install-deps.sh first"
command -v apt-get >/dev/null || die "get kernels without apt"
# Where this machine gets Debian's main archive from.
# shellcheck disable=SC2016 # apt's own variables
mirror=$(apt-get indextargets --format '$(LABEL) $(SITE)' 'Created-By: Packages' | awk '$1 == "Debian" && !site { site = $2 } END { print site }')
[[ -n $mirror ]] || die "tell where this machine gets Debian from: apt has no sources for it"

mkdir -p "$top/build/kernels"
scratch=$(mktemp -d "$top/build/kernels/.fetch.XXXXXX") # on the same file system: results are moved
trap 'rm -rf "$scratch"' EXIT
say "getting the kernels of ${missing[*]}"
failed=() pids=()
for suite in "${missing[@]}"; do
	mkdir "$scratch/$suite"
	FETCH_KERNELS_STATE=$scratch/$suite FETCH_KERNELS_MIRROR=$mirror timeout "$limit" "$0" "$suite" &
	pids+=($!)
done
for i in "${!missing[@]}"; do
	wait "${pids[i]}" || failed+=("${missing[i]}")
done
[[ -z ${SUDO_UID:-} ]] || chown -R "$SUDO_UID:${SUDO_GID:-$SUDO_UID}" "$top/build/kernels"
((${#failed[@]} == 0)) || die "get the kernels of ${failed[*]} (of ${#missing[@]} that were missing)"
