# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# Debian's kernels that the tests boot: the newest of each series, as packages (image and headers of the same
# version), unpacked below $vm_cache. Nothing of them is installed but the headers, by scripts/install-deps.

# shellcheck disable=SC2034
vm_series=(6.12 6.1)
vm_cache=${VM_CACHE:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/build/vm/kernels}

# package of the headers of a series, as an extended regular expression
vm_headers_of() {
	case $1 in
	6.12) printf '%s' '^linux-headers-6\.12\.[0-9]+[^-]*-cloud-amd64$' ;;
	6.1) printf '%s' '^linux-headers-6\.1\.0-[0-9]+-amd64$' ;;
	esac
}

# vm_newest_headers SERIES: in the archive.
vm_newest_headers() {
	apt-cache search --names-only "$(vm_headers_of "$1")" | awk '{ print $1 }' | sort -V | tail -n 1
}

# vm_release SERIES: the newest whose headers are installed.
vm_release() {
	dpkg-query -W -f='${db:Status-Status} ${Package}\n' 'linux-headers-*' 2>/dev/null |
		awk '$1 == "installed" { print $2 }' | grep -E "$(vm_headers_of "$1")" |
		sed 's/^linux-headers-//' | sort -V | tail -n 1
}

# vm_kernel RELEASE: its image and modules; prints where they are. Downloads once.
vm_kernel() {
	local release=$1 root="$vm_cache/$1"
	if [ ! -e "$root/complete" ]; then
		rm -rf "$root"
		mkdir -p "$root/deb"
		(cd "$root/deb" && apt-get -qq -o APT::Sandbox::User=root download "linux-image-$release") >&2
		dpkg-deb -x "$root"/deb/linux-image-*.deb "$root"
		rm -r "$root/deb"
		depmod -b "$root" "$release"
		touch "$root/complete"
	fi
	printf '%s\n' "$root"
}
