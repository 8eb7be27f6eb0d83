// How are sizes, times and names written?

import { el } from "./dom.js";

const STEPS = [[1024 ** 3, "PB"], [1024 ** 2, "TB"], [1024, "GB"]];
const SPANS = [[86400, "d"], [3600, "h"], [60, "min"]];

/** The controller's clock less ours, in milliseconds; told by its answers, so that a wrong clock here shows no nonsense. */
let skewMs = 0;

export function learnClock(dateHeader) {
  const theirs = Date.parse(dateHeader ?? "");
  // The header has whole seconds: what is within two of them is no skew.
  if (!Number.isNaN(theirs)) skewMs = Math.abs(theirs - Date.now()) > 2000 ? theirs - Date.now() : 0;
}

export function nowMs() {
  return Date.now() + skewMs;
}

/** MB as 512 MB, 12.5 GB, 1.9 TB, 3.7 PB. */
export function megabytes(mb) {
  for (const [size, unit] of STEPS) {
    if (mb >= size) return `${trimmed(mb / size)} ${unit}`;
  }
  return `${trimmed(mb)} MB`;
}

function trimmed(value) {
  return value >= 100 ? String(Math.round(value)) : String(Math.round(value * 10) / 10);
}

/** 128000 as 128,000. */
export function whole(number) {
  return number.toLocaleString("en");
}

export function count(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

/** A span of seconds as 12 s, 3 min, 5 h, 2 d. */
export function span(seconds) {
  for (const [size, unit] of SPANS) if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
  return `${Math.max(0, Math.floor(seconds))} s`;
}

/** Milliseconds since 1970 of an RFC 3339 time; null where none is set. */
export function moment(text) {
  const ms = Date.parse(text ?? "");
  return Number.isNaN(ms) || ms < 0 ? null : ms;
}

/** A moment as its age, which `tick` keeps true, with the whole time in its title. `after` are words behind it. */
export function age(ms, after = "") {
  if (ms === null) return el("span", { class: "none" }, "—");
  const at = new Date(ms);
  const node = el("time", { datetime: at.toISOString(), title: at.toLocaleString(), "data-after": after });
  node.textContent = aged(ms, after);
  return node;
}

function aged(ms, after) {
  return `${span((nowMs() - ms) / 1000)}${after}`;
}

/** Bring every age on the page up to date. */
export function tick() {
  for (const node of document.querySelectorAll("time[data-after]")) {
    const text = aged(Date.parse(node.dateTime), node.dataset.after);
    if (node.textContent !== text) node.textContent = text;
  }
}

/** What people call a record: its metadata's name, else the first part of its id. */
export function nameOf(record, id = record?.id ?? "") {
  return record?.metadata?.name || id.slice(0, 8);
}

/** The name, with the id behind it where there is one to tell apart, and whole in the title. */
export function named(record, id = record?.id ?? "") {
  if (!id) return el("span", { class: "none" }, "—");
  const name = record?.metadata?.name;
  return el("span", { class: "name", title: id }, name || el("code", {}, id.slice(0, 8)), name ? el("code", { class: "id" }, id.slice(0, 8)) : null);
}
