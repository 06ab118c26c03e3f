#!/usr/bin/env bash
# Licences, duplicate crates, sources and advisories of the dependencies. Installs cargo-deny into the cache when it is
# missing; leaves out the advisories, and says so, where their database cannot be fetched.
set -euo pipefail
cd "$(dirname "$0")/.."

tools="${XDG_CACHE_HOME:-$HOME/.cache}/petrel/tools"
export PATH="$tools/bin:$PATH"
if ! command -v cargo-deny >/dev/null 2>&1; then
    echo "deny: installing cargo-deny into $tools (once, some minutes)"
    # Its own target directory, removed afterwards: nothing of it is of use to the broker's build.
    CARGO_TARGET_DIR="$tools/target" cargo install --quiet --locked cargo-deny --root "$tools"
    rm -rf "$tools/target"
fi
cargo deny --locked check --hide-inclusion-graph bans licenses sources
if timeout 120 cargo deny --locked fetch db >/dev/null 2>&1; then
    cargo deny --locked check --hide-inclusion-graph --disable-fetch advisories
else
    echo "deny: the advisory database cannot be reached from here; advisories were not checked"
fi
