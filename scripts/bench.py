#!/usr/bin/env python3
"""Measures Petrel, the bare loop and mosquitto side by side and writes the table of docs/performance.md.

    scripts/bench.py PETREL BARE_LOOP [--quick] [--rows NAME,NAME] [--write docs/performance.md] [--json FILE]

All of them are loaded by the same generator (`petrel bench`) with the same settings, one after the other, each measurement
with a freshly started broker on a free port of the loopback interface. The whole is repeated three times and medians are
taken, so that a machine that is busy for a while disturbs all of them. Only ratios mean something beyond this machine.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

BEGIN = "<!-- measured: begin -->"
END = "<!-- measured: end -->"


class Row:
    """One line of the budget: what is run against whom, and which figure counts."""

    def __init__(self, name, title, arguments, figure, unit, brokers, bar, workers=None):
        self.name, self.title, self.arguments = name, title, arguments
        self.figure, self.unit, self.brokers, self.bar, self.workers = figure, unit, brokers, bar, workers


def figure(name):
    return lambda report: report["figures"].get(name)


def latency(kind, quantile):
    return lambda report: report["latency_us"].get(kind, {}).get(quantile)


CPU = figure("broker_cpu_per_delivered_us")
ALL = ("bare", "petrel", "mosquitto")
BROKERS = ("petrel", "mosquitto")


def at_most_bare(times):
    def bar(values):
        if not values.get("bare") or values.get("petrel") is None:
            return None
        return values["petrel"] <= times * values["bare"]

    bar.text = f"at most {times} × the bare loop"
    return bar


def at_most(limit, unit=""):
    def bar(values):
        return None if values.get("petrel") is None else values["petrel"] <= limit

    bar.text = f"at most {limit:,} {unit}".strip()
    return bar


def at_least(limit, unit="", not_below_mosquitto=False):
    def bar(values):
        if values.get("petrel") is None:
            return None
        enough = values["petrel"] >= limit
        if not_below_mosquitto and values.get("mosquitto"):
            enough = enough and values["petrel"] >= values["mosquitto"]
        return enough

    text = f"at least {limit:,} {unit}".strip()
    bar.text = text + (", and no fewer than mosquitto in memory" if not_below_mosquitto else "")
    return bar


def not_above_mosquitto():
    def bar(values):
        if values.get("petrel") is None or values.get("mosquitto") is None:
            return None
        return values["petrel"] <= values["mosquitto"]

    bar.text = "no worse than mosquitto"
    return bar


def no_bar():
    def bar(_values):
        return None

    bar.text = ""
    return bar


def rows(quick):
    duration = ["--duration", "1s" if quick else "2s", "--warm-up", "300ms" if quick else "500ms"]
    pairs = ["throughput", "pairs", "--publishers", "10", *duration]
    fan_out = ["throughput", "fan-out", "--subscribers", "50", *duration]
    fan_in = ["throughput", "fan-in", "--publishers", "10", *duration]
    shared = ["throughput", "shared", "--publishers", "10", *duration]
    messages = "60000" if quick else "300000"
    queue = ["queue", "--sessions", "10", "--publishers", "20", "--window", "100", "--messages", messages]
    clients = "5000" if quick else "9000"
    open_loop = ["latency", "pairs", "--rate", "2000", "-q", "1", "--duration", "2s" if quick else "4s"]
    subscriptions = ["subscriptions", "--count", "200000", "--duration", "1s"]
    cold = [*subscriptions, "--topics", "20000"]
    churn = ["subscriptions", "--count", "200000", "--churn", "10000", "--duration", "1s" if quick else "3s"]
    stopping = ["slow", "--duration", "2s"]
    retained = ["retained", "--count", "50000" if quick else "200000", "-q", "1", "--window", "1000"]
    micros, count = "µs", "1/s"
    return [
        Row("qos0", "QoS 0, 10 pairs, saturated, 64 bytes", pairs, CPU, micros, ALL, at_most_bare(1.6)),
        Row("qos1", "QoS 1 in and out, 10 pairs, no durable recipient", [*pairs, "-q", "1"], CPU, micros, ALL,
            at_most_bare(2)),
        Row("fanout0", "one to 50, QoS 0", fan_out, CPU, micros, ALL, at_most_bare(2)),
        Row("fanout1", "one to 50, QoS 1", [*fan_out, "-q", "1"], CPU, micros, ALL, at_most_bare(1.8)),
        Row("fanin1", "10 to one, QoS 1", [*fan_in, "-q", "1"], CPU, micros, ALL, at_most_bare(2)),
        Row("shared1", "10 to a shared subscription of 10, QoS 1", [*shared, "-q", "1"], CPU, micros, BROKERS,
            at_most(0.35, micros)),
        Row("qos2", "QoS 2, 10 pairs", [*pairs, "-q", "2"], CPU, micros, ALL, at_most(0.6, micros)),
        Row("single", "300 pairs, one message in flight each",
            ["throughput", "pairs", "--publishers", "300", "--backlog", "1", *duration], CPU, micros, ALL,
            at_most_bare(1.3)),
        Row("queue", "QoS 1 to absent durable sessions, acknowledged a second", queue,
            figure("acknowledged_per_second"), count, BROKERS, at_least(100_000, "a second", True)),
        Row("queue_p99", "the same: p99 of the acknowledgement", "queue",
            latency("acknowledgement", "p99"), micros, BROKERS, at_most(25_000, micros)),
        Row("queue_cpu", "the same: CPU for each acknowledged message", "queue",
            figure("broker_cpu_per_acknowledged_us"), micros, BROKERS, no_bar()),
        Row("drain", "the same: drained a second by the clients that come back", "queue",
            figure("drained_per_second"), count, BROKERS, no_bar()),
        Row("latency", "open loop, 2,000 a second, QoS 1: p99 of the delivery", open_loop,
            latency("delivery", "p99"), micros, ALL, not_above_mosquitto()),
        Row("idle", "idle connection with session and subscription", ["connections", "--clients", clients, "--subscribe"],
            figure("broker_bytes_per_connection"), "bytes", BROKERS, at_most(2_048, "bytes")),
        Row("subscription", "one of 200,000 subscriptions", subscriptions,
            figure("broker_bytes_per_subscription"), "bytes", BROKERS, at_most(200, "bytes")),
        Row("subscribing", "the same: subscribed a second", "subscription",
            figure("subscribed_per_second"), count, BROKERS, at_least(400_000, "a second")),
        Row("matching", "the same: CPU of a publish with one match among them", "subscription", CPU, micros, BROKERS,
            no_bar()),
        Row("cold", "the same to 20,000 topics in turn: more than are remembered", cold, CPU, micros, BROKERS, no_bar()),
        Row("churn", "publishing while 10,000 subscriptions a second come and go, against before", churn,
            figure("churn_throughput_ratio"), "×", BROKERS, at_least(0.8, "×")),
        Row("filling", "10 pairs while the buffers of 1,000 readers fill that have stopped, against while they read",
            stopping, figure("throughput_filling_to_reading_ratio"), "×", ("petrel",), at_least(0.9, "×")),
        Row("stalled", "the same, buffers full, against while they read", "filling",
            figure("throughput_stalled_to_reading_ratio"), "×", ("petrel",), at_least(0.9, "×")),
        Row("stalled_alone", "the same, against before they came", "filling",
            figure("throughput_stalled_to_alone_ratio"), "×", ("petrel",), at_least(0.9, "×")),
        Row("retained", "one retained message of 64 bytes", retained,
            figure("broker_bytes_per_message"), "bytes", BROKERS, at_most(300, "bytes")),
    ]


class Broker:
    """A broker that runs for one measurement."""

    def __init__(self, name, programs, work, workers=None):
        self.port = free_port()
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=work))
        command, environment = getattr(self, name)(programs)
        if workers:
            environment["PETREL_RUNTIME__WORKER_THREADS"] = str(workers)
        log = open(self.directory / "log", "wb")
        self.process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, **environment}, cwd=self.directory)
        log.close()
        self.wait()

    def petrel(self, programs):
        config = self.directory / "petrel.toml"
        # Everything else is the default: in particular, an acknowledgement waits for the disk.
        config.write_text(
            f'data_dir = "{self.directory}/data"\n[log]\nlevel = "warn"\n[http]\nlisten = ""\n'
            f'[control]\nsocket = ""\n'
            f'[[listener]]\nlisten = "127.0.0.1:{self.port}"\nallow_anonymous = true\n')
        return [programs["petrel"], "serve", "--config", config], {}

    def bare(self, programs):
        return [programs["bare"], str(self.port)], {}

    def mosquitto(self, programs):
        config = self.directory / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_type none\n"
            "max_inflight_messages 0\nmax_queued_messages 0\nmax_queued_bytes 0\nset_tcp_nodelay true\n")
        return [programs["mosquitto"], "-c", config], {}

    def wait(self):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"the broker ended: {(self.directory / 'log').read_text(errors='replace')}")
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise RuntimeError("the broker does not listen")

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def measure(name, arguments, programs, work, workers=None):
    """The report of one run, or None with a line on standard error."""
    try:
        broker = Broker(name, programs, work, workers)
    except (OSError, RuntimeError) as error:
        print(f"  {name}: {error}", file=sys.stderr)
        return None
    try:
        command = [programs["petrel"], "bench", *arguments, "--port", str(broker.port), "--pid",
                   str(broker.process.pid), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        report = json.loads(done.stdout)
        if not report["faultless"]:
            print(f"  {name}: faults {report['faults']} {report['notes']}", file=sys.stderr)
        return report
    except (subprocess.TimeoutExpired, json.JSONDecodeError) as error:
        stderr = getattr(error, "stderr", None) or (done.stderr if "done" in locals() else "")
        print(f"  {name}: {arguments[0]} failed: {error} {stderr}", file=sys.stderr)
        return None
    finally:
        broker.stop()


def scaling(programs, work, quick):
    """Throughput with one worker thread and with two, and what the cores allow next to the generator.

    The publishers have more topics than the broker remembers: each message walks the tree that all of them share, and the
    generator, on the same cores, has a tenth of that work.
    """
    duration = ["--duration", "1s" if quick else "2s", "--warm-up", "300ms"]
    arguments = ["throughput", "pairs", "--publishers", "20", "--topics", "10000", *duration]
    found = {}
    for workers in (1, 2):
        report = measure("petrel", arguments, programs, work, workers)
        if report is None:
            return None
        figures = report["figures"]
        found[workers] = (figures["delivered_per_second"], figures["broker_cpu_per_delivered_us"],
                          figures["generator_cpu_per_delivered_us"])
    cores = os.cpu_count() or 1
    _, broker_cpu, generator_cpu = found[2]
    ceiling = cores * 1e6 / (broker_cpu + generator_cpu)
    return {"one": found[1][0], "two": found[2][0], "ratio": found[2][0] / max(found[1][0], 1e-9),
            "ceiling_ratio": ceiling / max(found[1][0], 1e-9)}


def run_all(programs, work, quick, wanted):
    """All figures of all repetitions: {row: {broker: [value, …]}}, and those of the second core."""
    table = [row for row in rows(quick) if not wanted or row.name in wanted or str(row.arguments) in wanted]
    values = {row.name: {} for row in table}
    cores = []
    repetitions = 1 if quick else 3
    for repetition in range(repetitions):
        reports = {}
        for row in table:
            if isinstance(row.arguments, str):
                continue
            for broker in row.brokers:
                if broker not in programs:
                    continue
                print(f"[{repetition + 1}/{repetitions}] {row.name} {broker}", file=sys.stderr, flush=True)
                reports[row.name, broker] = measure(broker, row.arguments, programs, work)
        for row in table:
            source = row.arguments if isinstance(row.arguments, str) else row.name
            for broker in row.brokers:
                report = reports.get((source, broker))
                value = row.figure(report) if report else None
                if value is not None:
                    values[row.name].setdefault(broker, []).append(value)
        if not wanted or "cores" in wanted:
            print(f"[{repetition + 1}/{repetitions}] second core", file=sys.stderr, flush=True)
            found = scaling(programs, work, quick)
            if found:
                cores.append(found)
    medians = {row.name: {broker: statistics.median(found) for broker, found in values[row.name].items()}
               for row in table}
    return table, medians, cores


def show(value, unit):
    if value is None:
        return "–"
    if unit == "µs":
        return f"{value:,.3f} µs" if value < 10 else f"{value:,.1f} µs"
    if unit == "bytes":
        return f"{value:,.0f} B"
    if unit == "×":
        return f"{value:.2f} ×"
    return f"{value:,.0f}/s"


def markdown(table, medians, cores, programs, work, quick, seconds):
    lines = [f"Measured on {datetime.date.today().isoformat()} in {seconds:.0f} s"
             f"{' (a quick run: one repetition)' if quick else ' (medians of three interleaved runs)'}.", ""]
    lines += machine(programs, work)
    lines += ["", "| work | bare loop | Petrel | mosquitto | Petrel / bare loop | mosquitto / Petrel | bar | met |",
              "| --- | ---: | ---: | ---: | ---: | ---: | --- | --- |"]
    for row in table:
        found = medians[row.name]
        bare, petrel, mosquitto = (found.get(name) for name in ALL)
        to_bare = f"{petrel / bare:.2f}" if petrel and bare else "–"
        to_mosquitto = f"{mosquitto / petrel:.2f}" if petrel and mosquitto else "–"
        met = {True: "yes", False: "**no**", None: "–"}[row.bar(found)]
        lines.append(f"| {row.title} | {show(bare, row.unit)} | {show(petrel, row.unit)} | {show(mosquitto, row.unit)} "
                     f"| {to_bare} | {to_mosquitto} | {row.bar.text or '–'} | {met} |")
    if cores:
        middle = {key: statistics.median(found[key] for found in cores) for key in cores[0]}
        ratio, ceiling = middle["ratio"], middle["ceiling_ratio"]
        bar = min(1.7, 0.9 * ceiling)
        met = "yes" if ratio >= bar else "**no**"
        lines.append(f"| a second worker thread (20 pairs, 10,000 topics each) | – | {middle['one']:,.0f}/s → "
                     f"{middle['two']:,.0f}/s | – | – | – | at least 1.7 × (the generator leaves room for "
                     f"{ceiling:.2f} ×) | {met}: {ratio:.2f} × |")
    return lines


def machine(programs, work):
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    memory = next(line for line in open("/proc/meminfo") if line.startswith("MemTotal")).split()[1]
    file_system = subprocess.run(["stat", "-f", "-c", "%T", work], capture_output=True, text=True).stdout.strip()
    lines = [
        f"- machine: {os.cpu_count()} × {model}, {int(memory) / 1048576:.0f} GiB, Linux {platform.release()}, data on {file_system}",
        f"- Petrel: {version([programs['petrel'], '--version'])}, default configuration (fsync before acknowledgements)",
    ]
    if "mosquitto" in programs:
        lines.append(f"- mosquitto: {version([programs['mosquitto'], '-h'])}; persistence off, no limits of queues")
    return lines


def version(command):
    done = subprocess.run(command, capture_output=True, text=True)
    return ((done.stdout or done.stderr).strip().splitlines() or ["?"])[0]


def write_page(path, lines):
    """Replaces what stands between the two marks, and nothing else: the reasons around it are written by people."""
    page = path.read_text()
    if BEGIN not in page or END not in page:
        raise SystemExit(f"{path} lacks the marks {BEGIN} and {END}")
    before, rest = page.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    path.write_text(f"{before}{BEGIN}\n\n" + "\n".join(lines) + f"\n\n{END}{after}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("petrel", help="the program, built for release")
    parser.add_argument("bare", help="the example bare_loop, built for release")
    parser.add_argument("--quick", action="store_true", help="one repetition and short runs: less than two minutes")
    parser.add_argument("--rows", default="", help="only these rows, by name, separated by commas (cores: the last one)")
    parser.add_argument("--write", type=pathlib.Path, help="the page whose table is replaced")
    parser.add_argument("--json", type=pathlib.Path, help="where to write all medians")
    parser.add_argument("--work", type=pathlib.Path, help="a directory on the disk that is to be measured")
    options = parser.parse_args()
    programs = {"petrel": os.path.abspath(options.petrel), "bare": os.path.abspath(options.bare)}
    mosquitto = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if mosquitto:
        programs["mosquitto"] = mosquitto
    else:
        print("mosquitto is not installed: its column stays empty", file=sys.stderr)
    wanted = set(filter(None, options.rows.split(",")))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="petrel-bench-", dir=options.work) as work:
        table, medians, cores = run_all(programs, work, options.quick, wanted)
        lines = markdown(table, medians, cores, programs, work, options.quick, time.monotonic() - began)
    print("\n".join(lines))
    if options.write:
        write_page(options.write, lines)
    if options.json:
        options.json.write_text(json.dumps({"medians": medians, "cores": cores}, indent=2) + "\n")


if __name__ == "__main__":
    main()
