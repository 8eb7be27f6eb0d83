// The page: its parts, and what tells which of them.

import { capacityRows, capacityTable } from "./capacity.js";
import { Cluster } from "./cluster.js";
import { Connection } from "./connection.js";
import { EventList } from "./events.js";
import { nameOf, tick } from "./format.js";
import { guestsTable } from "./guests.js";
import { hostsTable } from "./hosts.js";
import { jobsTable } from "./jobs.js";
import { judge } from "./judge.js";
import { setToken } from "./source.js";
import { Summary } from "./summary.js";

const RENDER_MS = 60;
const TICK_MS = 1000;

const part = (id) => document.getElementById(id);
let rendering = 0;

const cluster = new Cluster(() => { rendering ||= setTimeout(render, RENDER_MS); });
const tables = {
  hosts: hostsTable(part("hosts"), (host) => showOnly("guests", host.id)),
  guests: guestsTable(part("guests"), () => cluster.flavors, (guest, job) => {
    tables.jobs.open.add(job.id);
    showOnly("jobs", guest.id);
  }),
  jobs: jobsTable(part("jobs"), () => cluster.hosts),
  capacity: capacityTable(part("capacity")),
};
const events = new EventList(part("events"), cluster);
const summary = new Summary((section) => tables[section].showWrong());
const connection = new Connection(cluster, {
  tell: (level, words) => {
    const shown = part("connection");
    shown.dataset.level = level;
    if (shown.textContent !== words) shown.textContent = words;
  },
  take: (event) => events.take(event),
  needToken: () => {
    part("access").open = true;
    part("token").focus();
  },
});

function showOnly(section, text) {
  tables[section].showOnly(text);
  part(section).focus({ preventScroll: true });
  part(section).scrollIntoView();
}

function render() {
  rendering = 0;
  const judged = judge(cluster);
  connection.judged(cluster.failed);
  summary.show(judged, cluster.failed, cluster.isRead);
  if (!cluster.isRead) return;
  tables.hosts.show(judged.hosts);
  tables.guests.show(judged.guests);
  tables.jobs.show(judged.jobs);
  tables.capacity.show(capacityRows(judged, cluster.flavors, cluster.capacity));
  tick();
}

part("access-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken(part("token").value.trim());
  part("token").value = "";
  part("access").open = false;
  connection.tokenChanged();
});
part("forget").addEventListener("click", () => {
  setToken("");
  connection.tokenChanged();
});
setInterval(() => document.hidden || tick(), TICK_MS);
summary.show({ hosts: [], guests: [], jobs: [] }, null, false);
connection.run();
