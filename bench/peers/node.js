// node's ws: a frame for each client, without compression.
"use strict";

const readline = require("node:readline");
const { WebSocketServer } = require("ws");

const SIZE = 500; // bytes of JSON

function encode(text, offset) {
  const timestamp = "2026-11-22T10:30:00.000Z";
  return JSON.stringify({
    session_id: "bench0000", event: "claude_text", timestamp, data: { turn: 1, block: 0, text }, offset,
  });
}

function event(offset) {
  const text = `at ${process.hrtime.bigint()} `;
  return encode(text + "x".repeat(SIZE - encode(text, offset).length), offset);
}

const asText = { binary: false, compress: false };
const wss = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: false, backlog: 1024 });
const done = () => process.stdout.write("done\n");
const now = () => performance.now() / 1e3;

function publish(events, times, pause) {
  const began = now();
  let offset = 0;
  const step = (at) => {
    for (let each = 0; each < events; each++) {
      const data = Buffer.from(event(++offset));
      for (const client of wss.clients) client.send(data, asText);
    }
    if (at + 1 === times) return done();
    setTimeout(step, Math.max(0, began + (at + 1) * pause - now()) * 1e3, at + 1);
  };
  step(0);
}

function each(times, pause) {
  const clients = [...wss.clients];
  let left = clients.length;
  clients.forEach((client, place) => {
    const began = now() + (place / clients.length) * pause;
    const step = (at) => {
      client.send(Buffer.from(event(at + 1)), asText);
      if (at + 1 < times) setTimeout(step, Math.max(0, began + (at + 1) * pause - now()) * 1e3, at + 1);
      else if (--left === 0) done();
    };
    setTimeout(step, (began - now()) * 1e3, 0);
  });
}

function replay(events) {
  const clients = [...wss.clients];
  const ready = Array.from({ length: events }, (_, at) => Buffer.from(event(at + 1)));
  let left = clients.length;
  clients.forEach((client) => {
    let at = 0;
    const more = () => {
      while (at < events) {
        at += 1;
        if (client.bufferedAmount > 65536) return client.send(ready[at - 1], asText, more);
        client.send(ready[at - 1], asText);
      }
      if (--left === 0) done();
    };
    more();
  });
}

wss.on("listening", () => console.log(JSON.stringify([[wss.address().port, "/"]])));
readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const [name, ...numbers] = line.split(" ");
  ({ publish, each, replay })[name](...numbers.map(Number));
}).on("close", () => process.exit(0));
