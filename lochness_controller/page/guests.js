// The guests: are they what they should be, and where?

import { el, mark } from "./dom.js";
import { age, moment, named, nameOf } from "./format.js";
import { RANK } from "./hosts.js";
import { Table } from "./table.js";

/** `flavors()`: the flavors by id; `showJobsOf(guest, job)`: its newest. */
export function guestsTable(section, flavors, showJobsOf) {
  return new Table(section, {
    caption: "Guests: state, host, address, flavor, and since when",
    noun: "guest",
    empty: "No guest yet. lochness guest create makes one.",
    key: ({ guest }) => guest.id,
    stamp: (item) => JSON.stringify([item.guest, item.level, item.word, item.why, item.host && nameOf(item.host), flavors().get(item.guest.flavor)?.metadata, item.job?.status]),
    words: ({ guest, host, word }) => [nameOf(guest), guest.id, guest.ip, guest.mac, word, host ? nameOf(host) : "", guest.hypervisor, nameOf(flavors().get(guest.flavor), guest.flavor)].join(" "),
    isWrong: ({ level }) => level === "bad" || level === "warn",
    usual: ({ guest, level }) => `${level === "bad" || level === "warn" ? RANK[level] : 2} ${nameOf(guest)}`,
    columns: [
      { title: "Guest", cell: ({ guest }) => named(guest), sort: ({ guest }) => nameOf(guest) },
      { title: "State", cell: state, sort: ({ level, word }) => `${RANK[level]} ${word}` },
      { title: "Host", cell: ({ guest, host }) => named(host, guest.hypervisor), sort: ({ host }) => nameOf(host) },
      { title: "Address", cell: ({ guest }) => (guest.ip ? el("code", {}, guest.ip) : el("span", { class: "none" }, "—")), sort: ({ guest }) => guest.ip },
      { title: "Flavor", isWide: true, cell: ({ guest }) => named(flavors().get(guest.flavor), guest.flavor), sort: ({ guest }) => nameOf(flavors().get(guest.flavor), guest.flavor) },
      { title: "For", isWide: true, cell: ({ guest }) => age(moment(guest.status?.since)), sort: ({ guest }) => guest.status?.since ?? "" },
      { title: "Last job", cell: (item) => lastJob(item, showJobsOf) },
    ],
  });
}

function state({ level, word, why }) {
  return el("span", {}, mark(level, word), why ? el("span", { class: "why" }, ` ${why}`) : null);
}

function lastJob({ guest, job }, showJobsOf) {
  if (!job) return el("span", { class: "none" }, "—");
  const words = { new: "waiting", working: "at work", done: "done", error: "failed" }[job.status] ?? job.status;
  return el("button", { type: "button", class: "link", on: { click: () => showJobsOf(guest, job) } }, `${job.request || job.action}: ${words}`, el("span", { class: "unseen" }, `, jobs of ${nameOf(guest)}`));
}
