// How many more guests of each flavor fit, and what runs out first? By the controller's own reckoning.

import { el, mark, meter } from "./dom.js";
import { megabytes, named, nameOf } from "./format.js";
import { Table } from "./table.js";

const LIMITS = { cpu: "CPU", hypervisors: "no host may take one" };

export function capacityTable(section) {
  section.append(el("p", { class: "note" }, "Each flavor by itself, on any network: what one takes, no other has."));
  return new Table(section, {
    caption: "Capacity by flavor: what one guest takes, how many there are, how many more fit, and what runs out first",
    noun: "flavor",
    empty: "No flavor yet. lochness flavor create makes one.",
    key: ({ flavor }) => flavor.id,
    stamp: (item) => JSON.stringify(item),
    words: ({ flavor }) => [nameOf(flavor), flavor.id].join(" "),
    isWrong: ({ level }) => level === "warn",
    usual: ({ level, flavor }) => `${level === "warn" ? 0 : 1} ${nameOf(flavor)}`,
    columns: [
      { title: "Flavor", cell: ({ flavor }) => named(flavor), sort: ({ flavor }) => nameOf(flavor) },
      { title: "One takes", cell: ({ flavor }) => `${megabytes(flavor.memory)}, ${flavor.cpu} CPU, ${megabytes(flavor.disk)} disk`, sort: ({ flavor }) => flavor.memory },
      { title: "Guests now", cell: ({ guests }) => guests.toLocaleString("en"), sort: ({ guests }) => guests },
      { title: "More fit", cell: more, sort: ({ told }) => told?.guests ?? -1 },
      { title: "Runs out first", cell: ({ told }) => (told ? LIMITS[told.limited_by] ?? told.limited_by : "—"), sort: ({ told }) => told?.limited_by ?? "" },
      { title: "Hosts that take none", isWide: true, cell: ({ told }) => refused(told) },
    ],
  });
}

function more({ guests, told }) {
  if (!told) return el("span", { class: "none" }, "not known");
  if (!told.guests) return mark("warn", "none");
  return meter(guests, guests + told.guests, told.guests.toLocaleString("en"));
}

function refused(told) {
  const reasons = Object.entries(told?.refused ?? {});
  return reasons.length ? reasons.map(([reason, number]) => `${reason.replaceAll("_", " ")}: ${number.toLocaleString("en")}`).join(", ") : "—";
}

/** The rows: each flavor with its number of guests and what the controller told of it, if it has yet. Pure. */
export function capacityRows({ guests }, flavors, told) {
  const numbers = new Map();
  for (const { guest } of guests) numbers.set(guest.flavor, (numbers.get(guest.flavor) ?? 0) + 1);
  return [...flavors.values()].map((flavor) => {
    const known = told.get(flavor.id);
    // The revision is another one each time, and says nothing here.
    const shown = known && { guests: known.guests, limited_by: known.limited_by, refused: known.refused };
    return { flavor, guests: numbers.get(flavor.id) ?? 0, told: shown, level: known && !known.guests ? "warn" : "ok" };
  });
}
