#!/usr/bin/env python3
"""Throughput through one bridge: mosquitto's and Petrel's in turn, in the same run.

    scripts/bench_bridge.py [--petrel target/release/petrel] [--messages 300000] [--rounds 3]
    scripts/bench_bridge.py --drain [--messages 1000000]

The source broker has the bridge (topic `b/#` out, 3.1.1). The remote broker is played by this script, which acknowledges
and counts and does nothing else, so that the bridging broker is what is measured. One publisher keeps `--window` messages
on their way. Printed: messages a second that arrived, and CPU time of the bridging broker for each; medians of the rounds.

With `--drain`, messages of QoS 1 wait while the remote broker is away; then it comes back and takes them all. Printed: how
long the messages of ten pairs of local clients take, before and meanwhile (`petrel bench latency`, QoS 1, open loop).
"""

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

TICKS = os.sysconf("SC_CLK_TCK")
TOPIC = b"b/device/%02d"
TOPICS = 16
# A run that takes longer than this is ended, and what arrived by then counts.
LIMIT_SECONDS = 30


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def packet(first, body):
    assert len(body) < 128 * 128
    length = [len(body)] if len(body) < 128 else [len(body) % 128 | 0x80, len(body) // 128]
    return bytes([first, *length]) + body


def text(value):
    return len(value).to_bytes(2, "big") + value


class Message:
    """All messages have the same length, so that they are counted and acknowledged without looking at each."""

    def __init__(self, qos, payload):
        identifier = b"\0\0" if qos else b""
        body = [text(TOPIC % number) + identifier + b"x" * payload for number in range(TOPICS)]
        self.all = [packet(0x30 | qos << 1, one) for one in body]
        self.size = len(self.all[0])
        self.id_at = self.size - payload - 2

    def burst(self, sent, count):
        start = sent % TOPICS
        text_of_all = b"".join(self.all)
        data = bytearray((text_of_all * (count // TOPICS + 2))[start * self.size : (start + count) * self.size])
        return data

    def number(self, data, sent, count):
        """Writes Packet Identifiers 1 to 65,535 in turn."""
        numbers = [(sent + place) % 65535 + 1 for place in range(count)]
        data[self.id_at :: self.size] = bytes(number >> 8 for number in numbers)
        data[self.id_at + 1 :: self.size] = bytes(number & 0xFF for number in numbers)

    def acknowledge(self, data):
        count = len(data) // self.size
        acks = bytearray(4 * count)
        acks[0::4] = b"\x40" * count
        acks[1::4] = b"\x02" * count
        acks[2::4] = data[self.id_at :: self.size]
        acks[3::4] = data[self.id_at + 1 :: self.size]
        return acks


def sink(listener, qos, payload, count):
    """The remote broker: takes one bridge, until that goes."""
    client, _ = listener.accept()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        serve(client, Message(qos, payload), qos, count)
    except ConnectionError:
        pass


def serve(client, message, qos, count):
    """Answers what a bridge asks for, and counts its messages."""
    buffer = b""
    while True:
        data = client.recv(1 << 20)
        if not data:
            return
        buffer += data
        while len(buffer) >= 2:
            kind = buffer[0] >> 4
            whole = len(buffer) // message.size * message.size
            if kind == 3:
                if not whole:
                    break
                run = buffer[:whole]
                if qos:
                    client.sendall(message.acknowledge(run))
                count.value += whole // message.size
                buffer = buffer[whole:]
                continue
            # All other packets of a bridge are short: one byte of length.
            length = 2 + buffer[1]
            if len(buffer) < length:
                break
            answers = {1: b"\x20\x02\0\0", 12: b"\xd0\0"}
            answer = answers.get(kind, b"\xb0\x02" + buffer[2:4] if kind == 10 else b"")
            if answer:
                client.sendall(answer)
            buffer = buffer[length:]


def publish(port, qos, payload, total, window, arrived, patience=LIMIT_SECONDS, waits=True):
    """Publishes `total` messages, at most `window` ahead of what is acknowledged (QoS 1) or has arrived (QoS 0)."""
    message = Message(qos, payload)
    client = socket.create_connection(("127.0.0.1", port))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sendall(packet(0x10, text(b"MQTT") + b"\x04\x02\x00\x00" + text(b"source")))
    assert client.recv(4)[0] == 0x20
    acked, sent, rest = 0, 0, 0
    deadline = time.monotonic() + patience
    start = arrived.value
    while sent < total and time.monotonic() < deadline:
        ahead = sent - (acked if qos else arrived.value - start)
        count = min(total - sent, window - ahead, 512)
        if count > 0:
            data = message.burst(sent, count)
            if qos:
                message.number(data, sent, count)
            client.sendall(data)
            sent += count
        if qos and (count <= 0 or ahead > window // 2):
            rest += len(client.recv(1 << 16))
            acked, rest = acked + rest // 4, rest % 4
        elif count <= 0:
            time.sleep(0.0002)
    while waits and arrived.value - start < sent and time.monotonic() < deadline:
        time.sleep(0.001)
    client.close()


def mosquitto(directory, port, sink_port, qos):
    path = os.path.join(directory, "mosquitto.conf")
    with open(path, "w", encoding="utf-8") as config:
        config.write(
            f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\npersistence false\n"
            "max_queued_messages 0\nmax_inflight_messages 1000\nset_tcp_nodelay true\n"
            f"connection bench\naddress 127.0.0.1:{sink_port}\nnotifications false\n"
            f"topic b/# out {qos}\nrestart_timeout 1\n"
        )
    binary = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    return [binary, "-c", path]


def petrel(directory, port, sink_port, qos, binary, durability):
    path = os.path.join(directory, "petrel.toml")
    with open(path, "w", encoding="utf-8") as config:
        config.write(
            f'data_dir = "{directory}/data"\nhttp.listen = ""\n'
            f'[persistence]\ndurability = "{durability}"\n'
            f'[[listener]]\nname = "bench"\nlisten = "127.0.0.1:{port}"\nallow_anonymous = true\n'
            f'[[bridge]]\nname = "bench"\naddresses = ["127.0.0.1:{sink_port}"]\nprotocol = "3.1.1"\n'
            f'topics = ["b/# out {qos}"]\nbackoff_min = "100ms"\nmax_inflight = 1000\nnotifications = false\n'
        )
    return [binary, "serve", "--config", path]


def wait_port(port):
    for _ in range(400):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"nothing listens on port {port}")


def measure(kind, qos, options):
    with tempfile.TemporaryDirectory() as directory, socket.create_server(("127.0.0.1", 0)) as listener:
        arrived = multiprocessing.Value("Q", 0, lock=False)
        remote = multiprocessing.Process(target=sink, args=(listener, qos, options.payload, arrived), daemon=True)
        remote.start()
        port, sink_port = free_port(), listener.getsockname()[1]
        source = start(kind, directory, port, sink_port, qos, options)
        try:
            # Messages cross the bridge: it is up, and warm.
            while arrived.value == 0:
                publish(port, qos, options.payload, 1, 1, arrived, 0.3)
            publish(port, qos, options.payload, 5000, options.window, arrived)
            before = arrived.value
            cpu, begin = cpu_seconds(source.pid), time.monotonic()
            publish(port, qos, options.payload, options.messages, options.window, arrived)
            took, spent = time.monotonic() - begin, cpu_seconds(source.pid) - cpu
            return arrived.value - before, took, spent
        finally:
            source.terminate()
            source.wait()
            remote.terminate()
            remote.join()


def start(kind, directory, port, sink_port, qos, options):
    if kind == "mosquitto":
        command = mosquitto(directory, port, sink_port, qos)
    else:
        command = petrel(directory, port, sink_port, qos, options.petrel, kind.partition(" ")[2])
    source = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_port(port)
    return source


def latency(port, options):
    """Runs `petrel bench latency` beside; call `figures` for what it says."""
    command = [options.petrel, "bench", "latency", "--port", str(port), "-q", "1", "--duration", "2s", "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def figures(process):
    output, _ = process.communicate(timeout=LIMIT_SECONDS)
    return json.loads(output)["latency_us"]["delivery"]


def drain(kind, options):
    """Latencies of local clients before and while the queue is drained, and how many messages that took how long."""
    with tempfile.TemporaryDirectory() as directory:
        port, sink_port = free_port(), free_port()
        arrived = multiprocessing.Value("Q", 0, lock=False)
        source = start(kind, directory, port, sink_port, 1, options)
        remote = None
        try:
            # Nothing arrives yet: the patience ends as soon as all is acknowledged.
            publish(port, 1, options.payload, options.messages, options.window, arrived, LIMIT_SECONDS, waits=False)
            before = figures(latency(port, options))
            listener = socket.create_server(("127.0.0.1", sink_port))
            remote = multiprocessing.Process(target=sink, args=(listener, 1, options.payload, arrived), daemon=True)
            remote.start()
            while arrived.value == 0:
                time.sleep(0.001)
            begin = time.monotonic()
            during = figures(latency(port, options))
            took, drained = time.monotonic() - begin, arrived.value
            return before, during, drained / took, drained < options.messages
        finally:
            source.terminate()
            source.wait()
            if remote:
                remote.terminate()
                remote.join()


def report_drains(options):
    print(f"{options.messages} messages of {options.payload} bytes wait for a bridge; {os.cpu_count()} cores, "
          f"Linux {platform.release()}")
    print("| bridging broker | drained/s | p50 before | p50 meanwhile | p99 before | p99 meanwhile | drain outlasted it |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | --- |")
    for _ in range(options.rounds):
        for kind in ("mosquitto", "petrel fsync"):
            before, during, rate, is_whole = drain(kind, options)
            cells = [f"{side[name]:,.0f} µs" for name in ("p50", "p99") for side in (before, during)]
            print(f"| {kind} | {rate:,.0f} | {' | '.join(cells)} | {'yes' if is_whole else 'no'} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--petrel", default="target/release/petrel")
    parser.add_argument("--messages", type=int, default=300_000)
    parser.add_argument("--payload", type=int, default=64)
    parser.add_argument("--window", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--drain", action="store_true", help="measure local clients beside a drain instead")
    options = parser.parse_args()
    if options.drain:
        return report_drains(options)
    print(f"{options.messages} messages of {options.payload} bytes, window {options.window}, one publisher; "
          f"medians of {options.rounds} rounds; {os.cpu_count()} cores, Linux {platform.release()}")
    print("| bridging broker | QoS | arrived | messages/s | µs of CPU per message |")
    print("| --- | --- | ---: | ---: | ---: |")
    for qos in (0, 1):
        kinds = ["mosquitto", "petrel fsync"] + (["petrel os"] if qos else [])
        results = {kind: [] for kind in kinds}
        for _ in range(options.rounds):
            for kind in kinds:
                results[kind].append(measure(kind, qos, options))
        for kind, runs in results.items():
            arrived = min(run[0] for run in runs)
            rate = statistics.median(run[0] / run[1] for run in runs)
            each = statistics.median(run[2] / max(run[0], 1) * 1e6 for run in runs)
            print(f"| {kind} | {qos} | {arrived} | {rate:,.0f} | {each:.2f} |", flush=True)


if __name__ == "__main__":
    main()
