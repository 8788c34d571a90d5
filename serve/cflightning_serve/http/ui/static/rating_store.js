// Storage of ratings in the browser, newest first; bundles with other scales or types of ids have storages of their own.

import { parse, stringify } from "./json.js";

export class RatingStore {
  constructor(about) {
    const strings = about.item_ids === "string" ? " strings" : "";
    this.name = `cflightning ratings ${about.what} ${about.rating_range?.join("-") ?? "liked"}${strings}`;
  }

  /** Entries {item, title, rating}; rating is null for an item that is not rated yet. Invalid entries are dropped. */
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
    } catch { /* private windows may have no storage: ratings then last until the page is closed */ }
  }
}
