// What the server says. The token is kept for this tab alone, and sent in a header: no cookie, so no page from elsewhere acts here.

const KEY = "telegrad-token";
const known = new Map(); // path -> {tag, data}
let skew = 0; // seconds by which the server's clock is before ours

export class Refused extends Error {
  constructor(status, reason, message) {
    super(message);
    this.status = status;
    this.reason = reason;
  }
}

export const token = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (text) => sessionStorage.setItem(KEY, text),
  forget: () => {
    sessionStorage.removeItem(KEY);
    known.clear();
  },
};

// Now, in the server's seconds since 1970.
export function now() {
  return Date.now() / 1000 + skew;
}

async function ask(path, options) {
  const headers = { ...options.headers };
  if (token.get()) headers.Authorization = `Bearer ${token.get()}`;
  const response = await fetch(path, { cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(15000), ...options, headers });
  const date = Date.parse(response.headers.get("Date") ?? "");
  if (!Number.isNaN(date) && Math.abs(date / 1000 + 0.5 - now()) > 2) skew = date / 1000 + 0.5 - Date.now() / 1000;
  if (response.status === 304 || response.ok) return response;
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    // not ours: what stands in between answered
  }
  throw new Refused(response.status, error.reason ?? "", error.message ?? `the server answered with status ${response.status}`);
}

// What stands at a path; what is known already is not sent again.
export async function get(path) {
  const before = known.get(path);
  const response = await ask(path, { headers: before ? { "If-None-Match": before.tag } : {} });
  if (response.status === 304) return before.data;
  const data = await response.json();
  known.delete(path);
  known.set(path, { tag: response.headers.get("ETag"), data });
  if (known.size > 32) known.delete(known.keys().next().value);
  return data;
}

export async function post(path) {
  return (await ask(path, { method: "POST", headers: { "X-Telegrad": "page" } })).json();
}
