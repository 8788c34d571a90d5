// Search for items: a combobox with a list popup as in the ARIA Authoring Practices 1.2.

import { get } from "./api.js";
import { byId, element } from "./dom.js";
import { displayTitle } from "./format.js";

const DEBOUNCE = 120;  // ms after the last key

export class Combobox {
  constructor({ onPick, onError, isRated }) {
    this.input = byId("query");
    this.list = byId("finds");
    this.count = byId("found");
    this.finds = [];
    this.active = -1;
    Object.assign(this, { onPick, onError, isRated });
    this.input.addEventListener("input", () => this.#later());
    this.input.addEventListener("keydown", (event) => this.#key(event));
    this.input.addEventListener("blur", () => this.close());
    this.input.addEventListener("click", () => this.query && this.#search());
    this.list.addEventListener("pointerdown", (event) => event.preventDefault());  // the focus stays in the input
    this.list.addEventListener("click", (event) => {
      const option = event.target.closest("[role=option]");
      if (option) this.#pick([...this.list.children].indexOf(option));
    });
  }

  close() {
    clearTimeout(this.timer);
    this.controller?.abort();
    this.list.hidden = this.count.hidden = true;
    this.list.replaceChildren();
    this.shown = null;
    this.input.setAttribute("aria-expanded", "false");
    this.input.removeAttribute("aria-activedescendant");
    this.active = -1;
  }

  get query() {
    return this.input.value.trim();
  }

  #later() {
    clearTimeout(this.timer);
    if (this.query) this.timer = setTimeout(() => this.#search(), DEBOUNCE);
    else this.close();
  }

  async #search() {
    this.controller?.abort();
    this.controller = new AbortController();
    const { signal } = this.controller;
    const query = this.query;
    try {
      const { items } = await get("items", { query, limit: 20 }, signal);
      if (signal.aborted || document.activeElement !== this.input) return;
      this.shown = query;
      this.#show(items);
    } catch (error) {
      if (!signal.aborted) this.onError(error);
    }
  }

  #show(items) {
    this.finds = items;
    this.active = -1;
    this.list.replaceChildren(...items.map((one, place) => {
      const { name, year } = displayTitle(one);
      const note = this.isRated(one) ? "rated" : year;
      return element("li", { role: "option", id: `find-${place}`, "aria-selected": "false" },
        element("span", { class: "name" }, name), " ", element("span", { class: "year" }, note));
    }));
    this.list.scrollTop = 0;
    this.list.hidden = !items.length;
    this.input.setAttribute("aria-expanded", String(items.length > 0));
    this.input.removeAttribute("aria-activedescendant");
    this.count.textContent = items.length ? "" : `Nothing has “${this.query}” in it.`;
    this.count.hidden = items.length > 0;
    byId("live").textContent = items.length ? `${items.length} found` : this.count.textContent;
  }

  async #key(event) {
    const open = !this.list.hidden;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (open) this.#move(event.key === "ArrowDown" ? 1 : -1);
      else this.#search();
    } else if (event.key === "Enter" && this.query) {
      event.preventDefault();
      clearTimeout(this.timer);
      if (this.shown !== this.query) await this.#search();  // the list may be older than the query
      if (!this.list.hidden) this.#pick(Math.max(this.active, 0));
    } else if (event.key === "Escape") {
      if (!open) this.input.value = "";
      this.close();
    }
  }

  #move(by) {
    this.list.children[this.active]?.setAttribute("aria-selected", "false");
    const all = this.finds.length;
    this.active = this.active < 0 && by < 0 ? all - 1 : (this.active + by + all) % all;
    const option = this.list.children[this.active];
    option.setAttribute("aria-selected", "true");
    option.scrollIntoView({ block: "nearest" });
    this.input.setAttribute("aria-activedescendant", option.id);
  }

  #pick(place) {
    const picked = this.finds[place];
    this.input.value = "";
    this.close();
    this.onPick(picked);
  }
}
