// The map of items: a dot for each, marks for rated and recommended ones, labels for the most popular ones; and a table.

import { byId, svgElement, element } from "./dom.js";
import { displayTitle, short } from "./format.js";

const EDGE = 18;
const REACH = 24;  // px: maximal distance of the pointer to a dot
const LABELS = 26;

export class ItemMap {
  constructor({ onPick }) {
    this.place = byId("map");
    this.places = new Map();
    this.marks = { rated: [], best: [], open: undefined };
    this.onPick = onPick;
    this.tip = element("p", { class: "tip", "aria-hidden": "true", hidden: true });
    this.picture = svgElement("svg", { role: "img" });
    this.place.append(this.picture, this.tip);
    this.picture.addEventListener("pointermove", (event) => event.pointerType !== "touch" && this.#point(this.#nearest(event)));
    this.picture.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && this.#point(null));
    this.picture.addEventListener("click", (event) => {
      const found = this.#nearest(event);
      // A finger hides what it touches: the first tap shows the title, the second one picks the dot.
      if (found && (event.pointerType !== "touch" || found === this.pointed)) this.onPick(found);
      else this.#point(found);
    });
    new ResizeObserver(() => this.draw()).observe(this.place);
  }

  /** Add items with their coordinates; `more` are items besides those of the map itself. */
  load(items, more = false) {
    if (!more) {
      // One item in 200 is drawn at the edge: a few outliers would press all others together.
      this.extent = ["x", "y"].map((axis) => {
        const sorted = items.map((one) => one[axis]).sort((a, b) => a - b);
        const beyond = Math.floor(sorted.length / 200);
        return [sorted[beyond], sorted[sorted.length - 1 - beyond]];
      });
      this.all = items.length;
    }
    for (const one of items) this.places.set(String(one.item), one);
    this.draw();
  }

  /** The items that have no coordinates yet. */
  missing = (items) => items.filter(({ item }) => !this.places.has(String(item)));

  /** Mark the rated items ({item, title, rating}), the recommended ones (best first) and the opened one. */
  mark(marks, words) {
    this.marks = marks;
    this.words = words;
    this.draw();
  }

  draw() {
    const [wide, high] = [this.place.clientWidth, this.place.clientHeight];
    if (!this.extent || !wide) return;
    const onAxis = (value, [low, top], length) => {
      const part = top > low ? Math.min(Math.max((value - low) / (top - low), 0), 1) : 0.5;
      return EDGE + part * (length - 2 * EDGE);
    };
    this.dots = [...this.places.values()].map((one) => ({
      one, x: onAxis(one.x, this.extent[0], wide), y: high - onAxis(one.y, this.extent[1], high),
    }));
    const at = new Map(this.dots.map((dot) => [String(dot.one.item), dot]));
    const find = (items) => items.map(({ item }) => at.get(String(item))).filter(Boolean);
    const rated = find(this.marks.rated);
    const best = find(this.marks.best);
    const most = Math.max(...this.dots.map(({ one }) => one.count ?? 1), 1);
    const circle = (name, size) => ({ x, y }) => svgElement("circle", { class: name, cx: x, cy: y, r: size });
    this.ring = svgElement("circle", { class: "ring", r: 9, visibility: "hidden" });
    this.picture.setAttribute("viewBox", `0 0 ${wide} ${high}`);
    this.picture.setAttribute("aria-label", `Map of ${this.all} ${this.words ?? "items"}; `
      + `${rated.length} rated and ${best.length} recommended ones are marked. A table follows.`);
    this.picture.replaceChildren(
      svgElement("g", { class: "others" }, this.dots.map((dot) => circle("dot", 1.6 + 2.2 * Math.sqrt((dot.one.count ?? 1) / most))(dot))),
      svgElement("g", {}, best.map(circle("dot best", 5))),
      svgElement("g", {}, rated.map(circle("dot rated", 6))),
      svgElement("g", {}, find(this.marks.open ? [this.marks.open] : []).map(circle("dot open", 9))),
      this.labels = svgElement("g", { class: "labels" }),
      this.ring);
    this.#label(rated, best, wide, high);
    this.#table(rated, best);
  }

  /** Add labels that cover neither each other nor a mark: rated items first, then recommended ones, then the most popular.
      The browser measures each label, since fonts differ between machines. */
  #label(rated, best, wide, high) {
    const taken = [...rated, ...best].map(({ x, y }) => [x - 6, y - 6, x + 6, y + 6]);
    const open = String(this.marks.open?.item);
    const clash = (box) => box[0] < 2 || box[2] > wide - 2 || box[1] < 2 || box[3] > high - 2
      || taken.some((other) => box[0] < other[2] && box[2] > other[0] && box[1] < other[3] && box[3] > other[1]);
    const marked = new Set([...rated, ...best]);
    for (const dot of [...marked, ...this.dots.filter((one) => !marked.has(one)).slice(0, 60)]) {
      if (this.labels.childElementCount >= LABELS) break;
      const kind = rated.includes(dot) ? "rated" : best.includes(dot) ? "best" : "other";
      const label = svgElement("text", { class: kind }, short(displayTitle(dot.one).name, 24));
      this.labels.append(label);
      const { width, y: above, height } = label.getBBox();
      const { x, y } = dot;
      const gap = String(dot.one.item) === open ? 13 : 8;
      const spots = [[x + gap, y + 4, "start"], [x - gap, y + 4, "end"], [x, y - gap - 2, "middle"], [x, y + gap + 10, "middle"]];
      const boxOf = ([left, base, anchor]) => {
        const start = left - { start: 0, end: width, middle: width / 2 }[anchor];
        return [start, base + above, start + width, base + above + height];
      };
      const spot = spots.find((one) => !clash(boxOf(one)));
      if (spot) {
        taken.push(boxOf(spot));
        for (const [name, value] of [["x", spot[0]], ["y", spot[1]], ["text-anchor", spot[2]]]) label.setAttribute(name, value);
      } else label.remove();
    }
  }

  #nearest({ clientX, clientY }) {
    const { left, top } = this.picture.getBoundingClientRect();
    let found = null;
    let least = REACH ** 2;
    for (const dot of this.dots ?? []) {
      const away = (dot.x - clientX + left) ** 2 + (dot.y - clientY + top) ** 2;
      if (away < least) [found, least] = [dot, away];
    }
    return found?.one ?? null;
  }

  #point(one) {
    this.pointed = one;
    this.tip.hidden = !one;
    this.picture.classList.toggle("pointing", Boolean(one));
    const dot = one && this.dots.find((other) => other.one === one);
    this.ring?.setAttribute("visibility", dot ? "visible" : "hidden");
    if (!dot) return;
    this.ring.setAttribute("cx", dot.x);
    this.ring.setAttribute("cy", dot.y);
    const { name, year } = displayTitle(one);
    this.tip.textContent = year ? `${name} (${year})` : name;
    const half = this.tip.offsetWidth / 2;
    this.tip.style.left = `${Math.min(Math.max(dot.x, half), this.place.clientWidth - half)}px`;
    this.tip.style.top = `${dot.y < 44 ? dot.y + 14 : dot.y - 38}px`;
  }

  #table(rated, best) {
    const nearby = (dot) => rated.filter((one) => one !== dot)
      .sort((a, b) => Math.hypot(a.x - dot.x, a.y - dot.y) - Math.hypot(b.x - dot.x, b.y - dot.y))
      .slice(0, 2).map(({ one }) => displayTitle(one).name).join(", ") || "–";
    const row = (mark) => (dot, place) => element("tr", {},
      element("th", { scope: "row" }, displayTitle(dot.one).name), element("td", {}, mark(place)), element("td", {}, nearby(dot)));
    const heads = ["Title", "Mark", "Nearest of yours"].map((head) => element("th", { scope: "col" }, head));
    byId("words").querySelector(".scroll").replaceChildren(element("table", {},
      element("thead", {}, element("tr", {}, heads)),
      element("tbody", {}, rated.map(row(() => "rated")), best.map(row((place) => `recommended, ${place + 1}.`)))));
  }
}
