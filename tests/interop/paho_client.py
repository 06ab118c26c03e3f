"""paho-mqtt: every version, TCP, TLS, WebSocket and secure WebSocket."""
import queue
import time

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from report import CA, LARGE, PORTS, Report, unique

DEADLINE = 30
VERSIONS = {"3.1": paho.MQTTv31, "3.1.1": paho.MQTTv311, "5.0": paho.MQTTv5}


class Client:
    """A connected client with its messages in a queue."""

    def __init__(self, version, transport, client_id=None, keep=False, will=None):
        self.messages, self.granted, self.lost = queue.Queue(), queue.Queue(), queue.Queue()
        five = version == "5.0"
        options = {} if five else {"clean_session": not keep}
        self.paho = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=client_id or unique("paho"),
            protocol=VERSIONS[version],
            transport="websockets" if transport.startswith("ws") else "tcp",
            **options,
        )
        if transport.startswith("ws"):
            self.paho.ws_set_options(path="/mqtt")
        if transport in ("tls", "wss"):
            self.paho.tls_set(ca_certs=CA)
        if will:
            self.paho.will_set(*will)
        connected = queue.Queue()
        self.paho.on_connect = lambda client, data, flags, reason, properties: connected.put((flags, reason))
        self.paho.on_subscribe = lambda client, data, mid, codes, properties: self.granted.put(codes)
        self.paho.on_message = lambda client, data, message: self.messages.put(message)
        self.paho.on_disconnect = lambda *arguments: self.lost.put(arguments)
        host = "localhost" if transport in ("tls", "wss") else "127.0.0.1"
        options = {}
        if five:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 600 if keep else 0
            options = {"clean_start": not keep, "properties": properties}
        self.paho.connect(host, PORTS[transport], **options)
        self.paho.loop_start()
        self.flags, reason = connected.get(timeout=DEADLINE)
        assert not reason.is_failure, reason

    def subscribe(self, *filters):
        self.paho.subscribe(list(filters))
        return self.granted.get(timeout=DEADLINE)

    def publish(self, topic, payload, qos=0, retain=False):
        self.paho.publish(topic, payload, qos, retain).wait_for_publish(DEADLINE)

    def receive(self):
        return self.messages.get(timeout=DEADLINE)

    def close(self):
        self.paho.disconnect()
        self.lost.get(timeout=DEADLINE)
        self.paho.loop_stop()


def qos(version, transport, level):
    topic = unique("i/")
    subscriber, publisher = Client(version, transport), Client(version, transport)
    subscriber.subscribe((topic, level))
    for number in range(20):
        publisher.publish(topic, f"m{number}", level)
    for number in range(20):
        message = subscriber.receive()
        assert (message.payload, message.qos) == (b"m%d" % number, level), message.payload
    subscriber.close()
    publisher.close()


def retained(version, transport):
    topic, publisher = unique("i/"), Client(version, transport)
    publisher.publish(topic, "kept", 1, True)
    subscriber = Client(version, transport)
    subscriber.subscribe((topic, 1))
    message = subscriber.receive()
    assert message.retain and message.payload == b"kept"
    publisher.publish(topic, "", 1, True)
    subscriber.close()
    publisher.close()


def will(version, transport):
    topic, watcher = unique("i/"), Client(version, transport)
    watcher.subscribe((topic, 1))
    dying = Client(version, transport, will=(topic, "gone", 1, False))
    dying.paho.loop_stop()
    dying.paho.socket().close()
    assert watcher.receive().payload == b"gone"
    watcher.close()


def session(version, transport):
    topic, name = unique("i/"), unique("paho")
    client = Client(version, transport, name, keep=True)
    client.subscribe((topic, 2))
    client.close()
    publisher = Client(version, transport)
    for number in range(10):
        publisher.publish(topic, f"m{number}", 2)
    client = Client(version, transport, name, keep=True)
    assert version == "3.1" or client.flags.session_present
    assert [client.receive().payload for _ in range(10)] == [b"m%d" % number for number in range(10)]
    client.close()
    publisher.close()


def large(version, transport):
    topic, client = unique("i/"), Client(version, transport)
    client.subscribe((topic, 2))
    for level in range(3):
        client.publish(topic, LARGE, level)
        assert client.receive().payload == LARGE
    client.close()


def wildcards(version, transport):
    root, client = unique("i"), Client(version, transport)
    client.subscribe((f"{root}/+/a", 1), (f"{root}/deep/#", 1))
    for name in ("x/a", "x/b", "deep", "deep/1/2"):
        client.publish(f"{root}/{name}", name, 1)
    assert sorted(client.receive().payload for _ in range(3)) == [b"deep", b"deep/1/2", b"x/a"]
    client.close()


def shared(version, transport):
    topic = unique("i/")
    group = f"$share/{unique('g')}/{topic}"
    members, publisher = [Client(version, transport) for _ in range(3)], Client(version, transport)
    for member in members:
        member.subscribe((group, 1))
    for number in range(30):
        publisher.publish(topic, f"m{number}", 1)
    deadline, got = time.monotonic() + DEADLINE, []
    while len(got) < 30 and time.monotonic() < deadline:
        for member in members:
            while not member.messages.empty():
                got.append(member.receive().payload)
        time.sleep(0.05)
    assert sorted(got) == sorted(b"m%d" % number for number in range(30)), got
    for client in (*members, publisher):
        client.close()


def properties(version, transport):
    topic, client = unique("i/"), Client(version, transport)
    client.subscribe((topic, 1))
    sent = Properties(PacketTypes.PUBLISH)
    sent.ContentType, sent.ResponseTopic, sent.CorrelationData = "text/plain", "answer/to", b"\0\1"
    sent.UserProperty = [("b", "1"), ("a", "2"), ("b", "3")]
    client.paho.publish(topic, "x", 1, properties=sent)
    got = client.receive().properties
    assert (got.ContentType, got.ResponseTopic, got.CorrelationData) == ("text/plain", "answer/to", b"\0\1")
    assert got.UserProperty == [("b", "1"), ("a", "2"), ("b", "3")]
    client.close()


def main():
    report = Report("paho")
    for version in VERSIONS:
        for transport in PORTS:
            for level in range(3):
                report.case(f"{version} {transport} qos {level}", qos, version, transport, level)
            for function in (retained, will, session, large, wildcards, shared):
                report.case(f"{version} {transport} {function.__name__}", function, version, transport)
            if version == "5.0":
                report.case(f"{version} {transport} properties", properties, version, transport)
    report.finish()


main()
