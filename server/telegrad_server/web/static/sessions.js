// The caller's sessions, and what lives in their scopes.

import { get } from "./api.js";
import { empty, h, list, say, show } from "./dom.js";
import { ago, bytes, duration, plural, whole } from "./format.js";

const OPEN = `import telegrad as tg

with tg.connect("grpc://localhost:50051") as session:
    with session.scope() as scope:      # what is made inside is freed at its end
        y = tg.ones((1000, 1000)) @ tg.ones((1000, 1000))
        scope.keep(y)`;

// Scopes as the tree they are: [scope, depth], parents before children.
function tree(scopes) {
  const inside = new Map();
  for (const scope of scopes) {
    if (scope.scope !== scope.parent) inside.set(scope.parent, [...(inside.get(scope.parent) ?? []), scope]);
  }
  const found = [];
  const pending = scopes.filter((scope) => scope.scope === scope.parent).map((scope) => [scope, 0]);
  while (pending.length) {
    const [scope, depth] = pending.pop();
    found.push([scope, depth]);
    pending.push(...(inside.get(scope.scope) ?? []).map((child) => [child, depth + 1]).reverse());
  }
  return found;
}

function makeSession() {
  const name = h("h2");
  const state = h("span", { class: "state" }, h("i"), h("span"));
  const about = h("p", { class: "about" });
  const rows = h("ul", { class: "tree", "aria-label": "Scopes" });
  const more = h("p", { class: "quiet small" });
  const node = h("article", { class: "device" }, h("div", { class: "device-head" }, name, state), about, rows, more);
  return {
    node,
    update(session) {
      say(name, session.is_job ? "A job’s session" : `Session ${session.id.slice(0, 8)}`);
      state.dataset.state = session.is_job || session.is_attached ? "RUNNING" : "QUEUED";
      say(state.lastChild, session.is_job ? "job" : session.is_attached ? "connected" : "away");
      const lease = session.lease_seconds === null ? "no lease: it lasts as long as its job runs" : `lease ${duration(session.lease_seconds)}, heard ${ago(session.heard_seconds)}`;
      say(about, `${plural(session.tensors, "tensor")} · ${bytes(session.bytes)} · ${lease}${session.worker === "here" ? "" : ` · on ${session.worker}`}${session.queued ? ` · ${plural(session.queued, "command")} waiting` : ""}`);
      const most = Math.max(1, ...session.scopes.map((scope) => scope.bytes ?? 0));
      list(rows, tree(session.scopes), {
        key: ([scope]) => scope.scope,
        make: () => {
          const word = h("span", { class: "scope" });
          const fill = h("i");
          const size = h("output");
          return { node: h("li", {}, word, h("span", { class: "thin" }, fill), size), word, fill, size };
        },
        update: (entry, [scope, depth]) => {
          entry.node.style.setProperty("--depth", depth);
          say(entry.word, scope.scope === scope.parent ? "session" : `scope ${scope.scope}`);
          entry.fill.style.width = `${((100 * (scope.bytes ?? 0)) / most).toFixed(1)}%`;
          say(entry.size, `${plural(scope.tensors, "tensor")} · ${scope.bytes === null ? "bytes not added up" : bytes(scope.bytes)}`);
        },
      });
      say(more, session.hidden_scopes ? `and ${whole(session.hidden_scopes)} scopes more` : "");
      show(more, session.hidden_scopes > 0);
    },
  };
}

export function sessions() {
  const lead = h("p", { class: "lead" });
  const all = h("div", { class: "devices" });
  const none = empty("No session is open", "A session holds your tensors while you work, and frees them scope by scope:", OPEN);
  none.hidden = true;
  const node = h("section", { class: "page" }, h("div", { class: "head" }, h("h1", {}, "Sessions"), lead), all, none);
  return {
    node,
    title: "Sessions",
    async refresh() {
      const found = await get("api/sessions");
      show(none, found.sessions.length === 0);
      const total = found.sessions.reduce((sum, session) => sum + session.bytes, 0);
      say(lead, found.sessions.length ? `${plural(found.sessions.length, "session")} · ${bytes(total)}` : "");
      list(all, found.sessions, { key: (session) => session.id, make: makeSession, update: (entry, session) => entry.update(session) });
    },
  };
}
