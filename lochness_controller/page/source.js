// How does the page come by its data? By GET from the controller that served it, with the token where one was given.
//
// 1. The token is in sessionStorage and in the Authorization header, nowhere else.
// 2. Every request has a limit; an answer that is no success becomes an error with the controller's own words.

import { learnClock } from "./format.js";

const TOKEN = "lochness.token";
const LIMIT_MS = 30000;

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }

  get isForToken() {
    return this.status === 401 || this.status === 403;
  }
}

export function token() {
  return sessionStorage.getItem(TOKEN) ?? "";
}

export function setToken(value) {
  if (value) sessionStorage.setItem(TOKEN, value);
  else sessionStorage.removeItem(TOKEN);
}

export function headers(more = {}) {
  return token() ? { ...more, Authorization: `Bearer ${token()}` } : more;
}

/** The JSON at `path`. Throws Refused for another answer than success, TypeError or DOMException for none. */
export async function read(path) {
  const answer = await fetch(path, { headers: headers({ Accept: "application/json" }), signal: AbortSignal.timeout(LIMIT_MS), cache: "no-cache" });
  learnClock(answer.headers.get("date"));
  if (!answer.ok) throw await refused(answer);
  return answer.json();
}

export async function refused(answer) {
  let message = `the controller answered ${answer.status}`;
  try {
    message = (await answer.json()).message || message;
  } catch {
    // Not the controller's own answer, a proxy's perhaps: the status says it.
  }
  return new Refused(answer.status, message);
}
