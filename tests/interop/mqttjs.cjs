// mqtt.js: every version, TCP, TLS, WebSocket and secure WebSocket.
"use strict";
const fs = require("fs");
const crypto = require("crypto");
const assert = require("assert");
const loaded = require(process.env.MQTT_JS);
const mqtt = loaded.connectAsync ? loaded : loaded.default;

const DEADLINE = 30000;
const LARGE = crypto.randomBytes(1 << 20);
const ca = fs.readFileSync(process.env.PETREL_CA);
const urls = {
  tcp: `mqtt://127.0.0.1:${process.env.PETREL_TCP}`,
  tls: `mqtts://localhost:${process.env.PETREL_TLS}`,
  ws: `ws://127.0.0.1:${process.env.PETREL_WS}/mqtt`,
  wss: `wss://localhost:${process.env.PETREL_WSS}/mqtt`,
};
const unique = (prefix) => prefix + crypto.randomBytes(6).toString("hex");

function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no ${what} within ${DEADLINE} ms`)), DEADLINE);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

class Client {
  static async connect(version, transport, options = {}) {
    const self = new Client();
    self.waiting = [];
    self.arrived = [];
    const level = { "3.1": 3, "3.1.1": 4, "5.0": 5 }[version];
    const all = {
      protocolVersion: level,
      protocolId: level === 3 ? "MQIsdp" : "MQTT",
      clientId: unique("js"),
      reconnectPeriod: 0,
      clean: true,
      ...options,
    };
    // Only where there is TLS: mqtt.js hands the options on to the WebSocket as they are.
    if (transport === "tls" || transport === "wss") all.ca = ca;
    if (level === 5 && options.clean === false) all.properties = { sessionExpiryInterval: 600 };
    self.mqtt = mqtt.connect(urls[transport], all);
    self.mqtt.on("message", (topic, payload, packet) => {
      const next = self.waiting.shift();
      if (next) next(packet);
      else self.arrived.push(packet);
    });
    self.connack = await within(
      new Promise((resolve, reject) => {
        self.mqtt.once("connect", resolve);
        self.mqtt.once("error", reject);
      }),
      "CONNACK",
    );
    return self;
  }

  subscribe(filters, qos) {
    return within(this.mqtt.subscribeAsync(filters, { qos }), "SUBACK");
  }

  publish(topic, payload, options = {}) {
    return within(this.mqtt.publishAsync(topic, payload, options), "acknowledgement");
  }

  receive() {
    if (this.arrived.length) return Promise.resolve(this.arrived.shift());
    return within(new Promise((resolve) => this.waiting.push(resolve)), "message");
  }

  close() {
    return within(this.mqtt.endAsync(), "end");
  }
}

const cases = {
  async retained(version, transport) {
    const topic = unique("i/");
    const publisher = await Client.connect(version, transport);
    await publisher.publish(topic, "kept", { qos: 1, retain: true });
    const subscriber = await Client.connect(version, transport);
    await subscriber.subscribe(topic, 1);
    const packet = await subscriber.receive();
    assert.ok(packet.retain && packet.payload.toString() === "kept");
    await publisher.publish(topic, "", { qos: 1, retain: true });
    await subscriber.close();
    await publisher.close();
  },

  async will(version, transport) {
    const topic = unique("i/");
    const watcher = await Client.connect(version, transport);
    await watcher.subscribe(topic, 1);
    const dying = await Client.connect(version, transport, { will: { topic, payload: Buffer.from("gone"), qos: 1 } });
    dying.mqtt.stream.destroy();
    assert.strictEqual((await watcher.receive()).payload.toString(), "gone");
    await watcher.close();
    dying.mqtt.end(true);
  },

  async session(version, transport) {
    const topic = unique("i/");
    const options = { clean: false, clientId: unique("js") };
    let client = await Client.connect(version, transport, options);
    await client.subscribe(topic, 2);
    await client.close();
    const publisher = await Client.connect(version, transport);
    for (let n = 0; n < 10; n++) await publisher.publish(topic, `m${n}`, { qos: 2 });
    client = await Client.connect(version, transport, options);
    if (version !== "3.1") assert.ok(client.connack.sessionPresent);
    for (let n = 0; n < 10; n++) assert.strictEqual((await client.receive()).payload.toString(), `m${n}`);
    await client.close();
    await publisher.close();
  },

  async large(version, transport) {
    const topic = unique("i/");
    const client = await Client.connect(version, transport);
    await client.subscribe(topic, 2);
    for (const qos of [0, 1, 2]) {
      await client.publish(topic, LARGE, { qos });
      assert.ok((await client.receive()).payload.equals(LARGE));
    }
    await client.close();
  },

  async wildcards(version, transport) {
    const root = unique("i");
    const client = await Client.connect(version, transport);
    await client.subscribe([`${root}/+/a`, `${root}/deep/#`], 1);
    for (const name of ["x/a", "x/b", "deep", "deep/1/2"]) await client.publish(`${root}/${name}`, name, { qos: 1 });
    const got = [];
    for (let n = 0; n < 3; n++) got.push((await client.receive()).payload.toString());
    assert.deepStrictEqual(got.sort(), ["deep", "deep/1/2", "x/a"]);
    await client.close();
  },

  async shared(version, transport) {
    const topic = unique("i/");
    const group = `$share/${unique("g")}/${topic}`;
    const members = [await Client.connect(version, transport), await Client.connect(version, transport)];
    const publisher = await Client.connect(version, transport);
    const got = [];
    let done;
    const complete = new Promise((resolve) => (done = resolve));
    for (const member of members) {
      member.mqtt.removeAllListeners("message");
      member.mqtt.on("message", (_, payload) => got.push(payload.toString()) === 20 && done());
      await member.subscribe(group, 1);
    }
    for (let n = 0; n < 20; n++) await publisher.publish(topic, `m${n}`, { qos: 1 });
    await within(complete, "twenty messages");
    assert.strictEqual(new Set(got).size, 20);
    for (const client of [...members, publisher]) await client.close();
  },
};

async function qos(version, transport, level) {
  const topic = unique("i/");
  const subscriber = await Client.connect(version, transport);
  const publisher = await Client.connect(version, transport);
  await subscriber.subscribe(topic, level);
  for (let n = 0; n < 20; n++) await publisher.publish(topic, `m${n}`, { qos: level });
  for (let n = 0; n < 20; n++) {
    const packet = await subscriber.receive();
    assert.deepStrictEqual([packet.payload.toString(), packet.qos], [`m${n}`, level]);
  }
  await subscriber.close();
  await publisher.close();
}

(async () => {
  let passed = 0;
  let failed = 0;
  const run = async (name, promise) => {
    try {
      await promise();
      passed++;
      console.log(`ok   mqtt.js ${name}`);
    } catch (error) {
      failed++;
      console.log(`FAIL mqtt.js ${name}: ${error.stack}`);
    }
  };
  for (const version of ["3.1", "3.1.1", "5.0"]) {
    for (const transport of Object.keys(urls)) {
      for (const level of [0, 1, 2]) await run(`${version} ${transport} qos ${level}`, () => qos(version, transport, level));
      for (const [name, test] of Object.entries(cases)) {
        await run(`${version} ${transport} ${name}`, () => test(version, transport));
      }
    }
  }
  console.log(`interop: mqtt.js: ${passed} passed, ${failed} failed`);
  process.exit(failed ? 1 : 0);
})();
