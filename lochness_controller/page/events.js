// What is happening? A line for each event of the stream, the newest first, at most LINES_MAX of them.

import { arrange, el } from "./dom.js";
import { age, count, moment, nameOf, nowMs } from "./format.js";

const LINES_MAX = 200;
const SAID_MAX = 5000;
// An event's own time is told where it is so much before its coming: it was missed, and is told late.
const LATE_MS = 5000;

/** The words and the level of an event, null for one that is no news to people. Pure but for the names. */
export function told({ kind, id, part, action, value }, names) {
  const who = `${kind} ${names(kind, id)}`;
  if (kind === "job") {
    if (action === "gone") return null;
    const what = `${value.request || value.action} of guest ${names("guest", value.guest)}`;
    if (value.status === "error") return { level: "bad", text: `${what} failed: ${value.error}`, at: moment(value.finished_at) };
    if (value.status === "done") return { level: "ok", text: `${what} is done`, at: moment(value.finished_at) };
    return { level: "idle", text: value.status === "new" ? `${what} is asked for` : `${what}: ${value.action}${value.progress ? `, ${value.progress}` : ""}`, at: null };
  }
  const isGone = action === "gone";
  if (kind === "guest" && part === "status" && !isGone) return { level: LEVELS[value.state] ?? "idle", text: `${who} is ${value.state.replaceAll("_", " ")}${value.reason ? ` (${value.reason})` : ""}`, at: null };
  if (kind === "guest" && part === "power") return isGone ? null : { level: "idle", text: `${who} is to be ${value.desired}`, at: null };
  if (kind === "guest" && part === "status") return null;
  if (kind === "hypervisor" && part === "heartbeat") return isGone ? { level: "bad", text: `host ${names(kind, id)} no longer beats`, at: null } : { level: "ok", text: `host ${names(kind, id)} beats`, at: null };
  if (kind === "hypervisor" && part.startsWith("guests/")) return { level: "idle", text: `guest ${names("guest", part.slice(7))} ${isGone ? "has left" : "is bound to"} host ${names(kind, id)}`, at: null };
  // What only repeats what another line says.
  if (kind === "hypervisor" && (part === "resources" || part === "lost")) return null;
  if (kind === "subnet" && part.startsWith("addresses/")) return null;
  if (kind === "controller") return { level: isGone ? "warn" : "ok", text: `controller ${id.slice(0, 8)} ${isGone ? "has ended" : "is there"}`, at: null };
  if (kind === "config") return { level: "idle", text: `setting ${part} is ${isGone ? "unset" : "set"}`, at: null };
  const subject = kind === "hypervisor" ? `host ${names(kind, id)}` : who;
  if (part === "metadata") return { level: "idle", text: `${subject} is ${isGone ? "deleted" : "written"}`, at: null };
  return { level: "idle", text: `${subject}: ${part} ${isGone ? "is gone" : "is set"}`, at: null };
}

const LEVELS = { running: "ok", crashed: "bad", missing: "bad", unknown: "warn" };

export class EventList {
  constructor(section, cluster) {
    this.cluster = cluster;
    this.lines = [];
    this.given = new Map();
    this.said = new Map();
    this.waiting = [];
    this.isHeld = false;
    this.timer = 0;
    this.hold = el("button", { type: "button", "aria-pressed": "false", on: { click: () => this.toggle() } }, "Hold");
    this.note = el("span", { class: "shown", role: "status" });
    this.list = el("ol", { class: "events", "aria-label": "Events, the newest first" });
    this.none = el("p", { class: "empty" }, "Nothing has happened since this page was opened.");
    section.append(el("div", { class: "tools" }, this.hold, this.note), this.list, this.none);
  }

  toggle() {
    this.isHeld = !this.isHeld;
    this.hold.setAttribute("aria-pressed", String(this.isHeld));
    this.render();
  }

  take(event) {
    this.learn(event);
    const line = told(event, (kind, id) => this.name(kind, id));
    const key = `${event.kind} ${event.id}`;
    // A job is written more often than there is something new to say of it.
    if (!line || this.said.get(key) === line.text) return;
    remember(this.said, key, line.text);
    const now = nowMs();
    this.waiting.push({ ...line, at: line.at !== null && now - line.at > LATE_MS ? line.at : now });
    if (this.waiting.length > LINES_MAX) this.waiting.shift();
    this.timer ||= setTimeout(() => this.render(), 100);
  }

  /** Names of what is newer than the last reading, and of what is deleted. */
  learn({ kind, id, part, value }) {
    if (part === "metadata" && value?.metadata?.name) remember(this.given, `${kind} ${id}`, value.metadata.name);
  }

  name(kind, id) {
    const records = { guest: this.cluster.guests, hypervisor: this.cluster.hosts, flavor: this.cluster.flavors, network: this.cluster.networks }[kind];
    const record = records?.get(id);
    return record ? nameOf(record, id) : this.given.get(`${kind} ${id}`) ?? id.slice(0, 8);
  }

  render() {
    this.timer = 0;
    this.note.textContent = this.isHeld ? `held, ${count(this.waiting.length, "new event")} waiting` : "";
    if (this.isHeld) return;
    const fresh = this.waiting.splice(0).map(({ level, text, at }) => el("li", { "data-level": level }, age(at, " ago"), " ", el("span", { class: "text" }, text)));
    if (fresh.length) this.lines = [...fresh.reverse(), ...this.lines].slice(0, LINES_MAX);
    this.none.hidden = Boolean(this.lines.length);
    arrange(this.list, this.lines);
  }
}

function remember(map, key, value) {
  map.delete(key);
  map.set(key, value);
  if (map.size > SAID_MAX) map.delete(map.keys().next().value);
}
