"""mosquitto_pub and mosquitto_sub: every version, TCP and TLS."""
import signal
import subprocess
import tempfile
import time

from report import CA, LARGE, PORTS, Report, unique

DEADLINE = 30


def where(transport):
    arguments = ["-h", "localhost" if transport == "tls" else "127.0.0.1", "-p", str(PORTS[transport])]
    return arguments + (["--cafile", CA] if transport == "tls" else [])


def publish(version, transport, *arguments):
    command = ["mosquitto_pub", *where(transport), "-V", version, *arguments]
    subprocess.run(command, check=True, timeout=DEADLINE, capture_output=True)


def session(version):
    return ["-c", "-x", "600"] if version == "mqttv5" else ["-c"]


def subscribe_only(version, transport, client, *arguments):
    """Subscribes in a session that stays, and leaves."""
    command = ["mosquitto_sub", *where(transport), "-V", version, *session(version), "-i", client, "-E", *arguments]
    subprocess.run(command, check=True, timeout=DEADLINE, capture_output=True)


def collect(version, transport, client, count, *arguments):
    """What waits in that session."""
    command = ["mosquitto_sub", *where(transport), "-V", version, *session(version), "-i", client]
    command += ["-C", str(count), "-W", str(DEADLINE), *arguments]
    done = subprocess.run(command, check=True, timeout=DEADLINE + 5, capture_output=True)
    return done.stdout


def qos(version, transport, level):
    topic, client = unique("i/"), unique("sub")
    if level:
        subscribe_only(version, transport, client, "-q", str(level), "-t", topic)
        for number in range(5):
            publish(version, transport, "-q", str(level), "-t", topic, "-m", f"m{number}")
        got = collect(version, transport, client, 5, "-q", str(level), "-t", topic)
        assert got.split() == [b"m0", b"m1", b"m2", b"m3", b"m4"], got
        return
    command = ["mosquitto_sub", *where(transport), "-V", version, "-t", topic, "-C", "1", "-W", str(DEADLINE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as subscriber:
        while subscriber.poll() is None:
            publish(version, transport, "-t", topic, "-m", "zero")
            time.sleep(0.1)
        assert subscriber.stdout.read() == b"zero\n"


def retained(version, transport):
    topic = unique("i/")
    publish(version, transport, "-q", "1", "-r", "-t", topic, "-m", "kept")
    command = ["mosquitto_sub", *where(transport), "-V", version, "-t", topic, "-C", "1", "-W", str(DEADLINE)]
    done = subprocess.run(command + ["-F", "%r %p"], check=True, timeout=DEADLINE + 5, capture_output=True)
    assert done.stdout == b"1 kept\n", done.stdout
    publish(version, transport, "-q", "1", "-r", "-n", "-t", topic)


def will(version, transport):
    topic, client = unique("i/"), unique("sub")
    subscribe_only(version, transport, client, "-q", "1", "-t", topic)
    # Line by line: what it says about its connection must not wait in a buffer.
    command = ["stdbuf", "-oL", "mosquitto_pub", *where(transport), "-V", version, "-t", unique("i/"), "-l", "-d"]
    command += ["--will-topic", topic, "--will-payload", "gone", "--will-qos", "1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as dying:
        while b"CONNACK" not in dying.stdout.readline():
            pass
        dying.send_signal(signal.SIGKILL)
    assert collect(version, transport, client, 1, "-q", "1", "-t", topic) == b"gone\n"


def large(version, transport):
    topic, client = unique("i/"), unique("sub")
    subscribe_only(version, transport, client, "-q", "1", "-t", topic)
    with tempfile.NamedTemporaryFile() as file:
        file.write(LARGE)
        file.flush()
        publish(version, transport, "-q", "1", "-t", topic, "-f", file.name)
    assert collect(version, transport, client, 1, "-q", "1", "-N", "-t", topic) == LARGE


def wildcards(version, transport):
    root, client = unique("i"), unique("sub")
    subscribe_only(version, transport, client, "-q", "1", "-t", f"{root}/+/a", "-t", f"{root}/deep/#")
    for name in ("x/a", "x/b", "deep", "deep/1/2"):
        publish(version, transport, "-q", "1", "-t", f"{root}/{name}", "-m", name)
    got = collect(version, transport, client, 3, "-q", "1", "-t", f"{root}/+/a", "-t", f"{root}/deep/#")
    assert sorted(got.split()) == [b"deep", b"deep/1/2", b"x/a"], got


def shared(version, transport):
    topic = unique("i/")
    group = f"$share/{unique('g')}/{topic}"
    command = ["stdbuf", "-oL", "mosquitto_sub", *where(transport), "-V", version, "-q", "1", "-t", group, "-d"]
    members = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for member in members:
            while b"Subscribed" not in member.stdout.readline():
                pass
        for number in range(10):
            publish(version, transport, "-q", "1", "-t", topic, "-m", f"m{number}")
        time.sleep(0.3)
    finally:
        for member in members:
            member.terminate()
    shares = [[line for line in m.communicate(timeout=DEADLINE)[0].splitlines() if line[:1] == b"m"] for m in members]
    assert sorted(shares[0] + shares[1]) == sorted(b"m%d" % number for number in range(10)), shares
    assert shares[0] and shares[1], shares


def main():
    report = Report("mosquitto")
    for version in ("mqttv31", "mqttv311", "mqttv5"):
        for transport in ("tcp", "tls"):
            for level in range(3):
                report.case(f"{version} {transport} qos {level}", qos, version, transport, level)
            for function in (retained, will, large, wildcards, shared):
                report.case(f"{version} {transport} {function.__name__}", function, version, transport)
    report.finish()


main()
