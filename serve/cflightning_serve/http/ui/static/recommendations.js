// The list of recommendations; each row opens to show its explanation and a rating input.

import { arrange, byId, svgElement, element, screenReaderText } from "./dom.js";
import { ratingInput } from "./rating_input.js";
import { explanationElements } from "./explanation.js";
import { displayTitle } from "./format.js";

export class RecommendationList {
  constructor({ scale, unit, onRate, onOpen }) {
    this.list = byId("list");
    this.rows = new Map();
    this.places = new Map();
    Object.assign(this, { scale, unit, onRate, onOpen });
    this.open = undefined;  // undefined: the first one; null: none
  }

  /** The item whose explanation is shown, or undefined. */
  get opened() {
    if (this.open === null) return undefined;
    return this.items?.find(({ item }) => String(item) === this.open) ?? this.items?.[0];
  }

  show(items) {
    const focused = [...this.list.children].findIndex((row) => row.contains(document.activeElement));
    this.items = items;
    const before = this.places;
    this.places = new Map(items.map(({ item }, place) => [String(item), place]));
    for (const key of [...this.rows.keys()]) if (!this.places.has(key)) this.rows.delete(key);
    const top = Math.max(...items.map(({ score }) => score));
    arrange(this.list, items.map((one, place) => {
      const key = String(one.item);
      if (!this.rows.has(key)) this.rows.set(key, this.#row(one));
      const row = this.rows.get(key);
      row.querySelector(".rank").textContent = place + 1;
      this.#score(row, one.score, top);
      row.querySelector(".move").replaceChildren(...movement(before, key, place));
      return row;
    }));
    this.#toggle();
    // The focus of a removed row moves to the row at its position.
    if (focused >= 0 && !this.list.contains(document.activeElement)) {
      this.list.children[Math.min(focused, items.length - 1)]?.querySelector(".pick").focus({ preventScroll: true });
    }
  }

  explain(item, explanation, many) {
    const place = this.rows.get(String(item))?.querySelector(".reasons");
    place?.replaceChildren(...explanationElements(explanation, many, this.unit === "rating" ? this.scale : null));
  }

  showNote(item, words) {
    this.rows.get(String(item))?.querySelector(".reasons").replaceChildren(element("p", { class: "note" }, words));
  }

  #row(one) {
    const key = String(one.item);
    const { name, year } = displayTitle(one);
    const id = `why-${key.replace(/\W/g, (sign) => `_${sign.codePointAt(0)}`)}`;
    const button = element("button", {
      type: "button", class: "pick", "aria-expanded": "false", "aria-controls": id, onclick: () => {
        this.open = this.opened && String(this.opened.item) === key ? null : key;
        this.#toggle();
        this.onOpen();
      },
    },
    element("span", { class: "rank", "aria-hidden": "true" }),
    element("span", { class: "what" }, element("span", { class: "name" }, name), " ", element("span", { class: "year" }, year)),
    element("span", { class: "move" }),
    element("span", { class: "score" }),
    svgElement("svg", { class: "turn", viewBox: "0 0 24 24", "aria-hidden": "true" }, svgElement("path", { d: "M7 10l5 5 5-5" })));
    const seen = element("div", { class: "seen" },
      element("span", {}, this.scale.kind === "liked" ? "Know it?" : "Seen it? Rate it:"),
      ratingInput(this.scale, name, null, (value) => this.onRate(one, value, document.activeElement.matches(":focus-visible"))));
    return element("li", {}, button, element("div", { class: "why", id, hidden: true }, element("div", { class: "reasons" }), seen));
  }

  #score(row, score, top) {
    const place = row.querySelector(".score");
    if (this.unit !== "rating") return;  // other scores have no unit
    const [low, high] = this.scale.kind === "liked" ? [0, top] : [this.scale.low, this.scale.high];
    const bar = element("span", { class: "meter", "aria-hidden": "true" }, element("span"));
    bar.firstChild.style.width = `${(100 * (score - low)) / (high - low)}%`;
    place.replaceChildren(screenReaderText("predicted rating "), element("span", { class: "number" }, score.toFixed(2)), bar);
  }

  #toggle() {
    for (const [key, row] of this.rows) {
      const open = this.opened !== undefined && String(this.opened.item) === key;
      row.classList.toggle("open", open);
      row.querySelector(".pick").setAttribute("aria-expanded", String(open));
      row.querySelector(".why").hidden = !open;
    }
  }
}

/** Elements that show how far a row has moved since the previous list. */
function movement(before, key, place) {
  if (!before.size) return [];
  if (!before.has(key)) return [element("span", { class: "new" }, "new")];
  const up = before.get(key) - place;
  if (up === 0) return [];
  return [element("span", { class: up > 0 ? "up" : "down" },
    element("span", { "aria-hidden": "true" }, `${up > 0 ? "↑" : "↓"}${Math.abs(up)}`), screenReaderText(`${up > 0 ? "up" : "down"} ${Math.abs(up)}`))];
}
