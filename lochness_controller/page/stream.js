// How do the controller's events come in? By one request whose answer does not end, read piece by piece: the browser's
// own EventSource can not send a token.
//
// 1. After a break it goes on after the last event it has had (Last-Event-ID), so nothing is missed.
// 2. A stream that has been silent for SILENCE_MS is broken: the controller says something every 15 s.

import { headers, refused } from "./source.js";

const SILENCE_MS = 40000;

/** Reads the lines of a stream of server-sent events; calls `take({event, data, id})` for each. */
export class Parser {
  constructor(take) {
    this.take = take;
    this.rest = "";
    this.begin();
  }

  begin() {
    this.event = "message";
    this.data = [];
    this.id = null;
  }

  feed(text) {
    const lines = (this.rest + text).split(/\r\n|\n|\r/);
    this.rest = lines.pop();
    for (const line of lines) this.line(line);
  }

  line(line) {
    if (line === "") {
      if (this.data.length) this.take({ event: this.event, data: this.data.join("\n"), id: this.id });
      this.begin();
      return;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") this.event = value;
    else if (field === "data") this.data.push(value);
    else if (field === "id") this.id = value;
  }
}

/** Follow from `since` (null: from now on) until the stream ends or `signal` is aborted. Throws as fetch does, or Refused. */
export async function follow(since, signal, take) {
  const silence = new AbortController();
  let timer = 0;
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silence.abort(), SILENCE_MS);
  };
  heard();
  try {
    const more = since === null ? {} : { "Last-Event-ID": since };
    const answer = await fetch("events", { headers: headers({ Accept: "text/event-stream", ...more }), signal: AbortSignal.any([signal, silence.signal]), cache: "no-store" });
    if (!answer.ok) throw await refused(answer);
    const parser = new Parser(take);
    const text = new TextDecoder();
    const reader = answer.body.getReader();
    for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
      heard();
      parser.feed(text.decode(piece.value, { stream: true }));
    }
  } finally {
    clearTimeout(timer);
  }
}
