// Elements without markup in strings: what a title holds is always text.

const SVG = "http://www.w3.org/2000/svg";

/** element("li", {class: "x", onclick: f}, "text", child); null and false are left out. */
export const element = (name, properties, ...children) => filled(document.createElement(name), properties, children);
export const drawing = (name, properties, ...children) => filled(document.createElementNS(SVG, name), properties, children);

function filled(node, properties = {}, children = []) {
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== false));
  return node;
}

export const byId = (id) => document.getElementById(id);
export const unseen = (text) => element("span", { class: "hidden" }, text);
export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** Makes a list hold `nodes` in this order; what moves glides there, unless people want no motion. */
export function arrange(list, nodes) {
  const before = new Map([...list.children].map((node) => [node, node.getBoundingClientRect().top]));
  const kept = new Set(nodes);
  const focused = document.activeElement;
  for (const node of [...list.children]) if (!kept.has(node)) node.remove();
  nodes.forEach((node, place) => {
    if (list.children[place] !== node) list.insertBefore(node, list.children[place] ?? null);
  });
  // Moving a node takes the focus from what is in it.
  if (list.contains(focused) && document.activeElement !== focused) focused.focus({ preventScroll: true });
  if (calm()) return;
  for (const node of nodes) {
    const moved = before.has(node) ? before.get(node) - node.getBoundingClientRect().top : 0;
    const start = before.has(node) ? { transform: `translateY(${moved}px)` } : { opacity: 0 };
    if (moved || !before.has(node)) node.animate([start, {}], { duration: 260, easing: "cubic-bezier(.2, .8, .2, 1)" });
  }
}
