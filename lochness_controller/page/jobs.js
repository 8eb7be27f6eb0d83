// The jobs: what is being done, what failed, and why?

import { el, mark } from "./dom.js";
import { explanation } from "./explanation.js";
import { age, moment, named, nameOf, span } from "./format.js";
import { Table } from "./table.js";

/** `hosts()`: the hosts by id. */
export function jobsTable(section, hosts) {
  return new Table(section, {
    caption: "Jobs, the newest first: state, what is done to which guest, and how it went",
    noun: "job",
    empty: "No job in the last 24 hours.",
    page: 25,
    key: ({ job }) => job.id,
    stamp: (item) => JSON.stringify([item.job, item.guest?.metadata, item.level, item.word]),
    words: ({ job, guest, word }) => [job.request || job.action, word, nameOf(guest, job.guest), job.guest, job.id, job.error ?? "", job.reason].join(" "),
    isWrong: ({ level }) => level === "bad" || level === "warn",
    detail: (item) => detail(item.job, hosts()),
    columns: [
      { title: "Job", cell: ({ job }) => el("span", { title: job.id }, job.request || job.action) },
      { title: "State", cell: state },
      { title: "Guest", cell: ({ job, guest }) => named(guest, job.guest) },
      { title: "How it goes", cell: ({ job }) => how(job) },
      { title: "Age", cell: ({ job }) => age(moment(job.created_at) ?? moment(job.started_at), " ago") },
      { title: "Took", isWide: true, cell: ({ job }) => took(job) },
    ],
  });
}

function state({ job, level, word }) {
  return el("span", {}, mark(level, word), job.status === "working" && job.action !== job.request ? el("span", { class: "why" }, ` ${job.action}`) : null);
}

function how(job) {
  if (job.error) return el("span", { class: "error" }, job.error);
  if (job.progress) return job.progress;
  if (job.status === "working") return job.steps?.at(-1)?.message || "";
  return "";
}

function took(job) {
  const began = moment(job.started_at);
  const ended = moment(job.finished_at);
  if (began === null) return el("span", { class: "none" }, "—");
  if (ended === null) return age(began);
  return ended - began < 1000 ? `${Math.max(0, ended - began)} ms` : span((ended - began) / 1000);
}

function detail(job, hosts) {
  const facts = [["Job", el("code", {}, job.id)], ["Guest", el("code", {}, job.guest)]];
  if (job.hypervisor) facts.push(["Host", named(hosts.get(job.hypervisor), job.hypervisor)]);
  if (job.reason) facts.push(["Reason", el("code", {}, job.reason)]);
  if (job.request_id) facts.push(["Request", el("code", {}, job.request_id)]);
  const steps = (job.steps ?? []).map((step) => el("li", {}, el("b", {}, step.action), " ", age(moment(step.started_at), " ago"), step.message ? ` — ${step.message}` : null));
  return el("div", { class: "more" },
    el("dl", { class: "facts" }, facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))),
    steps.length ? el("div", {}, el("h3", {}, "Steps"), el("ol", {}, steps)) : null,
    explanation(job.explanation, hosts));
}
