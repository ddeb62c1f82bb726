// Elements without markup in strings: nothing that a server says is ever read as HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.setAttribute("class", value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

// An element with attributes and children; `onclick` and the like are listeners.
export function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

// The same for a drawing.
export function s(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

// Set a text if it is another: screen readers and selections are left alone.
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Show or hide.
export function show(node, isShown) {
  if (node.hidden === isShown) node.hidden = !isShown;
}

// Put what is in `items` into `parent`, in order, each made once by `make` and brought up to date by `update`.
export function list(parent, items, { key, make, update }) {
  const known = parent.known ?? (parent.known = new Map());
  const left = new Set(known.keys());
  let at = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    left.delete(name);
    let entry = known.get(name);
    if (!entry) known.set(name, (entry = make(item)));
    update(entry, item);
    if (entry.node === at) at = at.nextElementSibling;
    else parent.insertBefore(entry.node, at);
  }
  for (const name of left) {
    known.get(name).node.remove();
    known.delete(name);
  }
}

// A place where nothing is yet, and what to do about it.
export function empty(title, text, code) {
  return h("div", { class: "empty" }, h("h2", {}, title), h("p", {}, text), code ? h("pre", {}, h("code", {}, code)) : null);
}
