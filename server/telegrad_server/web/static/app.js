// The page: which part is shown, asked again every second while somebody looks, and what is told when nobody answers.

import { Refused, get, token } from "./api.js";
import { ask } from "./ask.js";
import { cluster } from "./cluster.js";
import { datasets } from "./datasets.js";
import { empty, h, say, show } from "./dom.js";
import { job } from "./job.js";
import { jobs } from "./jobs.js";
import { sessions } from "./sessions.js";

const PARTS = { jobs, cluster, sessions, datasets };
const SECONDS = 1;
const MOST_SECONDS = 15;

const main = document.getElementById("main");
const banner = document.getElementById("banner");
const who = document.getElementById("who");
const nav = document.getElementById("nav");

let hello = null;
let view = null;
let timer = 0;
let failures = 0;
let round = 0;

function put(node, title) {
  main.replaceChildren(node);
  document.title = `${title} · telegrad`;
}

function part() {
  const [name, ...rest] = location.hash.replace(/^#\/?/, "").split("/");
  return [PARTS[name] ? name : "jobs", rest.map(decodeURIComponent).join("/")];
}

function open() {
  view?.close?.();
  const [name, key] = part();
  for (const link of nav.children) {
    if (link.hash === `#/${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const context = { mayAct: hello.may_act, hasJobs: hello.has_jobs, ask, title: (text) => { document.title = `${text} · telegrad`; } };
  if (name === "jobs" && !hello.has_jobs) {
    view = null;
    put(h("section", { class: "page" }, h("div", { class: "head" }, h("h1", {}, "Jobs")), withoutJobs()), "Jobs");
    return;
  }
  view = name === "jobs" && key ? job(key, context) : PARTS[name](key, context);
  put(view.node, view.title);
  window.scrollTo(0, 0);
  tick();
}

function withoutJobs() {
  return empty("No jobs here", "This server was started without a folder to keep jobs in. Its operator can give one:", "telegrad-server --data-dir /var/lib/telegrad --web-host 127.0.0.1");
}

async function tick() {
  clearTimeout(timer);
  const mine = (round += 1);
  const shown = view;
  if (!shown) return;
  try {
    if (!document.hidden) await shown.refresh();
    failures = 0;
    show(banner, false);
  } catch (error) {
    if (mine !== round) return;
    if (error instanceof Refused && error.status === 401) return signIn(error.message);
    if (error instanceof Refused && error.status === 404) return put(h("section", { class: "page" }, empty("Not found", error.message)), "Not found");
    failures += 1;
    say(banner, error instanceof Refused ? error.message : "The server does not answer. What you see is what it said last; it is asked again by itself.");
    show(banner, true);
    if (!(error instanceof Refused || error instanceof TypeError || error.name === "TimeoutError")) console.error(error);
  }
  if (mine !== round) return;
  const seconds = failures ? Math.min(MOST_SECONDS, SECONDS * 2 ** failures) : (shown.seconds ?? SECONDS);
  timer = setTimeout(tick, 1000 * seconds);
}

function signIn(message) {
  view?.close?.();
  view = null;
  const isWrong = Boolean(token.get());
  token.forget();
  who.replaceChildren();
  const input = h("input", { type: "password", autocomplete: "off", spellcheck: "false", required: true, id: "token" });
  const form = h("form", { class: "sign" },
    h("h1", {}, "Who is looking?"),
    h("p", {}, "This server wants a token: the one your programs use, as in ", h("code", {}, "client.token"), ". It stays in this tab and is forgotten with it."),
    h("label", { for: "token" }, "Token"), input,
    isWrong ? h("p", { class: "wrong", role: "alert" }, message) : null,
    h("button", { type: "submit", class: "primary" }, "Look"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    token.set(input.value.trim());
    begin();
  });
  put(form, "Token");
  input.focus();
}

async function begin() {
  try {
    hello = await get("api/hello");
  } catch (error) {
    if (error instanceof Refused && error.status === 401) return signIn(error.message);
    say(banner, error instanceof Refused ? error.message : "The server does not answer. It is asked again by itself.");
    show(banner, true);
    setTimeout(begin, 3000);
    return;
  }
  show(banner, false);
  who.replaceChildren(
    h("span", { class: "tenant", title: `telegrad ${hello.version}, ${hello.role}` }, hello.tenant),
    hello.may_act ? "" : h("span", { class: "badge", title: "this token may only look" }, "read"),
    hello.wants_token ? h("button", { type: "button", class: "plain", onclick: () => { token.forget(); begin(); } }, "Forget token") : "");
  open();
}

addEventListener("hashchange", () => (hello ? open() : begin()));
document.addEventListener("visibilitychange", () => (document.hidden ? undefined : tick()));
begin();
