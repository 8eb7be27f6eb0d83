// What should a person look at first? What is wrong, the worst first, and the cluster in a few figures.

import { el, mark, meter } from "./dom.js";
import { count, nameOf } from "./format.js";
import { totals } from "./hosts.js";
import { problems } from "./judge.js";

export class Summary {
  /** `open(section)` is called when a problem's section is asked for. */
  constructor(open) {
    this.open = open;
    this.list = document.getElementById("problems");
    this.figures = document.getElementById("figures");
    this.shown = "";
  }

  /** `failed`: why the lists could not be read, null when they were. */
  show(judged, failed, isRead) {
    const found = isRead ? problems(judged, nameOf) : [];
    if (failed) found.unshift({ level: "bad", section: "", text: isRead ? "What is below is old: it could not be read anew" : "Nothing could be read yet", names: [failed.message], more: 0 });
    const stamp = JSON.stringify([found, isRead]);
    // Read out by screen readers: changed only when there is something new to say.
    if (stamp !== this.shown) this.list.replaceChildren(this.problems(found, isRead));
    this.shown = stamp;
    const bad = found.filter((each) => each.level === "bad").length;
    document.title = bad ? `(${bad}) Loch Ness` : "Loch Ness";
    if (isRead) this.figures.replaceChildren(...figures(judged));
  }

  problems(found, isRead) {
    if (!found.length) return el("p", { class: "fine" }, isRead ? mark("ok", "Nothing is wrong.") : "Reading …");
    return el("ul", { class: "problems" }, found.map((each) => this.problem(each)));
  }

  problem({ level, text, section, names, more }) {
    const words = section ? el("a", { href: `#${section}`, on: { click: () => this.open(section) } }, text) : text;
    return el("li", {}, mark(level, words), " ", el("span", { class: "why" }, names.join(", ") + (more ? ` and ${more.toLocaleString("en")} more` : "")));
  }
}

function figures({ hosts, guests, jobs }) {
  const alive = hosts.filter(({ host }) => host.alive).length;
  const running = guests.filter(({ word, level }) => word === "running" && level === "ok").length;
  const working = jobs.filter(({ job }) => job.status === "working" || job.status === "new").length;
  const failed = jobs.filter(({ job }) => job.status === "error").length;
  return [
    figure("Hosts alive", `${alive.toLocaleString("en")} of ${hosts.length.toLocaleString("en")}`),
    figure("Guests running", `${running.toLocaleString("en")} of ${guests.length.toLocaleString("en")}`),
    figure("Jobs at work", `${working.toLocaleString("en")}, ${count(failed, "failed", "failed")}`),
    ...totals(hosts).map(({ title, used, total, words }) => figure(`${title} taken`, meter(used, total, `${words(used)} of ${words(total)}`))),
  ];
}

function figure(title, value) {
  return el("div", {}, el("dt", {}, title), el("dd", {}, value));
}
