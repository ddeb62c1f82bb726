// What can be trained on.

import { get } from "./api.js";
import { empty, h, list, say, show } from "./dom.js";
import { bytes, plural, whole } from "./format.js";

function makeRow() {
  const cells = { name: h("th", { scope: "row" }), rows: h("td"), size: h("td"), columns: h("td", { class: "types" }), source: h("td") };
  return {
    node: h("tr", {}, Object.values(cells)),
    update(dataset) {
      say(cells.name, dataset.name);
      cells.name.title = dataset.digest;
      say(cells.rows, whole(dataset.rows));
      say(cells.size, bytes(dataset.bytes));
      if (!cells.columns.childElementCount) {
        const shown = dataset.columns.slice(0, 6).map((column) => h("code", {}, `${column.name}: ${column.type}`));
        cells.columns.append(...shown, dataset.columns.length > 6 ? ` and ${dataset.columns.length - 6} more` : "");
      }
      say(cells.source, dataset.source);
    },
  };
}

export function datasets() {
  const lead = h("p", { class: "lead" });
  const body = h("tbody");
  const heads = ["Name", "Rows", "Size", "Columns", "Source"].map((word) => h("th", { scope: "col" }, word));
  const table = h("div", { class: "scroll", tabindex: "0" }, h("table", {}, h("thead", {}, h("tr", {}, heads)), body));
  const none = empty("No dataset yet", "Put arrays once, and every job can read them by name:", 'session.datasets.put("digits", x=images, y=labels)');
  const off = empty("No datasets here", "This server was started without a folder to keep things in. Its operator can give one:", "telegrad-server --data-dir /var/lib/telegrad");
  for (const part of [table, none, off]) part.hidden = true;
  const node = h("section", { class: "page" }, h("div", { class: "head" }, h("h1", {}, "Datasets"), lead), table, none, off);
  return {
    node,
    title: "Datasets",
    seconds: 5,
    async refresh() {
      const found = await get("api/datasets");
      show(off, !found.is_offered);
      show(none, found.is_offered && found.datasets.length === 0);
      show(table, found.datasets.length > 0);
      say(lead, found.datasets.length ? plural(found.datasets.length, "dataset") : "");
      list(body, found.datasets, { key: (dataset) => `${dataset.name} ${dataset.digest}`, make: makeRow, update: (entry, dataset) => entry.update(dataset) });
    },
  };
}
