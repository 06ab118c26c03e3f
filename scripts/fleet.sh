#!/usr/bin/env bash
# Runs the fleet generator against the built binary for half a minute: fleet.sh PETREL [options of the example].
set -euo pipefail
cd "$(dirname "$0")/.."

petrel="$1"
shift
directory="$(mktemp -d)"
port="$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
cat >"$directory/petrel.toml" <<EOF
data_dir = "$directory/data"
http.listen = ""
[[listener]]
listen = "127.0.0.1:$port"
allow_anonymous = true
EOF
"$petrel" serve --config "$directory/petrel.toml" >"$directory/log" 2>&1 &
broker=$!
finish() {
    status=$?
    kill "$broker" 2>/dev/null || true
    wait "$broker" 2>/dev/null || true
    if [ "$status" -ne 0 ]; then tail -n 20 "$directory/log"; fi
    rm -rf "$directory"
    exit "$status"
}
trap finish EXIT
for _ in $(seq 300); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then break; fi
    sleep 0.1
done
cargo run --quiet --release --locked --example fleet -- --broker "127.0.0.1:$port" --seconds 30 --devices 300 "$@"
