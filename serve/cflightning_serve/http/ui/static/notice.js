// The notice of an error: what happened and what to do; retries by itself where that may help.

import { setKey, RequestError } from "./api.js";
import { byId, element } from "./dom.js";

const FIRST_RETRY = 2;  // seconds before the first retry; the delay doubles with each one
const MAX_RETRY = 30;  // seconds

export class Notice {
  constructor(retry) {
    this.place = byId("trouble");
    this.retry = retry;
    this.wait = FIRST_RETRY;
  }

  clear() {
    clearTimeout(this.timer);
    this.wait = FIRST_RETRY;
    this.place.replaceChildren();
  }

  show(error) {
    clearTimeout(this.timer);
    if (!(error instanceof RequestError)) {
      console.error(error);
      error = new RequestError("refused", "The page itself failed; reloading it may help.");
    }
    this.place.replaceChildren(element("div", { class: "trouble" }, this.#words(error)));
  }

  #words({ kind, message }) {
    if (kind === "gone") {
      this.timer = setTimeout(() => this.retry(), this.wait * 1000);
      const words = `${message} Your ratings are kept; trying again in ${this.wait} seconds.`;
      this.wait = Math.min(2 * this.wait, MAX_RETRY);
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
