// A question before something is done, with fields to fill in where there is something to choose.

import { h } from "./dom.js";

// A field as it is asked for: one of `options`, or what is written; `done` is given what stands in each, by name.
function control({ name, options, ...attributes }) {
  if (!options) return h("input", { id: `ask-${name}`, autocomplete: "off", ...attributes });
  return h("select", { id: `ask-${name}` }, options.map(({ value, text }) => h("option", { value }, text)));
}

export function ask({ title, text, confirm, done, fields = [], isDanger }) {
  const controls = new Map(fields.map(({ label, ...field }) => [field.name, { label, node: control(field) }]));
  const rows = [...controls].map(([name, { label, node }]) => h("div", { class: "field" }, h("label", { for: `ask-${name}` }, label), node));
  const form = h("form", { method: "dialog" }, h("h2", {}, title), h("p", {}, text), rows,
    h("div", { class: "actions" },
      h("button", { type: "button", onclick: () => dialog.close() }, "No"),
      h("button", { type: "submit", class: isDanger ? "danger" : "primary" }, confirm)));
  const dialog = h("dialog", {}, form);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    dialog.close();
    done(Object.fromEntries([...controls].map(([name, { node }]) => [name, node.value.trim()])));
  });
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
