// Curves over steps: axes, a scale that may be logarithmic, a reading under the pointer or the arrow keys.
//
// Of many points in one column of pixels the lowest and the highest are drawn, so a curve costs what its width costs.

import { h, s, say } from "./dom.js";
import { figure, whole } from "./format.js";

const LEFT = 56;
const RIGHT = 14;
const TOP = 10;
const BOTTOM = 26;
const SMOOTHED = 50; // curves of fewer values, as one for each epoch, are drawn as they are

// Round numbers from low to high, about `most` of them.
export function ticks(low, high, most) {
  const raw = (high - low) / Math.max(1, most);
  const power = 10 ** Math.floor(Math.log10(raw));
  const each = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= raw * 0.999);
  const found = [];
  for (let i = Math.ceil(low / each - 1e-9); i * each <= high + each * 1e-9; i += 1) found.push(Number((i * each).toPrecision(12)));
  return found;
}

export function logTicks(low, high) {
  const first = Math.floor(Math.log10(low));
  const last = Math.ceil(Math.log10(high));
  const factors = last - first > 4 ? [1] : last - first > 2 ? [1, 3] : [1, 2, 5];
  const found = [];
  for (let power = first; power <= last; power += 1) {
    for (const factor of factors) {
      const value = Number((factor * 10 ** power).toPrecision(3));
      if (value >= low * 0.999 && value <= high * 1.001) found.push(value);
    }
  }
  return found.length > 1 ? found : ticks(low, high, 4);
}

// The index of the first step that is not before `step`.
function place(steps, step) {
  let low = 0;
  let high = steps.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (steps[middle] < step) low = middle + 1;
    else high = middle;
  }
  return low;
}

function smoothed(values, weight) {
  const found = new Array(values.length);
  let mean = 0;
  let norm = 0;
  for (let i = 0; i < values.length; i += 1) {
    if (!Number.isFinite(values[i])) {
      found[i] = NaN;
      continue;
    }
    mean = weight * mean + (1 - weight) * values[i];
    norm = weight * norm + (1 - weight);
    found[i] = mean / norm;
  }
  return found;
}

// A path through points, thinned to the pixels; what is not finite is a gap.
function path(steps, values, toX, toY) {
  let text = "";
  let column = -1;
  let low = null;
  let high = null;
  let isPen = false;
  const put = (x, y) => {
    text += `${isPen ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
    isPen = true;
  };
  const flush = () => {
    if (low === null) return;
    const [first, second] = low[2] <= high[2] ? [low, high] : [high, low];
    put(first[0], first[1]);
    if (second !== first) put(second[0], second[1]);
    low = high = null;
  };
  for (let i = 0; i < steps.length; i += 1) {
    const y = toY(values[i]);
    if (!Number.isFinite(y)) {
      flush();
      isPen = false;
      continue;
    }
    const x = toX(steps[i]);
    if (Math.floor(x) !== column) flush();
    column = Math.floor(x);
    if (low === null || y < low[1]) low = [x, y, i];
    if (high === null || y > high[1]) high = [x, y, i];
  }
  flush();
  return text;
}

export class Chart {
  // `shared.step` is the step under the pointer in any chart of the page; `shared.changed` redraws them all.
  constructor(title, shared) {
    this.title = title;
    this.shared = shared;
    this.series = []; // {name, slot, steps, values, tail: {steps, values}}; the slot is its colour
    this.marks = []; // {step, text}
    this.isLog = false;
    this.smoothing = 0;
    this.last = 1;
    this.axes = s("g", { class: "axes" });
    this.curves = s("g", { class: "curves" });
    this.cross = s("g", { class: "cross" });
    this.svg = s("svg", { class: "plot", role: "img", tabindex: "0" }, this.axes, this.curves, this.cross);
    this.reading = h("div", { class: "reading" });
    this.spoken = h("p", { class: "unseen", "aria-live": "polite" });
    this.node = h("div", { class: "chart" }, this.svg, this.reading, this.spoken);
    this.svg.addEventListener("pointermove", (event) => this.point(event.clientX));
    this.svg.addEventListener("pointerleave", () => this.move(null));
    this.svg.addEventListener("blur", () => this.move(null));
    this.svg.addEventListener("keydown", (event) => this.key(event));
    this.watcher = new ResizeObserver(() => this.draw());
    this.watcher.observe(this.node);
  }

  close() {
    this.watcher.disconnect();
  }

  point(clientX) {
    const box = this.svg.getBoundingClientRect();
    const share = (clientX - box.left - LEFT) / Math.max(1, box.width - LEFT - RIGHT);
    this.move(this.first + Math.min(1, Math.max(0, share)) * (this.last - this.first));
  }

  key(event) {
    const all = this.series.find((one) => one.steps.length)?.steps;
    if (!all) return;
    let at = this.shared.step === null ? all.length - 1 : place(all, this.shared.step);
    const stride = Math.max(1, Math.round(all.length / 100));
    if (event.key === "ArrowLeft") at -= stride;
    else if (event.key === "ArrowRight") at += stride;
    else if (event.key === "Home") at = 0;
    else if (event.key === "End") at = all.length - 1;
    else if (event.key === "Escape") return this.move(null);
    else return;
    event.preventDefault();
    this.move(all[Math.min(all.length - 1, Math.max(0, at))]);
    say(this.spoken, this.words());
  }

  move(step) {
    this.shared.step = step;
    this.shared.changed();
  }

  words() {
    return this.read().map(({ one, step, value }) => `${one.name} at step ${step}: ${figure(value)}`).join(", ");
  }

  // What is nearest to the step under the pointer, of each curve.
  read() {
    if (this.shared.step === null) return [];
    const found = [];
    for (const one of this.series) {
      const steps = one.tail.steps.length && this.shared.step > (one.steps.at(-1) ?? -1) ? one.tail.steps : one.steps;
      const values = steps === one.steps ? one.values : one.tail.values;
      if (!steps.length) continue;
      let at = Math.min(steps.length - 1, place(steps, this.shared.step));
      if (at > 0 && this.shared.step - steps[at - 1] < steps[at] - this.shared.step) at -= 1;
      found.push({ one, step: steps[at], value: values[at] });
    }
    return found;
  }

  draw() {
    const width = Math.round(this.node.clientWidth);
    const height = Math.round(this.node.clientHeight);
    if (width < 80 || height < 60) return;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.width = width;
    this.height = height;
    this.first = Math.min(0, ...this.series.map((one) => one.steps[0] ?? 0));
    this.last = Math.max(1, ...this.series.map((one) => Math.max(one.steps.at(-1) ?? 1, one.tail.steps.at(-1) ?? 1)));
    const drawn = this.series.map((one) => (this.smoothing && one.values.length >= SMOOTHED ? smoothed(one.values, this.smoothing) : null));
    this.scale(drawn);
    this.drawAxes();
    this.drawCurves(drawn);
    this.drawCross();
    const total = this.series.reduce((sum, one) => sum + one.steps.length, 0);
    const lasts = this.series.filter((one) => one.values.length).map((one) => `${one.name} ${figure(one.values.at(-1))} at step ${one.steps.at(-1)}`);
    this.svg.setAttribute("aria-label", `${this.title}, ${total} values. Last: ${lasts.join(", ") || "none yet"}. Arrow keys read the curves.`);
  }

  scale() {
    let low = Infinity;
    let high = -Infinity;
    const see = (value) => {
      if (!Number.isFinite(value) || (this.isLog && value <= 0)) return;
      if (value < low) low = value;
      if (value > high) high = value;
    };
    for (const one of this.series) {
      one.values.forEach(see);
      one.tail.values.forEach(see);
    }
    if (low > high) [low, high] = this.isLog ? [0.1, 1] : [0, 1];
    if (this.isLog) {
      const room = Math.max(Math.log10(high / low) * 0.06, 0.02);
      [low, high] = [low / 10 ** room, high * 10 ** room];
    } else {
      const span = high - low || Math.abs(high) || 1;
      const isNearZero = low >= 0 && low < span * 0.35;
      [low, high] = [isNearZero ? 0 : low - span * 0.06, high + span * 0.06];
    }
    this.low = low;
    this.high = high;
    const inner = this.height - TOP - BOTTOM;
    this.toX = (step) => LEFT + ((step - this.first) / (this.last - this.first)) * (this.width - LEFT - RIGHT);
    const share = this.isLog ? (value) => (value > 0 ? Math.log(value / low) / Math.log(high / low) : NaN) : (value) => (value - low) / (high - low);
    this.toY = (value) => (Number.isFinite(value) ? TOP + (1 - share(value)) * inner : NaN);
  }

  drawAxes() {
    const parts = [];
    const bottom = this.height - BOTTOM;
    const values = this.isLog ? logTicks(this.low, this.high) : ticks(this.low, this.high, Math.max(2, this.height / 52));
    for (const value of values) {
      const y = this.toY(value);
      parts.push(s("line", { x1: LEFT, x2: this.width - RIGHT, y1: y, y2: y, class: "grid" }));
      parts.push(s("text", { x: LEFT - 10, y: y + 4, "text-anchor": "end" }, figure(value)));
    }
    for (const step of ticks(this.first, this.last, Math.max(2, this.width / 120)).filter(Number.isInteger)) {
      parts.push(s("text", { x: this.toX(step), y: bottom + 18, "text-anchor": "middle" }, whole(step)));
    }
    for (const mark of this.marks.filter((m) => m.step >= this.first && m.step <= this.last)) {
      const x = this.toX(mark.step);
      parts.push(s("line", { x1: x, x2: x, y1: TOP, y2: bottom, class: "mark" }, s("title", {}, mark.text)));
    }
    parts.push(s("line", { x1: LEFT, x2: this.width - RIGHT, y1: bottom, y2: bottom, class: "base" }));
    this.axes.replaceChildren(...parts);
  }

  drawCurves(drawn) {
    const parts = [];
    this.series.forEach((one, i) => {
      const soft = drawn[i];
      const line = path(one.steps, soft ?? one.values, this.toX, this.toY);
      if (soft) parts.push(s("path", { d: path(one.steps, one.values, this.toX, this.toY), class: `curve raw slot-${one.slot}` }));
      parts.push(s("path", { d: line, class: `curve slot-${one.slot}`, "data-metric": one.name, "data-points": one.steps.length }));
      if (one.steps.length === 1 || (one.steps.length < 30 && !soft)) {
        one.steps.forEach((step, k) => {
          const y = this.toY(one.values[k]);
          if (Number.isFinite(y)) parts.push(s("circle", { cx: this.toX(step), cy: y, r: 2.6, class: `dot slot-${one.slot}` }));
        });
      }
      if (one.tail.steps.length) {
        const steps = one.steps.length ? [one.steps.at(-1), ...one.tail.steps] : one.tail.steps;
        const values = one.steps.length ? [(soft ?? one.values).at(-1), ...one.tail.values] : one.tail.values;
        parts.push(s("path", { d: path(steps, values, this.toX, this.toY), class: `curve tail slot-${one.slot}` }));
        const y = this.toY(values.at(-1));
        if (Number.isFinite(y)) parts.push(s("circle", { cx: this.toX(steps.at(-1)), cy: y, r: 3, class: `dot now slot-${one.slot}` }));
      }
    });
    this.curves.replaceChildren(...parts);
  }

  drawCross() {
    const found = this.read();
    if (!found.length || !this.toX) {
      this.cross.replaceChildren();
      this.reading.hidden = true;
      return;
    }
    const x = this.toX(found[0].step);
    const parts = [s("line", { x1: x, x2: x, y1: TOP, y2: this.height - BOTTOM })];
    for (const { one, step, value } of found) {
      const y = this.toY(value);
      if (Number.isFinite(y)) parts.push(s("circle", { cx: this.toX(step), cy: y, r: 4, class: `dot slot-${one.slot}` }));
    }
    this.cross.replaceChildren(...parts);
    this.reading.hidden = false;
    this.reading.replaceChildren(
      h("b", {}, `step ${whole(found[0].step)}`),
      ...found.map(({ one, step, value }) =>
        h("div", {}, h("i", { class: `key slot-${one.slot}` }), h("span", {}, one.name + (step === found[0].step ? "" : ` · ${whole(step)}`)), h("output", {}, figure(value)))),
    );
    const isRight = x > this.width * 0.6;
    this.reading.style.left = isRight ? "auto" : `${x + 14}px`;
    this.reading.style.right = isRight ? `${this.width - x + 14}px` : "auto";
  }
}
