// A small curve: no axes, only the shape.

import { s } from "./dom.js";

const WIDTH = 120;
const HEIGHT = 28;

export function makeSpark() {
  const area = s("path", { class: "spark-area" });
  const line = s("path", { class: "spark-line" });
  const dot = s("circle", { class: "spark-dot", r: 2.2 });
  const node = s("svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, width: WIDTH, height: HEIGHT, "aria-hidden": "true" }, area, line, dot);
  let drawn = null;
  return {
    node,
    update(points) {
      const text = points.join();
      if (text === drawn) return;
      drawn = text;
      node.toggleAttribute("data-empty", points.length < 2);
      if (points.length < 2) return;
      const low = Math.min(...points);
      const span = Math.max(...points) - low || 1;
      const at = points.map((value, i) => [3 + (i * (WIDTH - 6)) / (points.length - 1), 3 + (1 - (value - low) / span) * (HEIGHT - 6)]);
      const path = "M" + at.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L");
      line.setAttribute("d", path);
      area.setAttribute("d", `${path}L${WIDTH - 3} ${HEIGHT}L3 ${HEIGHT}Z`);
      dot.setAttribute("cx", at.at(-1)[0]);
      dot.setAttribute("cy", at.at(-1)[1]);
    },
  };
}
