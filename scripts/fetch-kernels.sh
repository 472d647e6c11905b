#!/bin/bash
# Gets further guest kernels for the tests of introspection, one directory each
# as install-deps.sh makes build/guest: vmlinuz, modules/, release, busybox.
#
#   fetch-kernels.sh [SUITE…]   bullseye (5.10), trixie (6.12) and sid if none is named
#   VMGATE_GUEST_KERNELS=$(echo $PWD/build/kernels/* | tr ' ' :) go test ./pkg/vmi
#
# The suites' package lists go to a temporary directory: this machine's own
# configuration of apt stays as it is. Needs apt, and build/guest for busybox.
set -euo pipefail
shopt -s inherit_errexit nullglob

top=$(cd "$(dirname "$0")/.." && pwd)
# Where this machine gets Debian's main archive from.
# shellcheck disable=SC2016 # apt's own variables
mirror=$(apt-get indextargets --format '$(LABEL) $(SITE)' 'Created-By: Packages' | awk '$1 == "Debian" && !site { site = $2 } END { print site }')
suites=("$@")
((${#suites[@]})) || suites=(bullseye trixie sid)

say() { echo "fetch-kernels: $*"; }
die() {
	echo "fetch-kernels: cannot $*" >&2
	exit 1
}

[[ -n $mirror ]] || die "tell where this machine gets Debian from: apt has no sources for it"
[[ -x $top/build/guest/busybox ]] || die "find build/guest/busybox: run scripts/install-deps.sh first"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# in_suite COMMAND… runs an apt tool that knows the one suite only.
in_suite() {
	"$@" 2>>"$scratch/log"
}

fetch() {
	local suite=$1 state=$scratch/$1 kernel
	mkdir -p "$state"/{lists/partial,cache/archives/partial,parts,root}
	cat >"$state/apt.conf" <<-EOF2
		Dir::State::lists "$state/lists";
		Dir::Cache "$state/cache";
		Dir::Etc::sourcelist "$state/sources.list";
		Dir::Etc::sourceparts "$state/parts";
		Dir::State::status "$state/status";
		APT::Architecture "amd64";
		APT::Sandbox::User "root";
		Acquire::Languages "none";
	EOF2
	: >"$state/status"
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$state/sources.list"
	export APT_CONFIG=$state/apt.conf
	say "reading the package list of $suite"
	in_suite apt-get -q update >/dev/null || die "read the package list of $suite: $(tail -n 3 "$scratch/log")"
	kernel=$(in_suite apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[^ ]*\).*$/\1/p' | head -n 1)
	[[ -n $kernel ]] || die "find a cloud kernel in $suite"
	(
		cd "$state"
		in_suite apt-get -q download "$kernel" >/dev/null || die "download $kernel: $(tail -n 3 "$scratch/log")"
		# From some release on the kernel's modules, or its image, are packages
		# of their own that the image's depends on.
		for more in $(in_suite apt-cache depends "$kernel" | sed -n 's/^ *Depends: \(linux-\(modules\|binary\|base\)-[^ ]*\).*$/\1/p'); do
			in_suite apt-get -q download "$more" >/dev/null || die "download $more: $(tail -n 3 "$scratch/log")"
		done
		for package in ./*.deb; do dpkg-deb --extract "$package" root; done
	)
	collect "$state/root" "$top/build/kernels/$suite" "${kernel#linux-image-}"
}

# collect ROOT INTO RELEASE; modules that are built in are not found, and need not be.
collect() {
	local root=$1 into=$2 module found images
	rm -rf "$into"
	mkdir -p "$into/modules"
	images=("$root"/boot/vmlinuz-* "$root"/usr/lib/modules/*/vmlinuz)
	((${#images[@]})) || die "find a kernel image for $3"
	cp "${images[0]}" "$into/vmlinuz"
	cp "$top/build/guest/busybox" "$into/busybox"
	echo "$3" >"$into/release"
	for module in virtio virtio_ring virtio_pci virtio_pci_modern_dev virtio_pci_legacy_dev \
		failover net_failover virtio_net; do
		found=$(find "$root" -name "$module.ko*" | head -n 1)
		case "$found" in
		*.ko) cp "$found" "$into/modules/" ;;
		*.ko.xz) xz -dc "$found" >"$into/modules/$module.ko" ;;
		*.ko.zst) zstd -qdc "$found" >"$into/modules/$module.ko" ;;
		esac
	done
	say "kernel $3 is in $into"
}

for suite in "${suites[@]}"; do fetch "$suite"; done
