// Why was a guest placed where it is, or nowhere? The job's explanation: what each candidate function removed, and why.

import { el } from "./dom.js";
import { megabytes, named } from "./format.js";

/** null when the job has none. */
export function explanation(given, hosts) {
  const functions = given?.functions ?? [];
  if (!functions.length) return null;
  return el("div", { class: "explanation" },
    el("h3", {}, given.chosen ? "How its host was chosen" : "Why no host could take it"),
    tally(functions),
    misses(functions, hosts),
    best(given, hosts));
}

function tally(functions) {
  const rows = functions.map((each) => el("tr", { role: "row" },
    el("th", { scope: "row", role: "rowheader", "data-title": "Asked" }, words(each.function)),
    cell("Looked at", String(each.considered)),
    cell("Kept", String(each.considered - each.removed)),
    cell("Removed", String(each.removed)),
    cell("Because", Object.entries(each.reasons ?? {}).map(([reason, number]) => `${reason.replaceAll("_", " ")}: ${number}`).join(", ") || "—")));
  return table("Hosts removed by each candidate function, in order", ["Asked", "Looked at", "Kept", "Removed", "Because"], rows);
}

function misses(functions, hosts) {
  const found = functions.flatMap((each) => each.nearest ?? []);
  if (!found.length) return null;
  const lines = found.map((miss) => el("li", {}, named(hosts.get(miss.hypervisor), miss.hypervisor), " ", miss.text));
  return el("div", {}, el("h4", {}, "Nearest misses"), el("ul", { class: "misses" }, lines));
}

function best(given, hosts) {
  if (!given.best?.length) return null;
  const rows = given.best.map((each) => el("tr", { role: "row" },
    el("th", { scope: "row", role: "rowheader", "data-title": "Host" }, named(hosts.get(each.hypervisor), each.hypervisor), each.hypervisor === given.chosen ? " ← chosen" : null),
    cell("Free memory", megabytes(each.free_memory)),
    cell("Free CPU", String(each.free_cpu)),
    cell("Free disk", megabytes(each.free_disk)),
    cell("Left after", `${Math.round(each.share_left * 100)}%`)));
  return table("The first candidates, as they were before", ["Host", "Free memory", "Free CPU", "Free disk", "Left after"], rows);
}

function table(caption, heads, rows) {
  return el("table", { class: "inner", role: "table" }, el("caption", {}, caption),
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, heads.map((head) => el("th", { scope: "col", role: "columnheader" }, head)))),
    el("tbody", { role: "rowgroup" }, rows));
}

function cell(title, text) {
  return el("td", { role: "cell", "data-title": title }, text);
}

/** candidate_has_resources as "has resources"; what an operator has named otherwise as it is. */
function words(name) {
  return el("span", { title: name }, name.replace(/^candidate_/, "").replaceAll("_", " "));
}
