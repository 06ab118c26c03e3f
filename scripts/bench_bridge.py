#!/usr/bin/env python3
"""Throughput through one bridge: Petrel's and mosquitto's, one after the other in the same run.

    scripts/bench_bridge.py [--petrel target/release/petrel] [--messages 200000] [--payload 64]

The source broker has the bridge (topic `b/#` out), the sink is a mosquitto in both cases, so that only the bridging
broker differs. Messages are published to the source with `petrel bench`-like plain sockets (this script), and counted by a
subscriber at the sink. Printed: messages a second, and CPU time of the bridging broker per message.
"""

import argparse
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

TICKS = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def variable(value):
    out = bytearray()
    while True:
        value, digit = divmod(value, 128)
        out.append(digit | (0x80 if value else 0))
        if not value:
            return bytes(out)


def text(value):
    data = value.encode()
    return len(data).to_bytes(2, "big") + data


def packet(first, body):
    return bytes([first]) + variable(len(body)) + body


def connect(port, client_id):
    client = socket.create_connection(("127.0.0.1", port))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sendall(packet(0x10, text("MQTT") + b"\x04\x02\x00\x00" + text(client_id)))
    assert client.recv(4)[0] == 0x20
    return client


class Sink(threading.Thread):
    """Subscribes at the sink and counts PUBLISH packets; acknowledges QoS 1."""

    def __init__(self, port, qos):
        super().__init__(daemon=True)
        self.client = connect(port, "sink")
        self.client.sendall(packet(0x82, b"\x00\x01" + text("b/#") + bytes([qos])))
        self.client.recv(5)
        self.count = 0
        self.last = time.monotonic()

    def run(self):
        buffer = b""
        while True:
            data = self.client.recv(1 << 20)
            if not data:
                return
            buffer += data
            place, acks = 0, bytearray()
            while len(buffer) - place >= 2:
                length, shift, head = 0, 0, place + 1
                while head < len(buffer):
                    byte = buffer[head]
                    length |= (byte & 0x7F) << shift
                    shift += 7
                    head += 1
                    if not byte & 0x80:
                        break
                else:
                    break
                if len(buffer) < head + length:
                    break
                if buffer[place] >> 4 == 3:
                    self.count += 1
                    if buffer[place] & 0x06:
                        topic = int.from_bytes(buffer[head : head + 2], "big")
                        acks += b"\x40\x02" + buffer[head + 2 + topic : head + 4 + topic]
                place = head + length
            buffer = buffer[place:]
            if acks:
                self.client.sendall(acks)
            self.last = time.monotonic()


def publish(port, qos, count, payload, window, sink):
    """Publishes on one connection. QoS 1 keeps `window` in flight; QoS 0 stays at most `window` ahead of the sink."""
    client = connect(port, "source")
    body = b"x" * payload
    topics = [text(f"b/device/{number}") for number in range(16)]
    acked, sent, rest = 0, 0, b""
    while sent < count or (qos and acked < count):
        ahead = sent - (acked if qos else sink.count)
        burst = bytearray()
        for _ in range(min(count - sent, max(0, window - ahead), 256)):
            packet_id = (sent % 65535 + 1).to_bytes(2, "big") if qos else b""
            burst += packet(0x30 | qos << 1, topics[sent % 16] + packet_id + body)
            sent += 1
        if burst:
            client.sendall(burst)
        if qos:
            readable, _, _ = select.select([client], [], [], 0 if burst else 1)
            if readable:
                rest += client.recv(1 << 16)
                acked += len(rest) // 4
                rest = rest[len(rest) // 4 * 4 :]
        elif not burst:
            time.sleep(0.0005)
            if time.monotonic() - sink.last > 5:
                return sent
    return sent


def mosquitto(directory, name, port, extra=""):
    path = os.path.join(directory, f"{name}.conf")
    with open(path, "w", encoding="utf-8") as config:
        config.write(
            f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\npersistence false\n"
            f"max_queued_messages 0\nmax_inflight_messages 1000\n{extra}\n"
        )
    binary = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    return subprocess.Popen([binary, "-c", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def petrel(binary, directory, port, sink_port, qos, durability):
    path = os.path.join(directory, "petrel.toml")
    with open(path, "w", encoding="utf-8") as config:
        config.write(
            f'data_dir = "{directory}/data"\nhttp.listen = ""\n'
            f'[persistence]\ndurability = "{durability}"\n'
            f'[[listener]]\nname = "bench"\nlisten = "127.0.0.1:{port}"\nallow_anonymous = true\n'
            f'[[bridge]]\nname = "bench"\naddresses = ["127.0.0.1:{sink_port}"]\nprotocol = "3.1.1"\n'
            f'topics = ["b/# out {qos}"]\nbackoff_min = "100ms"\nmax_inflight = 1000\n'
        )
    return subprocess.Popen(
        [binary, "serve", "--config", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def wait_port(port):
    for _ in range(400):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"nothing listens on port {port}")


def measure(kind, qos, options):
    with tempfile.TemporaryDirectory() as directory:
        sink_port, port = free_port(), free_port()
        processes = [mosquitto(directory, "sink", sink_port)]
        try:
            wait_port(sink_port)
            sink = Sink(sink_port, qos)
            sink.start()
            if kind == "mosquitto":
                extra = (
                    f"connection bench\naddress 127.0.0.1:{sink_port}\nnotifications false\n"
                    f"topic b/# out {qos}\nrestart_timeout 1\n"
                )
                source = mosquitto(directory, "source", port, extra)
            else:
                durability = kind.partition(" ")[2] or "fsync"
                source = petrel(options.petrel, directory, port, sink_port, qos, durability)
            processes.append(source)
            wait_port(port)
            # One message through the bridge says that it is up.
            probe = connect(port, "probe")
            while sink.count == 0:
                probe.sendall(packet(0x30, text("b/probe") + b"up"))
                time.sleep(0.1)
            time.sleep(0.5)
            start_count, sink.last = sink.count, time.monotonic()
            cpu, begin = cpu_seconds(source.pid), time.monotonic()
            publish(port, qos, options.messages, options.payload, options.window, sink)
            while sink.count - start_count < options.messages and time.monotonic() - sink.last < 5:
                time.sleep(0.01)
            arrived = sink.count - start_count
            took = max(sink.last - begin, 1e-9)
            spent = cpu_seconds(source.pid) - cpu
            return arrived, took, spent
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--petrel", default="target/release/petrel")
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--payload", type=int, default=64)
    parser.add_argument("--window", type=int, default=1000)
    options = parser.parse_args()
    print(f"{options.messages} messages of {options.payload} bytes, window {options.window}, one publisher, sink: mosquitto")
    print("| bridging broker | QoS | arrived | messages/s | µs of CPU per message |")
    print("| --- | --- | --- | --- | --- |")
    for qos in (0, 1):
        for kind in ("mosquitto", "petrel fsync", "petrel memory"):
            if qos == 0 and kind == "petrel memory":
                continue
            arrived, took, spent = measure(kind, qos, options)
            rate, each = arrived / took, spent / max(arrived, 1) * 1e6
            print(f"| {kind} | {qos} | {arrived} | {rate:,.0f} | {each:.2f} |", flush=True)


if __name__ == "__main__":
    main()
