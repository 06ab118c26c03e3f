#!/usr/bin/env python3
"""Shows which normative statements of MQTT are shown by which tests, from the ids that doc comments of tests cite.

  conformance.py            the score, and every statement without a test
  conformance.py --update   writes the lists of tests into docs/conformance.toml first
  conformance.py --verbose  every statement with its tests
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILE = ROOT / "docs" / "conformance.toml"
CITATION = re.compile(r"\[(MQTT(?:311)?-\d[0-9.]*-\d+)\]")


def module(path):
    parts = [part for part in path.with_suffix("").parts if part not in ("src", "tests", "mod")]
    return "::".join(parts)


def rust_files():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.rs"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()
    return [pathlib.Path(name) for name in listed if (ROOT / name).is_file()]


def cited_tests():
    """Statement id to the sorted names of the tests that cite it."""
    found = {}
    for path in rust_files():
        cited, is_test = [], False
        for line in (ROOT / path).read_text().splitlines():
            line = line.strip()
            if line.startswith("///"):
                cited += CITATION.findall(line)
            elif line.startswith("#["):
                is_test = is_test or line == "#[test]" or line.startswith("#[tokio::test")
            else:
                name = re.match(r"(?:async )?fn (\w+)", line)
                if name and is_test:
                    for statement in cited:
                        found.setdefault(statement, set()).add(f"{module(path)}::{name.group(1)}")
                cited, is_test = [], False
    return {statement: sorted(names) for statement, names in found.items()}


def update(text, cited):
    """Replaces every list of tests by what was found."""

    def block(match):
        names = cited.get(match.group("id"), [])
        body = "".join(f'    "{name}",\n' for name in names)
        tests = f"tests = [\n{body}]" if names else "tests = []"
        return match.group("head") + tests

    pattern = r'(?P<head>id = "(?P<id>[^"]+)"\ntext = "[^"]*"\n)tests = \[[^\]]*\]'
    return re.sub(pattern, block, text)


def main():
    cited = cited_tests()
    text = FILE.read_text()
    if "--update" in sys.argv:
        text = update(text, cited)
        FILE.write_text(text)
    statements = re.findall(r'id = "([^"]+)"\ntext = "([^"]*)"\ntests = \[[^\]]*\](?:\nreason = "([^"]*)")?', text)
    uncited = []
    for name, prefix in (("MQTT 5.0", "MQTT-"), ("MQTT 3.1.1", "MQTT311-")):
        ours = [item for item in statements if item[0].startswith(prefix)]
        shown = sum(1 for statement, _, _ in ours if statement in cited)
        reasoned = sum(1 for statement, _, reason in ours if statement not in cited and reason)
        missing = [item for item in ours if item[0] not in cited and not item[2]]
        uncited += missing
        print(f"{name}: {len(ours)} statements bind a server: {shown} shown by tests, "
              f"{reasoned} with a reason, {len(missing)} with neither")
        for statement, paraphrase, reason in ours:
            if "--verbose" in sys.argv:
                print(f"  {statement}  {paraphrase}")
                for test in cited.get(statement, []):
                    print(f"      {test}")
            elif reason:
                print(f"  {statement}  {paraphrase}: {reason}")
    for statement, paraphrase, _ in uncited:
        print(f"  NEITHER  {statement}  {paraphrase}")
    return 1 if uncited else 0


if __name__ == "__main__":
    sys.exit(main())
