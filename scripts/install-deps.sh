#!/bin/bash
# Gets what vmgate's demonstration and tests need on Debian 12 or 13, as root:
#
#   install-deps.sh            programs for run time, and a guest kernel in build/guest
#   install-deps.sh generate   the same, and the compiler for `make generate`
#   install-deps.sh bench      the same, and what `make bench` compares with
#
# What is there already is left alone; when all is there, apt is not called at
# all. Nothing that is installed gets started, and the guest kernel and its
# busybox are unpacked below build/ only, not installed.
set -euo pipefail
shopt -s inherit_errexit

top=$(cd "$(dirname "$0")/.." && pwd)
guest=$top/build/guest
export PATH=$PATH:/usr/sbin:/sbin DEBIAN_FRONTEND=noninteractive LC_ALL=C

say() { echo "install-deps: $*"; }
die() {
	echo "install-deps: cannot $1" >&2
	shift
	for line in "$@"; do echo "              $line" >&2; done
	exit 1
}

# program=package; a program that is found counts as installed.
programs=(
	qemu-system-x86_64=qemu-system-x86
	suricata=suricata
	bpftool=bpftool
	ip=iproute2
	ethtool=ethtool
	tcpdump=tcpdump
	iptables=iptables
	modprobe=kmod
	xz=xz-utils
	openssl=openssl
)
case "${1:-}" in
"") ;;
generate) programs+=(clang-19=clang-19 llvm-strip-19=llvm-19) ;;
bench) programs+=(nft=nftables) ;;
*) die "understand \"$1\"" "usage: install-deps.sh [generate|bench]" ;;
esac

missing=()
for one in "${programs[@]}"; do
	command -v "${one%%=*}" >/dev/null || missing+=("${one#*=}")
done
[[ "${1:-}" != generate || -e /usr/include/bpf/bpf_helpers.h ]] || missing+=(libbpf-dev)

need_guest=no
[[ -e $guest/vmlinuz && -x $guest/busybox && -e $guest/modules/virtio_net.ko ]] || need_guest=yes

log=$(mktemp)
scratch=""
policy=""
cleanup() {
	rm -f "$log"
	[[ -z $scratch ]] || rm -rf "$scratch"
	[[ -z $policy ]] || rm -f "$policy"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# quietly WHAT COMMAND… runs a command and shows what it said only if it fails.
quietly() {
	local what=$1
	shift
	"$@" >"$log" 2>&1 && return
	tail -n 30 "$log" >&2
	die "$what" "the command was: $*"
}

need_debian() {
	[[ -r /etc/os-release ]] || die "tell the distribution: there is no /etc/os-release"
	# shellcheck source=/dev/null
	. /etc/os-release
	[[ ${ID:-} == debian && ${VERSION_CODENAME:-} =~ ^(bookworm|trixie)$ ]] ||
		die "install packages on ${PRETTY_NAME:-this system}: only Debian 12 and 13 are known" \
			"install by hand: ${missing[*]:-a guest kernel in $guest}"
	[[ $(dpkg --print-architecture) == amd64 ]] || die "get a guest kernel: guests are amd64, this machine is $(dpkg --print-architecture)"
	[[ $EUID -eq 0 ]] || die "install ${missing[*]:-the guest kernel} without root" "run: sudo $0 ${1:-}"
}

candidate() { apt-cache policy "$1" | sed -n 's/^ *Candidate: //p'; }
has_candidate() { [[ -n $(candidate "$1") && $(candidate "$1") != "(none)" ]]; }

# mirror prints where this machine gets Debian from.
mirror() {
	# shellcheck disable=SC2016 # apt's own variables
	apt-get indextargets --format '$(RELEASE) $(SITE)' 'Created-By: Packages' |
		awk -v release="$VERSION_CODENAME" '$1 == release && !site { site = $2 } END { print site }'
}

# Suricata is not in Debian 12 itself.
add_backports() {
	local file=/etc/apt/sources.list.d/vmgate-backports.sources site
	site=$(mirror)
	[[ -n $site ]] || die "tell where this machine gets $VERSION_CODENAME from" "add $VERSION_CODENAME-backports to apt's sources by hand"
	say "suricata has no candidate: adding $VERSION_CODENAME-backports as $file"
	cat >"$file" <<-EOF
		Types: deb
		URIs: $site
		Suites: $VERSION_CODENAME-backports
		Components: main
		Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
	EOF
	quietly "update the package lists" apt-get update
	has_candidate suricata || die "find suricata in $VERSION_CODENAME-backports" "look at $file and at: apt-cache policy suricata"
}

# The gateway runs its own Suricata; the package's service must not run too.
forbid_suricata() {
	[[ ! -e /usr/sbin/policy-rc.d ]] || return 0
	policy=/usr/sbin/policy-rc.d
	# shellcheck disable=SC2016 # the script's own argument
	printf '#!/bin/sh\n[ "$1" = suricata ] && exit 101\nexit 0\n' >"$policy"
	chmod 755 "$policy"
}

silence_suricata() {
	[[ -d /run/systemd/system ]] || return 0
	systemctl disable --now suricata.service >/dev/null 2>&1 || true
	say "suricata's own service is disabled"
}

install_packages() {
	local package others=()
	for package in "${missing[@]}"; do
		[[ $package == suricata ]] || others+=("$package")
	done
	if ((${#others[@]})); then
		say "installing ${others[*]}"
		quietly "install ${others[*]}" apt-get install -y --no-install-recommends "${others[@]}"
	fi
	((${#others[@]} == ${#missing[@]})) || install_suricata
}

# From backports it needs a library of theirs too, which apt does not prefer by
# itself.
install_suricata() {
	local release=()
	has_candidate suricata || add_backports
	[[ $(candidate suricata) != *~bpo* ]] || release=(-t "$VERSION_CODENAME-backports")
	say "installing suricata $(candidate suricata)"
	forbid_suricata
	quietly "install suricata" apt-get install -y --no-install-recommends "${release[@]}" suricata
	silence_suricata
}

# A kernel for the guests, with the modules of a virtio network card, and a
# static busybox. --no-install: download, unpack, take what is needed.
fetch_guest() {
	local kernel
	kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-.*\)$/\1/p' | head -n 1)
	[[ -n $kernel ]] || die "find a cloud kernel" "apt-cache depends linux-image-cloud-amd64 names none"
	say "downloading $kernel and busybox-static for the guests"
	mkdir -p "$top/build"
	scratch=$(mktemp -d "$top/build/guest.XXXXXX")
	mkdir "$scratch/root" "$scratch/guest" "$scratch/guest/modules"
	(
		cd "$scratch"
		quietly "download $kernel" apt-get -o APT::Sandbox::User=root download "$kernel" busybox-static
		for package in ./*.deb; do dpkg-deb --extract "$package" root; done
	)
	collect_guest "$kernel"
	rm -rf "$scratch/old"
	[[ ! -e $guest ]] || mv "$guest" "$scratch/old"
	mv "$scratch/guest" "$guest"
	say "guest kernel $(<"$guest/release") is in $guest"
}

collect_guest() {
	local root=$scratch/root into=$scratch/guest module found
	cp "$root"/boot/vmlinuz-* "$into/vmlinuz" || die "find a kernel in $1"
	install -m 755 "$(find "$root" -path '*/bin/busybox' | head -n 1)" "$into/busybox" || die "find busybox in its package"
	echo "${1#linux-image-}" >"$into/release"
	# Those that are built in are not found, and need not be.
	for module in virtio virtio_ring virtio_pci virtio_pci_modern_dev virtio_pci_legacy_dev \
		failover net_failover virtio_net libcrc32c udp_tunnel ip6_udp_tunnel sctp; do
		found=$(find "$root" -name "$module.ko*" | head -n 1)
		case "$found" in
		*.ko) cp "$found" "$into/modules/" ;;
		*.ko.xz) xz -dc "$found" >"$into/modules/$module.ko" ;;
		esac
	done
	[[ -e $into/modules/virtio_net.ko ]] || die "find virtio_net in $1"
	chmod -R go+rX "$into"
}

if ((${#missing[@]})) || [[ $need_guest == yes ]]; then
	need_debian "$@"
	say "updating the package lists"
	quietly "update the package lists" apt-get update
	((${#missing[@]} == 0)) || install_packages
	[[ $need_guest == no ]] || fetch_guest
fi

if [[ $EUID -eq 0 ]]; then
	if ! mountpoint -q /sys/fs/bpf; then
		say "mounting /sys/fs/bpf"
		quietly "mount /sys/fs/bpf" mount -t bpf bpf /sys/fs/bpf
	fi
	# Not loaded by themselves; a kernel that has them built in, or no modules
	# at all, is fine.
	modprobe -qa br_netfilter nfnetlink_queue xt_NFQUEUE nft_compat macvtap tun veth 2>/dev/null || true
	# What root has made below build/ belongs to who called sudo.
	[[ -z ${SUDO_UID:-} || ! -d $top/build ]] || chown -R "$SUDO_UID:${SUDO_GID:-$SUDO_UID}" "$top/build"
fi
say "everything is there"
