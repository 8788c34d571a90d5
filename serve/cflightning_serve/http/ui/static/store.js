// What survives a reload: the ratings, newest first. Bundles with other scales or ids keep theirs apart.

import { parse, stringify } from "./json.js";

export class Store {
  constructor(about) {
    const strings = about.item_ids === "string" ? " strings" : "";
    this.name = `cflightning ratings ${about.what} ${about.rating_range?.join("-") ?? "liked"}${strings}`;
  }

  /** Entries {item, title, rating}; rating null where it is not given yet. What does not look so is dropped. */
  load(scale) {
    let saved;
    try { saved = parse(localStorage.getItem(this.name) ?? "[]"); } catch { return []; }
    return (Array.isArray(saved) ? saved : []).filter((one) =>
      ["number", "string", "bigint"].includes(typeof one?.item)
      && (one.title === null || typeof one.title === "string")
      && (one.rating === null || scale.kind === "liked" || (one.rating >= scale.low && one.rating <= scale.high)));
  }

  save(rated) {
    try {
      localStorage.setItem(this.name, stringify(rated.map(({ item, title, rating }) => ({ item, title, rating }))));
    } catch { /* private windows may have none: the page works, until it is closed */ }
  }
}
