// A question before something is done.

import { h } from "./dom.js";

export function ask({ title, text, confirm, done, number, least, isDanger }) {
  const input = number === undefined ? null : h("input", { type: "number", value: number, min: least, step: 1, required: true, "aria-label": title });
  const form = h("form", { method: "dialog" }, h("h2", {}, title), h("p", {}, text), input,
    h("div", { class: "actions" },
      h("button", { type: "button", onclick: () => dialog.close() }, "No"),
      h("button", { type: "submit", class: isDanger ? "danger" : "primary" }, confirm)));
  const dialog = h("dialog", {}, form);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    dialog.close();
    done(input ? Number(input.value) : undefined);
  });
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
