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
