// What does the page know of the cluster, and how does it stay true?
//
// 1. An event only says "look": what is shown is what the controller's own lists say, never put together here.
// 2. Few changes are read one by one, many by the whole list; a list is read again only after PAUSE_MS and PAUSE_RATIO
//    times what the last reading took, so that a large cluster is never read all the time.
// 3. A reading that fails leaves what was known as it was.

import { read, Refused } from "./source.js";

const SINGLE_MAX = 20;
const PAUSE_MS = 400;
const PAUSE_RATIO = 4;
// An event of these kinds may change how many guests fit.
const CAPACITY_KINDS = new Set(["hypervisor", "flavor", "network", "subnet"]);
const JOBS_MAX = 500;

export const KINDS = {
  hypervisor: { path: "hypervisors" },
  guest: { path: "guests" },
  job: { path: "jobs", query: `?limit=${JOBS_MAX}`, most: JOBS_MAX },
  flavor: { path: "flavors" },
  network: { path: "networks" },
  // Reckoned anew at each asking, over the whole cluster: seldom, and nothing waits for it.
  capacity: { path: "capacity", id: "flavor", isWholeOnly: true, pauseMs: 5000, isExtra: true },
};

class Kind {
  constructor(name, changed) {
    this.name = name;
    this.records = new Map();
    this.isRead = false;
    this.changed = changed;
    this.ids = new Set();
    this.isWhole = false;
    this.isReading = false;
    this.quietUntilMs = 0;
    this.timer = 0;
    this.failed = null;
  }

  /** What there is of this kind has changed: that one, or ("") any. */
  look(id = "") {
    if (id && !KINDS[this.name].isWholeOnly) this.ids.add(id);
    else this.isWhole = true;
    if (this.ids.size > SINGLE_MAX) this.isWhole = true;
    if (!this.timer && !this.isReading) {
      const waitMs = this.isWhole ? Math.max(PAUSE_MS / 4, this.quietUntilMs - performance.now()) : PAUSE_MS / 4;
      this.timer = setTimeout(() => this.now(), waitMs);
    }
  }

  async now() {
    clearTimeout(this.timer);
    this.timer = 0;
    if (this.isReading) return;
    this.isReading = true;
    const isWhole = this.isWhole;
    const ids = [...this.ids];
    this.isWhole = false;
    this.ids.clear();
    try {
      if (isWhole) await this.readAll();
      else await Promise.all(ids.map((id) => this.readOne(id)));
      this.failed = null;
    } catch (error) {
      this.failed = error;
    } finally {
      this.isReading = false;
    }
    this.changed(this);
    if (this.isWhole || this.ids.size) this.look();
  }

  async readAll() {
    const { path, query = "", id = "id", pauseMs = PAUSE_MS } = KINDS[this.name];
    const beganMs = performance.now();
    const records = await read(path + query);
    this.records = new Map(records.map((record) => [record[id], record]));
    this.isRead = true;
    const tookMs = performance.now() - beganMs;
    this.quietUntilMs = performance.now() + pauseMs + PAUSE_RATIO * tookMs;
  }

  async readOne(id) {
    const { path, most = Infinity } = KINDS[this.name];
    try {
      const record = await read(`${path}/${encodeURIComponent(id)}`);
      // The newest come first, as in the list.
      if (this.name === "job" && !this.records.has(id)) this.records = new Map([[id, record], ...this.records]);
      else this.records.set(id, record);
      for (const oldest of [...this.records.keys()].slice(most)) this.records.delete(oldest);
    } catch (error) {
      if (!(error instanceof Refused) || error.status !== 404) throw error;
      this.records.delete(id);
    }
  }
}

export class Cluster {
  /** `changed(kind)` is called after each reading, whether it succeeded or not. */
  constructor(changed) {
    this.kinds = Object.fromEntries(Object.keys(KINDS).map((name) => [name, new Kind(name, changed)]));
  }

  get hosts() { return this.kinds.hypervisor.records; }
  get guests() { return this.kinds.guest.records; }
  get jobs() { return this.kinds.job.records; }
  get flavors() { return this.kinds.flavor.records; }
  get networks() { return this.kinds.network.records; }
  get capacity() { return this.kinds.capacity.records; }

  get needed() {
    return Object.values(this.kinds).filter((kind) => !KINDS[kind.name].isExtra);
  }

  get isRead() {
    return this.needed.every((kind) => kind.isRead);
  }

  get failed() {
    return this.needed.map((kind) => kind.failed).find((error) => error) ?? null;
  }

  lookAtAll() {
    for (const kind of Object.values(this.kinds)) kind.look();
  }

  /** An event of the stream has come. */
  heard({ kind, id, part }) {
    this.kinds[kind]?.look(id);
    if (CAPACITY_KINDS.has(kind)) this.kinds.capacity.look();
    // Whether a host lives decides on what is known of its guests.
    if (kind === "hypervisor" && (part === "heartbeat" || part === "lost")) this.kinds.guest.look();
  }
}
