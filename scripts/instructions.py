#!/usr/bin/env python3
"""Counts the instructions that a message costs, and compares them with the baseline.

    scripts/instructions.py INSTRUCTIONS [--record]

INSTRUCTIONS is the example of that name, built for release. Unlike time, instructions do not depend on how busy a machine
is, so a change that makes the message path dearer is seen in review: more than 5 % above benches/instructions.toml fails.
More than 5 % below asks for a new baseline (--record), or the next change could spend what this one saved.

Each scenario runs twice under callgrind, the second time with more messages: the difference is free of start and set-up.
Instructions do depend on compiler and architecture, so the baseline names both. Where valgrind is missing or the baseline
is not for this compiler, that is said, and only continuous integration (CI is set) fails.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib

SCENARIOS = {"decode": 20, "qos0": 20, "qos1": 20, "qos2": 20, "fanout0": 20, "fanout1": 20, "fanin1": 20, "shared1": 20}
# Enough that buffers have grown and caches are filled before counting begins.
WARM_BURSTS = 10
TOLERANCE = 0.05
BASELINE = pathlib.Path(__file__).parent.parent / "benches" / "instructions.toml"
HEADER = """\
# Instructions for each message delivered, counted by callgrind: `make instructions ARGS=--record` writes this file,
# `make instructions` compares with it. They depend on compiler and architecture, not on the machine.
"""
HOW_TO_RECORD = "if that is meant, record it with `make instructions ARGS=--record` and commit benches/instructions.toml"
# The C library chooses how to copy memory by what the processor can do; without these every x86-64 chooses the same.
SAME_EVERYWHERE = "glibc.cpu.hwcaps=-AVX_Fast_Unaligned_Load,-AVX2,-AVX512F,-AVX512VL,-ERMS,-FSRM"

# The allocator gives memory back after some time, and time passes differently in each run.
NO_DECAY = "background_thread:false,dirty_decay_ms:-1,muzzy_decay_ms:-1"


def count(program, scenario, bursts, directory):
    """Instructions and messages of one run."""
    output = directory / f"callgrind.{scenario}.{bursts}"
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={output}", program, scenario, str(bursts)]
    environment = {**os.environ, "GLIBC_TUNABLES": SAME_EVERYWHERE, "MALLOC_CONF": NO_DECAY}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise SystemExit(f"{scenario} failed: {done.stderr[-2000:]}")
    found = re.search(r"Collected : (\d+)", done.stderr)
    if not found:
        raise SystemExit(f"callgrind said nothing of {scenario}: {done.stderr[-2000:]}")
    return int(found.group(1)), int(done.stdout)


def measure(program):
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        found = {}
        for scenario, bursts in SCENARIOS.items():
            first, fewer = count(program, scenario, WARM_BURSTS, directory)
            second, more = count(program, scenario, WARM_BURSTS + bursts, directory)
            found[scenario] = round((second - first) / (more - fewer), 1)
        return found


def compiler():
    """What the instructions depend on besides the code."""
    shown = subprocess.run(["rustc", "--version", "--verbose"], capture_output=True, text=True, check=True).stdout
    facts = dict(line.split(": ", 1) for line in shown.splitlines() if ": " in line)
    return f"rustc {facts['release']} ({facts['host']})"


def compare(found, baseline):
    """Prints a table; the number of scenarios outside the tolerance."""
    outside = 0
    for scenario, instructions in found.items():
        before = baseline.get(scenario)
        if before is None:
            print(f"{scenario:<10} {instructions:>10.1f}  not in the baseline")
            outside += 1
            continue
        change = instructions / before - 1
        word = "DEARER" if change > TOLERANCE else "cheaper: record it" if change < -TOLERANCE else "as before"
        outside += abs(change) > TOLERANCE
        print(f"{scenario:<10} {instructions:>10.1f}  baseline {before:>10.1f}  {change:+7.1%}  {word}")
    return outside


def record(found, current):
    lines = [f"{scenario} = {instructions}\n" for scenario, instructions in found.items()]
    BASELINE.write_text(f'{HEADER}\ncompiler = "{current}"\n\n{"".join(lines)}')
    print(BASELINE.read_text(), end="")


def not_comparable(why):
    """What cannot be compared is a failure only where somebody relies on the comparison."""
    is_relied_on = bool(os.environ.get("CI"))
    print(f"instructions: {why}; {'that fails' if is_relied_on else 'left out'}", file=sys.stderr)
    return 1 if is_relied_on else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="the example `instructions`, built for release")
    parser.add_argument("--record", action="store_true", help="write the baseline instead of comparing with it")
    options = parser.parse_args()
    if not shutil.which("valgrind"):
        return not_comparable("valgrind is not installed and could not be installed")
    current = compiler()
    if options.record:
        record(measure(os.path.abspath(options.program)), current)
        return 0
    baseline = tomllib.loads(BASELINE.read_text())
    if baseline.get("compiler") != current:
        return not_comparable(f"the baseline is for {baseline.get('compiler')}, this is {current}; {HOW_TO_RECORD}")
    if compare(measure(os.path.abspath(options.program)), baseline):
        print(f"instructions: more than {TOLERANCE:.0%} away from the baseline; {HOW_TO_RECORD}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
