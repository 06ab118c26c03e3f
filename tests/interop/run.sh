#!/usr/bin/env bash
# Clients that others wrote, against the built binary: run.sh PETREL. Starts a broker with TCP, TLS, WebSocket and secure
# WebSocket on free ports; prints one line for each case; ends with an error when one fails. A client that is not
# installed is named and left out (scripts/setup.sh test installs them).
set -euo pipefail
cd "$(dirname "$0")"

petrel="$(realpath "$1")"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/petrel/interop"
directory="$(mktemp -d)"
ports=($(python3 - <<'EOF'
import socket
sockets = [socket.socket() for _ in range(4)]
for each in sockets:
    each.bind(("127.0.0.1", 0))
print(*(each.getsockname()[1] for each in sockets))
EOF
))
"$petrel" certs --out "$directory/certs" >/dev/null
tls="[listener.tls]
certificate = \"$directory/certs/server.crt\"
key = \"$directory/certs/server.key\""
cat >"$directory/petrel.toml" <<EOF
data_dir = "$directory/data"
http.listen = ""
[[listener]]
name = "tcp"
listen = "127.0.0.1:${ports[0]}"
allow_anonymous = true
[[listener]]
name = "tls"
listen = "127.0.0.1:${ports[1]}"
allow_anonymous = true
$tls
[[listener]]
name = "ws"
listen = "127.0.0.1:${ports[2]}"
transport = "websocket"
allow_anonymous = true
[[listener]]
name = "wss"
listen = "127.0.0.1:${ports[3]}"
transport = "websocket"
allow_anonymous = true
$tls
EOF
"$petrel" serve --config "$directory/petrel.toml" >"$directory/log" 2>&1 &
broker=$!
finish() {
    status=$?
    kill "$broker" 2>/dev/null || true
    wait "$broker" 2>/dev/null || true
    if [ "$status" -ne 0 ]; then
        echo "interop: the end of the broker's log:"
        tail -n 30 "$directory/log"
    fi
    rm -rf "$directory"
    exit "$status"
}
trap finish EXIT
trap "exit 1" INT TERM
for port in "${ports[@]}"; do
    for _ in $(seq 300); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then break; fi
        sleep 0.1
    done
done
export PETREL_TCP="${ports[0]}" PETREL_TLS="${ports[1]}" PETREL_WS="${ports[2]}" PETREL_WSS="${ports[3]}"
export PETREL_CA="$directory/certs/ca.crt"

failed=0
if command -v mosquitto_pub >/dev/null && command -v python3 >/dev/null; then
    timeout 600 python3 mosquitto_tools.py || failed=1
else
    echo "interop: mosquitto-clients are not installed: left out"
fi
if [ -x "$cache/venv/bin/python" ] && "$cache/venv/bin/python" -c 'import paho.mqtt' 2>/dev/null; then
    timeout 600 "$cache/venv/bin/python" paho_client.py || failed=1
else
    echo "interop: paho-mqtt is not installed: left out"
fi
if command -v node >/dev/null && [ -d "$cache/node_modules/mqtt" ]; then
    MQTT_JS="$cache/node_modules/mqtt" timeout 600 node mqttjs.cjs || failed=1
else
    echo "interop: mqtt.js is not installed: left out"
fi
exit "$failed"
