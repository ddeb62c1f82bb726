// The list of jobs.

import { get, now } from "./api.js";
import { empty, h, list, s, say, show } from "./dom.js";
import { ago, duration, figure, plural, whole } from "./format.js";
import { makeSpark } from "./spark.js";

const GROUPS = {
  all: () => true,
  active: (job) => ["QUEUED", "STARTING", "RUNNING", "PAUSED"].includes(job.state),
  done: (job) => job.state === "SUCCEEDED",
  failed: (job) => ["FAILED", "CANCELLED"].includes(job.state),
};

const FIRST = `import telegrad as tg

with tg.connect("grpc://localhost:50051") as session:
    job = session.submit(train_step, data={"x": x, "y": y},
                         epochs=10, batch_size=64, name="first")`;

// A state as a word in its colour.
export function makeState() {
  const text = h("span");
  const node = h("span", { class: "state" }, h("i"), text);
  return {
    node,
    update(job) {
      node.dataset.state = job.state;
      say(text, job.state.toLowerCase());
    },
  };
}

// Seconds until the job's end at its present speed; null where there is none.
export function left(job) {
  if (job.state !== "RUNNING" || !(job.steps_per_second > 0)) return null;
  return Math.max(0, job.last_step - job.live_step) / job.steps_per_second;
}

export function epochOf(job) {
  const each = Math.max(1, job.steps_per_epoch);
  return { at: Math.min(Math.ceil(job.last_step / each), Math.floor(job.live_step / each) + (job.live_step >= job.last_step ? 0 : 1)), of: Math.ceil(job.last_step / each) };
}

function why(job) {
  if (job.state === "RUNNING") {
    const rest = left(job);
    const speed = job.steps_per_second > 0 ? `${figure(Number(job.steps_per_second.toPrecision(3)))} steps/s` : "begins";
    return rest === null ? speed : `${speed} · ${duration(rest)} left`;
  }
  if (job.state === "STARTING") return "reads its checkpoint";
  if (job.state === "QUEUED") return job.position ? `no. ${job.position} in line · ${job.message}` : job.message;
  if (job.state === "FAILED") return job.message || job.reason;
  if (job.state === "PAUSED") return { ASKED: "as you asked", STORAGE_FULL: "the disk is full; goes on by itself", STORAGE_AWAY: "a store does not answer; goes on by itself", NONFINITE: "a value was not finite" }[job.reason] ?? job.reason;
  return `after ${duration(job.changed_at - job.submitted_at)} · ${ago(now() - job.changed_at)}`;
}

function makeRow() {
  const name = h("a", { class: "name" });
  const id = h("span", { class: "id" });
  const state = makeState();
  const reason = h("span", { class: "why" });
  const bar = h("progress", { max: 1 });
  const steps = h("span", { class: "steps" });
  const spark = makeSpark();
  const value = h("span", { class: "value" });
  const node = h("li", { class: "row job-row" },
    h("div", { class: "who-cell" }, name, id),
    h("div", { class: "state-cell" }, state.node, reason),
    h("div", { class: "progress-cell" }, bar, steps),
    h("div", { class: "spark-cell" }, spark.node, value));
  return {
    node,
    update(job) {
      say(name, job.name);
      name.href = `#/jobs/${job.id}`;
      say(id, job.id.slice(0, 8));
      state.update(job);
      say(reason, why(job));
      reason.title = reason.textContent;
      const share = job.last_step ? job.live_step / job.last_step : 0;
      if (bar.value !== share) bar.value = share;
      bar.dataset.state = job.state;
      bar.setAttribute("aria-label", `${job.name}: ${Math.floor(share * 100)} %`);
      const epoch = epochOf(job);
      say(steps, `${whole(job.live_step)} / ${whole(job.last_step)} · epoch ${epoch.at} of ${epoch.of}`);
      spark.update(job.spark);
      const last = job.live_metrics.loss ?? job.spark.at(-1);
      say(value, last === undefined ? "" : figure(last));
    },
  };
}

export function jobs() {
  let group = "all";
  let known = null;
  const search = h("input", { type: "search", placeholder: "Find a job", "aria-label": "Find a job by name or id", oninput: draw });
  const tabs = Object.keys(GROUPS).map((name) => h("button", { type: "button", "aria-pressed": String(name === group), onclick: () => {
    group = name;
    for (const tab of tabs) tab.setAttribute("aria-pressed", String(tab.dataset.group === name));
    draw();
  }, "data-group": name }, name, h("span", { class: "count" })));
  const rows = h("ul", { class: "rows", "aria-label": "Jobs" });
  const count = h("p", { class: "lead" });
  const tools = h("div", { class: "tools" }, h("div", { class: "segments", role: "group", "aria-label": "Which jobs" }, tabs), search);
  const nothing = empty("No job yet", "A job is a training loop that this server runs by itself. Submit one, and its curve appears here:", FIRST);
  const none = h("p", { class: "quiet" }, "No job of this kind.");
  const node = h("section", { class: "page" }, h("div", { class: "head" }, h("h1", {}, "Jobs"), count), tools, rows, none, nothing);
  for (const part of [tools, rows, none, nothing]) part.hidden = true;

  function draw() {
    if (!known) return;
    const word = search.value.trim().toLowerCase();
    const found = known.jobs.filter((job) => GROUPS[group](job) && (!word || job.name.toLowerCase().includes(word) || job.id.startsWith(word)));
    for (const tab of tabs) say(tab.lastChild, String(known.jobs.filter(GROUPS[tab.dataset.group]).length));
    const isEmpty = known.jobs.length === 0;
    show(nothing, isEmpty);
    show(tools, !isEmpty);
    show(rows, found.length > 0);
    show(none, !isEmpty && found.length === 0);
    list(rows, found, { key: (job) => job.id, make: makeRow, update: (row, job) => row.update(job) });
    const running = known.jobs.filter((job) => job.state === "RUNNING").length;
    const queued = known.jobs.filter((job) => job.state === "QUEUED" || job.state === "STARTING").length;
    const more = known.total > known.jobs.length ? ` · the newest ${known.jobs.length} of ${whole(known.total)}` : "";
    say(count, isEmpty ? "" : `${running} running · ${queued} waiting · ${plural(known.jobs.length, "job")}${more}`);
  }

  return {
    node,
    title: "Jobs",
    async refresh() {
      known = await get("api/jobs");
      draw();
    },
  };
}
