#!/usr/bin/env python3
"""Counts the instructions that a message costs, and compares them with the baseline.

    scripts/instructions.py INSTRUCTIONS [--record]

INSTRUCTIONS is the example of that name, built for release. Unlike time, instructions do not depend on how busy a machine
is, so a change that makes the message path dearer is seen in review: more than 5 % above benches/instructions.toml fails.
More than 5 % below asks for a new baseline (--record), or the next change could spend what this one saved.

Each scenario runs twice under callgrind, the second time with more messages: the difference is free of start and set-up.
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

SCENARIOS = {"decode": 20, "qos0": 20, "qos1": 20, "qos2": 20, "fanout0": 2, "fanout1": 2}
# Enough that buffers have grown and caches are filled before counting begins.
WARM_BURSTS = 10
TOLERANCE = 0.05
BASELINE = pathlib.Path(__file__).parent.parent / "benches" / "instructions.toml"
HEADER = """\
# Instructions for each message delivered, counted by callgrind: `scripts/instructions.py INSTRUCTIONS --record` writes this
# file, `make instructions` compares with it. They depend on the compiler; record anew with a new one.
"""


def count(program, scenario, bursts, directory):
    """Instructions and messages of one run."""
    output = directory / f"callgrind.{scenario}.{bursts}"
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={output}", program, scenario, str(bursts)]
    done = subprocess.run(command, capture_output=True, text=True)
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
        word = "dearer" if change > TOLERANCE else "cheaper: record it" if change < -TOLERANCE else "as before"
        outside += abs(change) > TOLERANCE
        print(f"{scenario:<10} {instructions:>10.1f}  baseline {before:>10.1f}  {change:+7.1%}  {word}")
    return outside


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="the example `instructions`, built for release")
    parser.add_argument("--record", action="store_true", help="write the baseline instead of comparing with it")
    options = parser.parse_args()
    if not shutil.which("valgrind"):
        raise SystemExit("valgrind is not installed")
    found = measure(os.path.abspath(options.program))
    if options.record:
        lines = [f"{scenario} = {instructions}\n" for scenario, instructions in found.items()]
        BASELINE.write_text(HEADER + "\n" + "".join(lines))
        print(BASELINE.read_text(), end="")
        return 0
    return 1 if compare(found, tomllib.loads(BASELINE.read_text())) else 0


if __name__ == "__main__":
    sys.exit(main())
