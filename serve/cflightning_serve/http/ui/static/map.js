// The map: every item a dot, rated and recommended ones marked, the most popular ones labelled; and the same in words.

import { byId, drawing, element } from "./dom.js";
import { named, short } from "./words.js";

const EDGE = 18;
const REACH = 24;  // px from the pointer to a dot
const LABELS = 26;

export class FilmMap {
  constructor({ onPick }) {
    this.place = byId("map");
    this.places = new Map();
    this.marks = { rated: [], best: [], open: undefined };
    this.onPick = onPick;
    this.tip = element("p", { class: "tip", "aria-hidden": "true", hidden: true });
    this.picture = drawing("svg", { role: "img" });
    this.place.append(this.picture, this.tip);
    this.picture.addEventListener("pointermove", (event) => event.pointerType !== "touch" && this.#point(this.#nearest(event)));
    this.picture.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && this.#point(null));
    this.picture.addEventListener("click", (event) => {
      const found = this.#nearest(event);
      // A finger hides what it touches: the first tap names the dot, the second one takes it.
      if (found && (event.pointerType !== "touch" || found === this.pointed)) this.onPick(found);
      else this.#point(found);
    });
    new ResizeObserver(() => this.draw()).observe(this.place);
  }

  /** What lies where; `more` are items beside those of the whole map. */
  load(items, more = false) {
    if (!more) {
      // One item in 200 may lie on the edge: a few far ones would press all others together.
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

  /** The items among these that have no place yet. */
  missing = (items) => items.filter(({ item }) => !this.places.has(String(item)));

  /** Which items are rated ({item, title, rating}), recommended and opened, best first. */
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
    const circle = (name, size) => ({ x, y }) => drawing("circle", { class: name, cx: x, cy: y, r: size });
    this.ring = drawing("circle", { class: "ring", r: 9, visibility: "hidden" });
    this.picture.setAttribute("viewBox", `0 0 ${wide} ${high}`);
    this.picture.setAttribute("aria-label", `Map of ${this.all} ${this.words ?? "items"}; `
      + `${rated.length} rated and ${best.length} recommended ones are marked. It follows in words.`);
    this.picture.replaceChildren(
      drawing("g", { class: "others" }, this.dots.map((dot) => circle("dot", 1.6 + 2.2 * Math.sqrt((dot.one.count ?? 1) / most))(dot))),
      drawing("g", {}, best.map(circle("dot best", 5))),
      drawing("g", {}, rated.map(circle("dot rated", 6))),
      drawing("g", {}, find(this.marks.open ? [this.marks.open] : []).map(circle("dot open", 9))),
      this.labels = drawing("g", { class: "labels" }),
      this.ring);
    this.#label(rated, best, wide, high);
    this.#tell(rated, best);
  }

  /** Labels that cover neither each other nor a mark: rated ones first, then recommended, then the most popular. The browser
      measures each one, since fonts differ from machine to machine. */
  #label(rated, best, wide, high) {
    const taken = [...rated, ...best].map(({ x, y }) => [x - 6, y - 6, x + 6, y + 6]);
    const open = String(this.marks.open?.item);
    const clash = (box) => box[0] < 2 || box[2] > wide - 2 || box[1] < 2 || box[3] > high - 2
      || taken.some((other) => box[0] < other[2] && box[2] > other[0] && box[1] < other[3] && box[3] > other[1]);
    const marked = new Set([...rated, ...best]);
    for (const dot of [...marked, ...this.dots.filter((one) => !marked.has(one)).slice(0, 60)]) {
      if (this.labels.childElementCount >= LABELS) break;
      const kind = rated.includes(dot) ? "rated" : best.includes(dot) ? "best" : "other";
      const label = drawing("text", { class: kind }, short(named(dot.one).name, 24));
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
    const { name, year } = named(one);
    this.tip.textContent = year ? `${name} (${year})` : name;
    const half = this.tip.offsetWidth / 2;
    this.tip.style.left = `${Math.min(Math.max(dot.x, half), this.place.clientWidth - half)}px`;
    this.tip.style.top = `${dot.y < 44 ? dot.y + 14 : dot.y - 38}px`;
  }

  #tell(rated, best) {
    const nearby = (dot) => rated.filter((one) => one !== dot)
      .sort((a, b) => Math.hypot(a.x - dot.x, a.y - dot.y) - Math.hypot(b.x - dot.x, b.y - dot.y))
      .slice(0, 2).map(({ one }) => named(one).name).join(", ") || "–";
    const row = (mark) => (dot, place) => element("tr", {},
      element("th", { scope: "row" }, named(dot.one).name), element("td", {}, mark(place)), element("td", {}, nearby(dot)));
    const heads = ["Title", "Mark", "Nearest of yours"].map((head) => element("th", { scope: "col" }, head));
    byId("words").querySelector(".scroll").replaceChildren(element("table", {},
      element("thead", {}, element("tr", {}, heads)),
      element("tbody", {}, rated.map(row(() => "rated")), best.map(row((place) => `recommended, ${place + 1}.`)))));
  }
}
