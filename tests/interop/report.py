"""What the Python drivers share: names that differ, and a line for each case."""
import os
import sys
import traceback
import uuid

PORTS = {name: int(os.environ[f"PETREL_{name.upper()}"]) for name in ("tcp", "tls", "ws", "wss")}
CA = os.environ["PETREL_CA"]
LARGE = bytes(range(256)) * 4096  # 1 MiB


def unique(prefix):
    return f"{prefix}{uuid.uuid4().hex[:12]}"


class Report:
    """Runs cases and counts them."""

    def __init__(self, client):
        self.client, self.passed, self.failed = client, 0, 0

    def case(self, name, function, *arguments):
        try:
            function(*arguments)
        except Exception as error:
            self.failed += 1
            print(f"FAIL {self.client} {name}: {error!r}", flush=True)
            traceback.print_exc(limit=3)
        else:
            self.passed += 1
            print(f"ok   {self.client} {name}", flush=True)

    def finish(self):
        print(f"interop: {self.client}: {self.passed} passed, {self.failed} failed", flush=True)
        sys.exit(1 if self.failed else 0)
