// The list of rated items, newest first. Rows are kept while others are added and removed, so that none loses the focus.

import { arrange, byId, svgElement, element } from "./dom.js";
import { ratingInput } from "./rating_input.js";
import { displayTitle } from "./format.js";

export class RatingList {
  constructor({ scale, onRate, onRemove }) {
    this.list = byId("rated");
    this.rows = new Map();
    Object.assign(this, { scale, onRate, onRemove });
  }

  show(rated, unknown = new Set()) {
    const keys = new Set(rated.map(({ item }) => String(item)));
    for (const key of [...this.rows.keys()]) if (!keys.has(key)) this.rows.delete(key);
    const rows = rated.map((entry) => {
      const key = String(entry.item);
      if (!this.rows.has(key)) this.rows.set(key, this.#row(entry));
      const row = this.rows.get(key);
      row.querySelector(".hint").textContent = unknown.has(key)
        ? "not in this model: changes nothing"
        : entry.rating === null && this.scale.kind !== "liked" ? "not rated yet" : "";
      return row;
    });
    arrange(this.list, rows);
  }

  focus(item) {
    this.rows.get(String(item))?.querySelector("input:checked, input, .like")?.focus();
  }

  #row(entry) {
    const { name, year } = displayTitle(entry);
    return element("li", {},
      element("p", { class: "what" }, element("span", { class: "name" }, name), " ", element("span", { class: "year" }, year)),
      ratingInput(this.scale, name, entry.rating, (value) => this.onRate(entry.item, value)),
      element("span", { class: "hint" }),
      element("button", {
        type: "button", class: "remove", "aria-label": `Remove ${name}`, onclick: (event) => {
          const row = event.currentTarget.closest("li");
          const next = row.nextElementSibling ?? row.previousElementSibling;
          (next?.querySelector(".remove") ?? byId("query")).focus();
          this.onRemove(entry.item);
        },
      }, svgElement("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, svgElement("path", { d: "M6 6l12 12M18 6L6 18" }))));
  }
}
