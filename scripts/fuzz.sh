#!/bin/bash
# Runs every fuzz test of the project for a while: fuzz.sh [TIME, default 10s]
set -euo pipefail
cd "$(dirname "$0")/.."

time=${1:-10s}
grep -rlE '^func Fuzz' --include='*_test.go' . | while read -r file; do
	sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' "$file" | while read -r name; do
		echo "== ${file%/*} $name"
		"${GO:-go}" test -run '^$' -fuzz "^$name\$" -fuzztime "$time" "${file%/*}" </dev/null
	done
done

# The whole of what `make test` does a share of: a hundred thousand altered bytes
# in a guest's memory (root).
if [[ $EUID -eq 0 ]]; then
	echo "== ./pkg/vmi TestFlips"
	VMI_TEST_FLIPS=100000 "${GO:-go}" test -count 1 -timeout 30m -run '^TestFlips$' -v ./pkg/vmi | grep -v '^\['
fi
