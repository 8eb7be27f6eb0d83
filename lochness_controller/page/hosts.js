// The hosts: are they alive, and how full are they?

import { el, mark, meter } from "./dom.js";
import { age, megabytes, moment, named, nameOf, whole } from "./format.js";
import { Table } from "./table.js";

const SIZES = [["memory", "Memory", megabytes], ["cpu", "CPU", whole], ["disk", "Disk", megabytes]];

export function hostsTable(section, showGuestsOf) {
  const sizes = SIZES.map(([name, title, words]) => ({
    title,
    isWide: name === "disk",
    cell: ({ host }) => load(host, name, words),
    sort: ({ host }) => share(host, name),
  }));
  return new Table(section, {
    caption: "Hosts: state, guests, what is taken of memory, CPU and disk, and the heartbeat",
    noun: "host",
    empty: "No host is registered yet. On each one lochness-node must run; then tell the controller of it: lochness hv create",
    key: ({ host }) => host.id,
    stamp: (item) => JSON.stringify([item.host, item.guests, item.level, item.word]),
    words: ({ host, word }) => [nameOf(host), host.id, host.ip, word, ...Object.values(host.metadata ?? {})].join(" "),
    isWrong: ({ level }) => level === "bad" || level === "warn",
    usual: ({ host, level }) => `${level === "bad" || level === "warn" ? RANK[level] : 2} ${nameOf(host)}`,
    columns: [
      { title: "Host", cell: ({ host }) => named(host), sort: ({ host }) => nameOf(host) },
      { title: "State", cell: ({ level, word }) => mark(level, word), sort: ({ level, word }) => `${RANK[level]} ${word}` },
      { title: "Heartbeat", cell: ({ host }) => heartbeat(host), sort: ({ host }) => heartbeatAt(host) ?? 0 },
      { title: "Guests", cell: (item) => guests(item, showGuestsOf), sort: (item) => item.guests },
      ...sizes,
      { title: "Address", isWide: true, cell: ({ host }) => el("code", {}, host.ip || "—"), sort: ({ host }) => host.ip },
    ],
  });
}

export const RANK = { bad: 0, warn: 1, ok: 2, idle: 3 };

function used(host, name) {
  return Math.max(0, (host.total_resources?.[name] ?? 0) - (host.available_resources?.[name] ?? 0));
}

function share(host, name) {
  const total = host.total_resources?.[name] ?? 0;
  return total ? used(host, name) / total : 0;
}

function load(host, name, words) {
  const total = host.total_resources?.[name] ?? 0;
  return total ? meter(used(host, name), total, `${words(used(host, name))} of ${words(total)}`) : el("span", { class: "none" }, "not reported");
}

function heartbeatAt(host) {
  return moment(host.alive ? host.alive_since : host.lost_since);
}

function heartbeat(host) {
  const at = heartbeatAt(host);
  if (at === null) return host.alive ? "beats" : el("span", { class: "none" }, "none");
  return el("span", {}, host.alive ? "beats for " : "gone for ", age(at));
}

function guests({ host, guests: number }, showGuestsOf) {
  if (!number) return "0";
  return el("button", { type: "button", class: "link", on: { click: () => showGuestsOf(host) } }, String(number), el("span", { class: "unseen" }, ` guests of ${nameOf(host)}`));
}

/** The sum over hosts that are alive of what is taken and what there is. */
export function totals(hosts) {
  const sum = { memory: [0, 0], cpu: [0, 0], disk: [0, 0] };
  for (const { host } of hosts) {
    if (!host.alive) continue;
    for (const [name] of SIZES) {
      sum[name][0] += used(host, name);
      sum[name][1] += host.total_resources?.[name] ?? 0;
    }
  }
  return SIZES.map(([name, title, words]) => ({ title, used: sum[name][0], total: sum[name][1], words }));
}
