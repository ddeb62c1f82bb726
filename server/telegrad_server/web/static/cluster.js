// The devices: what each does, and whose its memory is.

import { get, now } from "./api.js";
import { empty, h, list, say, show } from "./dom.js";
import { bytes, figure, plural } from "./format.js";

const KEPT = 60;

function makeDevice() {
  const name = h("h2");
  const state = h("span", { class: "state" }, h("i"), h("span"));
  const about = h("p", { class: "about" });
  const numerics = h("p", { class: "about" });
  const parts = ["own", "tensors", "others"].map((part) => h("i", { class: part }));
  const meter = h("div", { class: "meter" }, parts);
  const legend = h("ul", { class: "legend" });
  const busy = h("div", { class: "busy" });
  const share = h("span");
  const users = h("p", { class: "users" });
  const node = h("article", { class: "device" }, h("div", { class: "device-head" }, name, state), about,
    h("h3", {}, "Memory"), meter, legend, h("h3", {}, "Computing ", share), busy, users,
    h("details", {}, h("summary", {}, "Numerics"), numerics));
  const seen = [];
  const shares = [];
  return {
    node,
    update(device, jobs) {
      say(name, device.worker === "here" ? "This server" : device.worker);
      state.dataset.state = device.state === "live" ? "SUCCEEDED" : "PAUSED";
      say(state.lastChild, device.state);
      say(about, [device.backend === "cupy" ? "GPU, CuPy" : "CPU, NumPy", device.machine].filter(Boolean).join(" · "));
      say(numerics, device.fingerprint);
      const own = device.own_bytes;
      const total = device.memory_bytes;
      const rest = Math.max(0, device.used_bytes - device.tensor_bytes);
      const all = total || Math.max(1, device.tensor_bytes);
      const sizes = [own, Math.max(0, device.tensor_bytes - own), total ? rest : 0];
      sizes.forEach((size, i) => { parts[i].style.width = `${Math.max(size > 0 ? 0.6 : 0, (100 * size) / all).toFixed(2)}%`; });
      const words = [
        ["own", "your tensors", own],
        ["tensors", "others’ tensors", sizes[1]],
        total ? ["others", "programs and caches", rest] : null,
        total ? ["free", "free", Math.max(0, total - device.used_bytes)] : null,
      ].filter(Boolean);
      meter.setAttribute("role", "img");
      meter.setAttribute("aria-label", words.map(([, word, size]) => `${word} ${bytes(size)}`).join(", "));
      list(legend, words, {
        key: ([part]) => part,
        make: ([part, word]) => {
          const size = h("output");
          return { node: h("li", {}, h("i", { class: part }), word, size), size };
        },
        update: (entry, [, , size]) => say(entry.size, bytes(size)),
      });
      const at = now();
      const before = seen.at(-1);
      // behind a gateway a worker says how long it has computed every few seconds
      const isNews = device.worker === "here" || !before || device.busy_seconds !== before.busy || at - before.at > 12;
      if (before && isNews && at - before.at > 0.3) {
        shares.push(Math.min(1, Math.max(0, (device.busy_seconds - before.busy) / (at - before.at))));
        if (shares.length > KEPT) shares.shift();
      }
      if (!before || (isNews && at - before.at > 0.3)) seen.splice(0, seen.length, { at, busy: device.busy_seconds });
      say(share, shares.length ? `${Math.round(100 * shares.at(-1))} %` : "");
      busy.setAttribute("role", "img");
      busy.setAttribute("aria-label", shares.length ? `computing ${Math.round(100 * shares.at(-1))} % of the last second` : "not measured yet");
      while (busy.childElementCount < KEPT) busy.append(h("i"));
      [...busy.children].forEach((column, i) => {
        const value = shares[i - KEPT + shares.length];
        column.style.height = `${value === undefined ? 4 : Math.max(4, 100 * value).toFixed(0)}%`;
        column.toggleAttribute("data-none", value === undefined);
      });
      const mine = jobs.filter((job) => job.worker === device.worker);
      users.replaceChildren(
        plural(device.sessions, "session"), mine.length ? " · your jobs: " : "",
        ...mine.flatMap((job, i) => [i ? ", " : "", h("a", { href: `#/jobs/${job.id}` }, job.name), ` (${figure(job.live_step)} steps)`]));
    },
  };
}

export function cluster(_, context) {
  const lead = h("p", { class: "lead" });
  const devices = h("div", { class: "devices" });
  const none = empty("No worker yet", "Workers join by themselves. On this machine the gateway makes them:", "telegrad-server --role gateway --workers 2");
  none.hidden = true;
  const node = h("section", { class: "page" }, h("div", { class: "head" }, h("h1", {}, "Cluster"), lead), devices, none);
  return {
    node,
    title: "Cluster",
    async refresh() {
      const found = await get("api/cluster");
      const jobs = context.hasJobs ? (await get("api/jobs")).jobs.filter((job) => job.worker) : [];
      show(none, found.devices.length === 0);
      say(lead, `${plural(found.devices.length, "worker")}${found.waiting ? ` · ${plural(found.waiting, "session")} waiting for a place` : ""}`);
      list(devices, found.devices, { key: (device) => device.worker, make: makeDevice, update: (entry, device) => entry.update(device, jobs) });
    },
  };
}
