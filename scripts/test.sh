#!/usr/bin/env bash
# Runs every Rust test and says at the end how many there were.
set -euo pipefail
cd "$(dirname "$0")/.."

log="$(mktemp)"
trap 'rm -f "$log"' EXIT
status=0
cargo test --release --locked --no-fail-fast --lib --bins --tests --examples "$@" 2>&1 | tee "$log" || status=$?
awk '/^test result:/ { passed += $4; failed += $6; ignored += $8; suites++ }
     END { printf "tests: %d passed, %d failed, %d ignored in %d suites\n", passed, failed, ignored, suites }' "$log"
if [ "$status" -ne 0 ]; then
    grep -E '^test .* FAILED$|^error' "$log" >&2 || true
fi
exit "$status"
