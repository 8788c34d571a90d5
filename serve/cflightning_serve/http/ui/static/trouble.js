// Says what went wrong and what can be done; tries again by itself where that may help.

import { setKey, Trouble } from "./api.js";
import { byId, element } from "./dom.js";

const FIRST = 2;  // seconds to the first new try; twice as long before each further one
const LAST = 30;

export class Notice {
  constructor(retry) {
    this.place = byId("trouble");
    this.retry = retry;
    this.wait = FIRST;
  }

  clear() {
    clearTimeout(this.timer);
    this.wait = FIRST;
    this.place.replaceChildren();
  }

  show(error) {
    clearTimeout(this.timer);
    if (!(error instanceof Trouble)) {
      console.error(error);
      error = new Trouble("refused", "The page itself failed; reloading it may help.");
    }
    this.place.replaceChildren(element("div", { class: "trouble" }, this.#words(error)));
  }

  #words({ kind, message }) {
    if (kind === "gone") {
      this.timer = setTimeout(() => this.retry(), this.wait * 1000);
      const words = `${message} Your ratings are kept; trying again in ${this.wait} seconds.`;
      this.wait = Math.min(2 * this.wait, LAST);
      return [element("p", {}, words), element("button", { type: "button", onclick: () => this.retry() }, "Try now")];
    }
    if (kind === "unsupported") {
      return [element("p", {}, "This bundle was exported without what the page needs."), element("p", { class: "note" }, message)];
    }
    if (kind === "key") {
      const input = element("input", { id: "key", type: "password", autocomplete: "off", required: true });
      return [element("form", {
        onsubmit: (event) => {
          event.preventDefault();
          if (!input.value.trim()) return;
          setKey(input.value.trim());
          this.retry();
        },
      }, element("label", { for: "key" }, message), input, element("button", { type: "submit" }, "Use this key"))];
    }
    return [element("p", {}, message), element("button", { type: "button", onclick: () => this.retry() }, "Try again")];
  }
}
