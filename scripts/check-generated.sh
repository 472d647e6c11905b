#!/bin/bash
# Fails if the committed eBPF bindings are not what `make generate` makes of
# the C sources. The tree itself is not touched.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v clang-19 >/dev/null; then
	echo "check-generated: skipped, there is no clang-19 (scripts/install-deps.sh generate)"
	exit 0
fi
copy=build/check-generated # inside the module, so that `go run` finds bpf2go
rm -rf "$copy"
trap 'rm -rf "$copy"' EXIT
mkdir -p build
cp -r bpf "$copy"
rm -f "$copy"/*_bpf*.go "$copy"/*_bpf*.o "$copy"/*_test.go
"${GO:-go}" generate "./$copy"
different=0
for made in "$copy"/*_bpf*.go "$copy"/*_bpf*.o; do
	cmp -s "$made" "bpf/${made##*/}" || {
		echo "check-generated: bpf/${made##*/} is not what its sources make: run make generate" >&2
		different=1
	}
done
exit "$different"
