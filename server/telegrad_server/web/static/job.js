// One job: how it stands, its curves, its checkpoints, and what has happened to it.

import { acts } from "./acts.js";
import { get, now } from "./api.js";
import { Chart } from "./chart.js";
import { h, list, say, show } from "./dom.js";
import { ago, clock, duration, figure, plural, whole } from "./format.js";
import { epochOf, left, makeState } from "./jobs.js";

const MOST_ROUNDS = 40; // requests for metrics in one refresh, of 10,000 rows each
const MOST_TAIL = 4000;
const SMOOTH = { off: 0, some: 0.85, more: 0.97 };

// What an event means, in words; the rest of its details follow as they are.
const WORDS = {
  Submitted: (d) => ["Submitted", `${whole(d.last_step - (d.first_step || 0))} steps to do`],
  Assigned: (d) => ["Given to a worker", `${d.worker === "here" ? "this server" : d.worker}, assignment ${d.assignment}`],
  Started: (d) => ["Running", `from step ${whole(d.step || 0)}${d.message ? `: ${d.message}` : ""}`],
  PauseAsked: () => ["Asked to pause", "at the next checkpoint"],
  ResumeAsked: () => ["Asked to go on", ""],
  CancelAsked: () => ["Asked to end", ""],
  Extended: (d) => ["Extended", `to step ${whole(d.last_step)}`],
  Rewound: (d) => ["Rewound", `to step ${whole(d.step || 0)}`],
  NumericsChanged: (d) => ["Other numerics", `${d.old} → ${d.new}`],
  Lost: (d) => ["Lost its worker", `${{ WORKER_LOST: "the worker is gone", WORKER_OOM: "out of memory", DRAINED: "the worker was stopped", WORKER_FULL: "the worker had no place, it is tried again" }[d.why] ?? d.why}${d.message ? `: ${d.message}` : ""}`],
  Continued: () => ["Goes on", "it was extended or resumed meanwhile"],
  StorageBack: () => ["Tried again", "what it waited for may be there"],
  Paused: (d) => ["Paused", `${{ ASKED: "as asked", STORAGE_FULL: "the disk is full", STORAGE_AWAY: "a store does not answer", NONFINITE: "a value was not finite" }[d.why] ?? d.why}${d.message ? `: ${d.message}` : ""}`],
  Cancelled: () => ["Cancelled", "as asked"],
  Failed: (d) => ["Failed", `${d.reason}: ${d.message ?? ""}`],
  Succeeded: (d) => ["Succeeded", `at step ${whole(d.step)}${d.is_early === "True" ? ", stopped early" : ""}`],
};

const TONES = { Failed: "bad", Lost: "warn", NumericsChanged: "warn", Succeeded: "good", Paused: "warn", Started: "go", Cancelled: "off" };

// Checkpoints in a row are one line.
function lines(events) {
  const found = [];
  for (const event of events) {
    const step = Number(event.details.step ?? 0);
    const last = found.at(-1);
    if (event.kind === "Progressed" && last?.kind === "Progressed") {
      Object.assign(last, { at: event.at, to: step, count: last.count + 1 });
    } else if (event.kind === "Progressed") {
      found.push({ key: event.number, kind: "Progressed", at: event.at, from: step, to: step, count: 1 });
    } else {
      const [title, text] = (WORDS[event.kind] ?? (() => [event.kind, ""]))(event.details);
      found.push({ key: event.number, kind: event.kind, at: event.at, title, text, line: event.details.line });
    }
  }
  return found.reverse();
}

function makeEvent(item) {
  const title = h("b");
  const text = h("span", { class: "text" });
  const time = h("time");
  const code = h("code", { hidden: true });
  const node = h("li", { "data-tone": TONES[item.kind] ?? "" }, h("div", {}, title, " ", text, code), time);
  return {
    node,
    update(event) {
      if (event.kind === "Progressed") {
        say(title, event.count > 1 ? `${whole(event.count)} checkpoints` : "Checkpoint");
        say(text, event.count > 1 ? `of steps ${whole(event.from)} to ${whole(event.to)}` : `of step ${whole(event.to)}`);
      } else {
        say(title, event.title);
        say(text, event.text);
      }
      if (event.line) {
        say(code, event.line);
        code.hidden = false;
      }
      say(time, clock(event.at));
    },
  };
}

// What metrics have so far, by name, and what is ahead of the last checkpoint as far as this page saw it.
class Curves {
  constructor() {
    this.clear();
  }

  clear() {
    this.byName = new Map();
    this.through = -1;
  }

  of(name) {
    let found = this.byName.get(name);
    if (!found) {
      found = { name, slot: 0, steps: [], values: [], tail: { steps: [], values: [] } };
      this.byName.set(name, found);
    }
    return found;
  }

  add(series) {
    for (const [name, columns] of Object.entries(series)) {
      const curve = this.of(name);
      for (let i = 0; i < columns.step.length; i += 1) {
        curve.steps.push(columns.step[i]);
        curve.values.push(Number(columns.value[i]));
      }
      this.through = Math.max(this.through, columns.step.at(-1));
    }
  }

  live(step, values) {
    for (const [name, value] of Object.entries(values)) {
      const { steps, tail } = this.of(name);
      if (step > (steps.at(-1) ?? -1) && step > (tail.steps.at(-1) ?? -1)) {
        tail.steps.push(step);
        tail.values.push(Number(value));
      }
    }
    for (const { steps, tail } of this.byName.values()) {
      const covered = Math.max(this.through, steps.at(-1) ?? -1);
      let gone = 0;
      while (gone < tail.steps.length && tail.steps[gone] <= covered) gone += 1;
      gone = Math.max(gone, tail.steps.length - MOST_TAIL);
      tail.steps.splice(0, gone);
      tail.values.splice(0, gone);
    }
  }
}

// Metrics that measure the same thing share a chart: loss, epoch/loss and val/loss.
function topic(name) {
  return name.split("/").at(-1);
}

function makePanel(shared) {
  const title = h("h3");
  const keys = h("div", { class: "keys", role: "group", "aria-label": "Curves" });
  const log = h("button", { type: "button", "aria-pressed": "false" }, "log");
  const hidden = new Set();
  const chart = new Chart("", shared);
  const node = h("div", { class: "panel" }, h("div", { class: "panel-head" }, title, keys, log), chart.node);
  let all = [];
  log.addEventListener("click", () => {
    chart.isLog = !chart.isLog;
    log.setAttribute("aria-pressed", String(chart.isLog));
    chart.draw();
  });
  function choose() {
    chart.series = all.filter((one) => !hidden.has(one.name));
    chart.draw();
  }
  return {
    node,
    chart,
    update({ name, curves, marks, smoothing }) {
      all = curves;
      say(title, name);
      chart.title = `Chart of ${name}`;
      chart.marks = marks;
      chart.smoothing = smoothing;
      show(log, curves.some((one) => one.values.some((value) => value > 0)));
      list(keys, curves, {
        key: (one) => one.name,
        make: (one) => {
          const value = h("output");
          const node = h("button", { type: "button", class: "chip", "aria-pressed": "true", onclick: () => {
            if (hidden.has(one.name)) hidden.delete(one.name);
            else hidden.add(one.name);
            node.setAttribute("aria-pressed", String(!hidden.has(one.name)));
            choose();
          } }, h("i", { class: `key slot-${one.slot}` }), h("span", {}, one.name), value);
          return { node, value };
        },
        update: (entry, one) => say(entry.value, figure(one.tail.values.at(-1) ?? one.values.at(-1) ?? NaN)),
      });
      choose();
    },
  };
}

function makeFact(name) {
  const label = h("dt", {}, name);
  const value = h("dd");
  return {
    node: h("div", {}, label, value),
    set: (text, other = name) => {
      say(label, other);
      say(value, text);
    },
  };
}

const ENDED = ["SUCCEEDED", "FAILED", "CANCELLED"];

export function job(key, context) {
  const shared = { step: null, changed: () => panels.forEach((panel) => panel.chart.drawCross()) };
  const panels = [];
  const curves = new Curves();
  const events = [];
  let smooth = null;
  let known = null;
  let checkpoints = [];

  const name = h("h1");
  const state = makeState();
  const id = h("code", { class: "id" });
  const notice = h("div", { class: "notice", role: "status", hidden: true });
  const facts = Object.fromEntries(["Step", "Epoch", "Speed", "Left", "Restarts", "Submitted"].map((label) => [label, makeFact(label)]));
  const fill = h("div", { class: "fill" });
  const points = h("div", { class: "points" });
  const track = h("div", { class: "track", role: "progressbar", "aria-label": "Progress", "aria-valuemin": "0" }, fill, points);
  const smoothers = Object.keys(SMOOTH).map((word) => h("button", { type: "button", "data-word": word, onclick: () => { smooth = word; draw(); } }, word));
  const tools = h("div", { class: "segments small", role: "group", "aria-label": "Smoothing" }, h("span", {}, "smoothing"), smoothers);
  const charts = h("div", { class: "charts" });
  const waiting = h("p", { class: "quiet" });
  const history = h("ol", { class: "events" });
  const kept = h("p", { class: "kept" });
  const code = h("pre", {}, h("code"));
  const buttons = acts({ context, known: () => known, checkpoints: () => checkpoints, refresh });
  const node = h("section", { class: "page" },
    h("p", { class: "crumb" }, h("a", { href: "#/jobs" }, "Jobs"), " / ", id),
    h("div", { class: "head" }, h("div", { class: "titled" }, name, state.node), buttons.node),
    notice, buttons.refusal, track,
    h("dl", { class: "facts" }, Object.values(facts).map((fact) => fact.node)),
    h("div", { class: "section-head" }, h("h2", {}, "Curves"), tools), waiting, charts,
    h("div", { class: "columns" },
      h("section", {}, h("h2", {}, "History"), history),
      h("section", {}, h("h2", {}, "Checkpoints"), kept, h("h2", {}, "In Python"), code)));

  async function refresh() {
    let news;
    do {
      const after = events.at(-1)?.number ?? 0;
      news = await get(`api/jobs/${encodeURIComponent(key)}?after=${after}`);
      if (news.events.some((event) => event.kind === "Rewound")) curves.clear();
      events.push(...news.events.filter((event) => event.number > after));
    } while (news.more);
    known = news.job;
    for (let round = 0; round < MOST_ROUNDS && known.step > curves.through; round += 1) {
      const found = await get(`api/jobs/${encodeURIComponent(known.id)}/metrics?after_step=${curves.through}`);
      curves.add(found.series);
      if (!found.more) break;
      draw(news.checkpoints);
    }
    if (known.state === "RUNNING") curves.live(known.live_step, known.live_metrics);
    else curves.live(Infinity, {});
    context.title(known.name);
    draw(news.checkpoints);
  }

  function draw(newest = checkpoints) {
    checkpoints = newest;
    if (!known) return;
    say(name, known.name);
    say(id, known.id);
    state.update(known);
    const rest = left(known);
    const epoch = epochOf(known);
    facts.Step.set(`${whole(known.live_step)} of ${whole(known.last_step)}`);
    facts.Epoch.set(`${epoch.at} of ${epoch.of}`);
    if (ENDED.includes(known.state)) facts.Speed.set(duration(known.changed_at - known.submitted_at), "Took");
    else facts.Speed.set(known.state === "RUNNING" && known.steps_per_second > 0 ? `${figure(Number(known.steps_per_second.toPrecision(3)))} steps/s` : "–");
    const hasEnded = ENDED.includes(known.state);
    if (hasEnded) facts.Left.set(ago(now() - known.changed_at), "Ended");
    else facts.Left.set(rest === null ? "–" : duration(rest));
    facts.Restarts.set(whole(known.restarts));
    facts.Submitted.set(`${ago(now() - known.submitted_at)}`);
    facts.Submitted.node.title = clock(known.submitted_at);
    tell();
    const share = known.last_step ? known.live_step / known.last_step : 0;
    fill.style.width = `${(100 * share).toFixed(2)}%`;
    track.dataset.state = known.state;
    track.setAttribute("aria-valuemax", known.last_step);
    track.setAttribute("aria-valuenow", known.live_step);
    list(points, checkpoints.filter((step) => step > 0), {
      key: (step) => step,
      make: (step) => ({ node: h("i", { title: `checkpoint of step ${whole(step)}` }) }),
      update: (entry, step) => { entry.node.style.left = `${(100 * Math.min(1, step / known.last_step)).toFixed(2)}%`; },
    });
    say(kept, checkpoints.length ? `${plural(checkpoints.length, "checkpoint")} kept, of step${checkpoints.length > 1 ? "s" : ""} ${checkpoints.map(whole).join(", ")}.` : "None yet.");
    say(code.firstChild, `job = session.jobs["${known.name}"]\njob.history["loss"]["value"]\njob.load_state(model, optimizer)`);
    const marks = events.filter((event) => event.kind === "Started" && Number(event.details.assignment) > 1).map((event) => ({ step: Number(event.details.step ?? 0), text: `began again at step ${event.details.step ?? 0}` }));
    drawCurves(marks);
    list(history, lines(events), { key: (event) => event.key, make: makeEvent, update: (entry, event) => entry.update(event) });
    buttons.update();
  }

  function tell() {
    let text = "";
    let tone = "";
    let line = "";
    if (known.state === "FAILED") [text, tone, line] = [`${known.reason}: ${known.message}`, "bad", known.line];
    else if (known.state === "QUEUED") text = `${known.position ? `No. ${known.position} in line: ` : ""}${known.message}`;
    else if (known.state === "PAUSED") [text, tone] = [known.message || { ASKED: "Paused as asked. It goes on from its last checkpoint.", STORAGE_FULL: "The disk is full. It goes on by itself when there is room.", STORAGE_AWAY: "A store does not answer. It goes on by itself when it does." }[known.reason] || known.reason, "warn"];
    else if (known.message) text = known.message;
    if (notice.dataset.text !== text + line) {
      notice.dataset.text = text + line;
      notice.dataset.tone = tone;
      notice.replaceChildren(h("p", {}, text), line ? h("code", {}, line) : "");
    }
    show(notice, Boolean(text));
  }

  function drawCurves(marks) {
    const all = [...curves.byName.values()].filter((one) => one.steps.length || one.tail.steps.length);
    const most = Math.max(0, ...all.map((one) => one.steps.length));
    const word = smooth ?? (most > 150 ? "some" : "off");
    for (const button of smoothers) button.setAttribute("aria-pressed", String(button.dataset.word === word));
    const topics = new Map();
    for (const one of all) topics.set(topic(one.name), [...(topics.get(topic(one.name)) ?? []), one]);
    for (const members of topics.values()) {
      members.sort((a, b) => a.name.length - b.name.length || a.name.localeCompare(b.name));
      members.forEach((one, i) => { one.slot = i % 8; });
    }
    const items = [...topics].map(([title, members]) => ({ name: title, curves: members, marks, smoothing: SMOOTH[word] }));
    items.sort((a, b) => (b.name === "loss") - (a.name === "loss"));
    show(waiting, items.length === 0);
    say(waiting, ENDED.includes(known.state) ? "No value was recorded: it ended before its first checkpoint." : "No values yet. They come with the first step, and stay from the first checkpoint on.");
    show(tools, most > 30);
    list(charts, items, {
      key: (item) => item.name,
      make: () => {
        const panel = makePanel(shared);
        panels.push(panel);
        return panel;
      },
      update: (panel, item) => panel.update(item),
    });
    charts.dataset.count = items.length;
  }

  return { node, title: "Job", refresh, close: () => panels.forEach((panel) => panel.chart.close()) };
}
