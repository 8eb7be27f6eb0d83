// What is wrong? Pure: from records to a level (ok, idle, warn, bad), a word, and the cluster's problems in order.

export function hostState(host) {
  if (host.alive) return host.cordoned ? { level: "warn", word: "cordoned" } : { level: "ok", word: "alive" };
  return { level: "bad", word: host.lost_since ? "lost" : "not alive" };
}

const WORDS = { shutting_down: "shutting down" };
const WANTED = { running: "running", stopped: "stopped", paused: "paused" };

/** `job`: the guest's newest, if any. */
export function guestState(guest, host, job) {
  const state = guest.status?.state ?? "unknown";
  const isBusy = job && (job.status === "new" || job.status === "working");
  if (!guest.hypervisor) {
    if (isBusy) return { level: "idle", word: "being placed" };
    return { level: "bad", word: "not placed" };
  }
  if (host && !host.alive) return { level: "bad", word: "unknown", why: "its host is not alive" };
  if (isBusy && job.request === "create") return { level: "idle", word: "being created" };
  if (isBusy && job.request === "delete") return { level: "idle", word: "being deleted" };
  const why = guest.status?.reason || "";
  if (state === "crashed" || state === "missing") return { level: "bad", word: state, why };
  if (state === "unknown") return { level: "warn", word: "unknown", why };
  if (state === guest.power) return { level: state === "running" ? "ok" : "idle", word: state, why };
  const wanted = isBusy ? "" : `should be ${WANTED[guest.power] ?? guest.power}`;
  return { level: isBusy ? "idle" : "warn", word: WORDS[state] ?? state, why: wanted || why };
}

const JOB_LEVELS = { new: "idle", working: "idle", done: "ok", error: "bad" };
const JOB_WORDS = { new: "waiting", working: "working", done: "done", error: "failed" };

export function jobState(job) {
  if (job.status === "working" && job.error) return { level: "warn", word: "being undone" };
  return { level: JOB_LEVELS[job.status] ?? "idle", word: JOB_WORDS[job.status] ?? job.status };
}

/** Of each guest its newest job; jobs come newest first. */
export function newestJobs(jobs) {
  const newest = new Map();
  for (const job of jobs) if (!newest.has(job.guest)) newest.set(job.guest, job);
  return newest;
}

/** Everything that the tables and the summary show of the cluster, judged once per change. */
export function judge(cluster) {
  const newest = newestJobs(cluster.jobs.values());
  const hosts = [...cluster.hosts.values()].map((host) => ({ host, guests: 0, ...hostState(host) }));
  const byId = new Map(hosts.map((each) => [each.host.id, each]));
  const guests = [...cluster.guests.values()].map((guest) => {
    const host = byId.get(guest.hypervisor);
    if (host) host.guests += 1;
    return { guest, host: host?.host, job: newest.get(guest.id), ...guestState(guest, host?.host, newest.get(guest.id)) };
  });
  const jobs = [...cluster.jobs.values()].map((job) => ({ job, guest: cluster.guests.get(job.guest), isNewest: newest.get(job.guest) === job, ...jobState(job) }));
  return { hosts, guests, jobs };
}

/** What a person should look at, the worst first: `{level, text, section, names}`. `names` are of the first few. */
export function problems({ hosts, guests, jobs }, nameOf) {
  const found = [];
  const add = (level, list, section, one, many, name) => {
    if (list.length) found.push({ level, section, text: list.length === 1 ? one : `${list.length.toLocaleString("en")} ${many}`, names: list.slice(0, 5).map(name), more: Math.max(0, list.length - 5) });
  };
  const hostName = (each) => nameOf(each.host);
  const guestName = (each) => nameOf(each.guest);
  const bad = (word) => guests.filter((each) => each.level === "bad" && each.word === word);
  add("bad", hosts.filter((each) => each.level === "bad"), "hosts", "1 host is not alive", "hosts are not alive", hostName);
  add("bad", bad("crashed"), "guests", "1 guest has crashed", "guests have crashed", guestName);
  add("bad", bad("missing"), "guests", "1 guest is missing on its host", "guests are missing on their hosts", guestName);
  add("bad", bad("not placed"), "guests", "1 guest has no place", "guests have no place", guestName);
  add("bad", bad("unknown"), "guests", "1 guest is on a host that is not alive", "guests are on hosts that are not alive", guestName);
  // Of a guest without a place the line above tells already, and its job says why.
  const failed = jobs.filter((each) => each.job.status === "error" && each.isNewest && each.guest && each.guest.hypervisor);
  add("bad", failed, "jobs", "1 guest's last job has failed", "guests' last jobs have failed", (each) => nameOf(each.guest));
  const warned = guests.filter((each) => each.level === "warn");
  add("warn", warned.filter((each) => each.word !== "unknown"), "guests", "1 guest is not as it should be", "guests are not as they should be", guestName);
  add("warn", warned.filter((each) => each.word === "unknown"), "guests", "1 guest's state is not known", "guests' states are not known", guestName);
  add("warn", hosts.filter((each) => each.word === "cordoned"), "hosts", "1 host takes no new guests (cordoned)", "hosts take no new guests (cordoned)", hostName);
  return found;
}
