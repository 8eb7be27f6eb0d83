// Is what is shown the present, and if not, since when? Follows the stream, and reads the lists while there is none.
//
// 1. A break is told with its time, and ended by trying again: after WAIT_FIRST_MS, then doubled up to WAIT_MAX_MS.
// 2. While the stream is broken the lists are read every POLL_MS.
// 3. A tab that is hidden for HIDDEN_MS follows nothing and reads nothing; shown again it goes on where it was.
// 4. A refused token is told, and not sent again until there is another.

import { nowMs } from "./format.js";
import { Refused, token } from "./source.js";
import { follow } from "./stream.js";

const WAIT_FIRST_MS = 500;
const WAIT_MAX_MS = 10000;
const POLL_MS = 5000;
const HIDDEN_MS = 20000;

export class Connection {
  /** `tell(level, words)`; `take(event)` gets each event; `needToken()` when one is wanted. */
  constructor(cluster, { tell, take, needToken }) {
    Object.assign(this, { cluster, tell, take, needToken });
    this.last = null;
    this.brokenAtMs = null;
    this.tries = 0;
    this.stop = null;
    this.hiddenTimer = 0;
    this.poller = 0;
    this.wake = () => {};
    document.addEventListener("visibilitychange", () => this.seen());
  }

  /** Follow for ever. */
  async run() {
    for (;;) {
      if (document.hidden) await this.until(() => !document.hidden);
      this.stop = new AbortController();
      try {
        await follow(this.last, this.stop.signal, (event) => this.heard(event));
        if (!this.stop.signal.aborted) await this.broken(null);
      } catch (error) {
        if (!this.stop.signal.aborted) await this.broken(error);
      }
    }
  }

  /** The token is another one. */
  tokenChanged() {
    this.tries = 0;
    this.brokenAtMs = null;
    this.tell("idle", "connecting");
    this.stop?.abort();
    this.wake();
  }

  /** What the lists last said. */
  judged(failed) {
    if (this.brokenAtMs === null || this.isRefused) return;
    if (failed instanceof Refused && failed.isForToken) return;
    if (failed) this.tell("bad", `not reached since ${clock(this.brokenAtMs)}`);
    else this.tell("warn", `reconnecting since ${clock(this.brokenAtMs)}, read every ${POLL_MS / 1000} s`);
  }

  heard({ event, data, id }) {
    if (id) this.last = id;
    if (event === "ready") this.live();
    else if (event !== "alive") this.taken(data);
  }

  taken(data) {
    const told = JSON.parse(data);
    this.cluster.heard(told);
    this.take(told);
  }

  live() {
    clearInterval(this.poller);
    this.brokenAtMs = null;
    this.isRefused = false;
    this.tries = 0;
    this.tell("ok", "live");
    this.cluster.lookAtAll();
  }

  async broken(error) {
    if (error instanceof Refused && error.isForToken) {
      this.isRefused = true;
      clearInterval(this.poller);
      this.tell("bad", token() ? "token refused" : "a token is needed");
      this.needToken();
      const refused = token();
      await this.until(() => token() !== refused);
      return;
    }
    if (error instanceof Refused && (error.status === 410 || error.status === 400)) this.last = null;
    if (this.brokenAtMs === null) {
      this.brokenAtMs = nowMs();
      this.tell("warn", `reconnecting since ${clock(this.brokenAtMs)}`);
      this.cluster.lookAtAll();
      clearInterval(this.poller);
      this.poller = setInterval(() => document.hidden || this.cluster.lookAtAll(), POLL_MS);
    }
    const waitMs = Math.min(WAIT_MAX_MS, WAIT_FIRST_MS * 2 ** this.tries) * (0.75 + Math.random() / 2);
    this.tries = Math.min(this.tries + 1, 10);
    await this.until(() => true, waitMs);
  }

  seen() {
    clearTimeout(this.hiddenTimer);
    if (document.hidden) {
      this.hiddenTimer = setTimeout(() => this.stop?.abort(), HIDDEN_MS);
    } else {
      this.tries = 0;
      this.wake();
    }
  }

  /** Until something wakes us and `isSo()`, or after `limitMs`. */
  until(isSo, limitMs = null) {
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        this.wake = () => {};
        resolve();
      };
      const timer = limitMs === null ? 0 : setTimeout(end, limitMs);
      this.wake = () => isSo() && end();
    });
  }
}

function clock(ms) {
  return new Date(ms).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
}
