// Creation of elements without markup in strings, so a title is always text.

const SVG = "http://www.w3.org/2000/svg";

/** element("li", {class: "x", onclick: f}, "text", child); null and false are ignored. */
export const element = (name, properties, ...children) => withContent(document.createElement(name), properties, children);
export const svgElement = (name, properties, ...children) => withContent(document.createElementNS(SVG, name), properties, children);

function withContent(node, properties = {}, children = []) {
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== false));
  return node;
}

export const byId = (id) => document.getElementById(id);
export const screenReaderText = (text) => element("span", { class: "hidden" }, text);
export const prefersReducedMotion = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** Make `nodes` the children of a list, in this order; moves are animated unless the user prefers reduced motion. */
export function arrange(list, nodes) {
  const before = new Map([...list.children].map((node) => [node, node.getBoundingClientRect().top]));
  const kept = new Set(nodes);
  const focused = document.activeElement;
  for (const node of [...list.children]) if (!kept.has(node)) node.remove();
  nodes.forEach((node, place) => {
    if (list.children[place] !== node) list.insertBefore(node, list.children[place] ?? null);
  });
  // Moving a node removes the focus from its content.
  if (list.contains(focused) && document.activeElement !== focused) focused.focus({ preventScroll: true });
  if (prefersReducedMotion()) return;
  for (const node of nodes) {
    const moved = before.has(node) ? before.get(node) - node.getBoundingClientRect().top : 0;
    const start = before.has(node) ? { transform: `translateY(${moved}px)` } : { opacity: 0 };
    if (moved || !before.has(node)) node.animate([start, {}], { duration: 260, easing: "cubic-bezier(.2, .8, .2, 1)" });
  }
}
