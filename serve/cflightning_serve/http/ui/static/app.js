// The page: ratings are sent to /fold-in; its recommendations are listed, explained by /explain and marked on the map.

import { curl, get, post } from "./api.js";
import { RecommendationList } from "./recommendations.js";
import { Combobox } from "./combobox.js";
import { byId, element } from "./dom.js";
import { ItemMap } from "./map.js";
import { RatingList } from "./rating_list.js";
import { RatingStore } from "./rating_store.js";
import { Notice } from "./notice.js";
import { nameItems, displayTitle, scaleOf } from "./format.js";

const K = 10;
const DEBOUNCE = 80;  // ms: keys and clicks in quick succession become one request
const MAX_MAP_ITEMS = 50;  // items of one request to /map; later requests add more
const ANNOUNCE_DELAY = 700;  // ms without a change before the screen reader announces the list

const page = { rated: [], items: [], unknown: new Set(), discarded: null, opened: undefined, mapless: false };
const parts = {};
const notice = new Notice(() => (parts.best ? refresh() : start()));
let controller, refreshTimer, announceTimer;

const find = (item) => page.rated.find((one) => String(one.item) === String(item));
const ratingPairs = () => page.rated.filter(({ rating }) => rating !== null).map(({ item, rating }) => [item, rating]).reverse();

async function start() {
  try {
    const about = await get("about");
    const scale = scaleOf(about.rating_range);
    page.many = nameItems(about.what);
    page.suggested = scale.suggested;
    page.store = new RatingStore(about);
    page.rated = page.store.load(scale);
    if (!about.titles) byId("query").placeholder = "Part of an id";
    if (scale.kind === "liked") byId("yours-title").textContent = "What you like";
    parts.rated = new RatingList({ scale, onRate: (item, rating) => rate({ item }, rating), onRemove: remove });
    parts.map = new ItemMap({ onPick: pick });
    parts.find = new Combobox({ onPick: pick, onError: (error) => notice.show(error), isRated: ({ item }) => Boolean(find(item)) });
    parts.best = new RecommendationList({ scale, unit: about.unit, onRate: rate, onOpen: explain });
    show();
    await refresh();
  } catch (error) {
    notice.show(error);
  }
}

function pick(one) {
  if (!find(one.item)) {
    page.rated.unshift({ item: one.item, title: one.title, rating: page.suggested });
    change();
  }
  parts.rated.focus(one.item);
}

function rate(one, rating, focus = false) {
  const entry = find(one.item);
  if (entry) entry.rating = rating;
  else page.rated.unshift({ item: one.item, title: one.title, rating });
  change();
  if (focus) parts.rated.focus(one.item);
}

function remove(item) {
  page.rated = page.rated.filter((one) => String(one.item) !== String(item));
  change();
}

function clearOrUndo() {
  const [rated, discarded] = page.discarded ? [page.discarded, null] : [[], page.rated];
  page.rated = rated;
  change(discarded);
}

function change(discarded = null) {
  page.discarded = discarded;
  page.store.save(page.rated);
  show();
  clearTimeout(refreshTimer);
  refreshTimer = setTimeout(refresh, DEBOUNCE);
}

function show() {
  parts.rated.show(page.rated, page.unknown);
  parts.map.mark({ rated: page.rated, best: page.items, open: page.opened }, page.many);
  byId("starters").hidden = page.rated.length > 0;
  byId("clear").hidden = page.rated.length === 0 && page.discarded === null;
  byId("clear").textContent = page.discarded ? "Undo" : "Start over";
  byId("curl").textContent = curl("fold-in", { ratings: ratingPairs(), k: K });
}

/** Request new recommendations; an earlier request is cancelled. */
async function refresh() {
  controller?.abort();
  controller = new AbortController();
  const { signal } = controller;
  try {
    await map(signal);
    if (!byId("starters").lastElementChild.children.length) suggest((await get("items", { limit: 8 }, signal)).items);
    const { items, unknown_items } = await post("fold-in", { ratings: ratingPairs(), k: K }, signal);
    page.items = items;
    page.unknown = new Set(unknown_items.map(String));
    parts.best.show(items);
    byId("best-note").textContent = ratingPairs().length ? "" : "liked by most, until you rate";
    await explain(signal);
    await map(signal);
    notice.clear();
    announce(items);
  } catch (error) {
    if (!signal.aborted) notice.show(error);
  }
}

/** Explain the opened recommendation. */
async function explain(signal) {
  const one = page.opened = parts.best.opened;
  show();
  if (!one) return;
  try {
    parts.best.explain(one.item, await post("explain", { ratings: ratingPairs(), item: one.item }, signal), page.many);
  } catch (error) {
    if (signal?.aborted) throw error;
    if (error.kind === "unsupported") parts.best.showNote(one.item, "This bundle was exported without explanations.");
    else notice.show(error);
  }
}

/** Draw the map at first use; later add the marked items that are not among the most popular ones. */
async function map(signal) {
  if (page.mapless) return;
  try {
    if (!parts.map.all) return parts.map.load((await get("map", {}, signal)).items);
    const marked = [...page.items, ...page.rated].filter(({ item }) => !page.unknown.has(String(item)));
    const missing = parts.map.missing(marked).map(({ item }) => item).slice(0, MAX_MAP_ITEMS);
    if (missing.length) parts.map.load((await get("map", { item: missing }, signal)).items, true);
  } catch (error) {
    if (error.kind !== "unsupported") throw error;
    page.mapless = true;
    byId("map").replaceChildren(element("p", { class: "note" }, "This bundle was exported without a map."));
  }
}

function suggest(items) {
  byId("starters").lastElementChild.replaceChildren(...items.map((one) =>
    element("li", {}, element("button", { type: "button", onclick: () => pick(one) }, displayTitle(one).name))));
}

function announce(items) {
  clearTimeout(announceTimer);
  announceTimer = setTimeout(() => {
    const first = items.slice(0, 3).map((one) => displayTitle(one).name).join(", ");
    byId("live").textContent = items.length ? `${items.length} recommended. First: ${first}.` : "Nothing is left to recommend.";
  }, ANNOUNCE_DELAY);
}

byId("clear").addEventListener("click", clearOrUndo);
byId("copy").addEventListener("click", async ({ target }) => {
  const text = byId("curl");
  try {
    await navigator.clipboard.writeText(text.textContent);
    target.textContent = "Copied";
  } catch {  // the clipboard needs https or localhost
    getSelection().selectAllChildren(text);
    target.textContent = "Selected: press Ctrl+C";
  }
  byId("live").textContent = target.textContent;
  setTimeout(() => { target.textContent = "Copy"; }, 2000);
});
start();
