// The page: what is rated goes to /fold-in, what comes back is listed, explained by /explain and marked on the map.

import { curl, get, post } from "./api.js";
import { Best } from "./best.js";
import { Combobox } from "./combobox.js";
import { byId, element } from "./dom.js";
import { FilmMap } from "./map.js";
import { Rated } from "./rated.js";
import { Store } from "./store.js";
import { Notice } from "./trouble.js";
import { call, named, scaleOf } from "./words.js";

const K = 10;
const WAIT = 80;  // ms: keys and clicks that follow each other are one question
const PLACED = 50;  // items in one question; the next one places more
const SAID = 700;  // ms of rest before a screen reader is told

const page = { rated: [], items: [], unknown: new Set(), discarded: null, opened: undefined, mapless: false };
const parts = {};
const notice = new Notice(() => (parts.best ? refresh() : start()));
let asking, waiting, saying;

const find = (item) => page.rated.find((one) => String(one.item) === String(item));
const given = () => page.rated.filter(({ rating }) => rating !== null).map(({ item, rating }) => [item, rating]).reverse();

async function start() {
  try {
    const about = await get("about");
    const scale = scaleOf(about.rating_range);
    page.many = call(about.what);
    page.suggested = scale.suggested;
    page.store = new Store(about);
    page.rated = page.store.load(scale);
    if (!about.titles) byId("query").placeholder = "Part of an id";
    if (scale.kind === "liked") byId("yours-title").textContent = "What you like";
    parts.rated = new Rated({ scale, onRate: (item, rating) => rate({ item }, rating), onRemove: remove });
    parts.map = new FilmMap({ onPick: pick });
    parts.find = new Combobox({ onPick: pick, onTrouble: (error) => notice.show(error), isRated: ({ item }) => Boolean(find(item)) });
    parts.best = new Best({ scale, unit: about.unit, onRate: rate, onOpen: explain });
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
  clearTimeout(waiting);
  waiting = setTimeout(refresh, WAIT);
}

function show() {
  parts.rated.show(page.rated, page.unknown);
  parts.map.mark({ rated: page.rated, best: page.items, open: page.opened }, page.many);
  byId("starters").hidden = page.rated.length > 0;
  byId("clear").hidden = page.rated.length === 0 && page.discarded === null;
  byId("clear").textContent = page.discarded ? "Undo" : "Start over";
  byId("curl").textContent = curl("fold-in", { ratings: given(), k: K });
}

/** Ask anew; an answer to an older question is dropped. */
async function refresh() {
  asking?.abort();
  asking = new AbortController();
  const { signal } = asking;
  try {
    await map(signal);
    if (!byId("starters").lastElementChild.children.length) suggest((await get("items", { limit: 8 }, signal)).items);
    const { items, unknown_items } = await post("fold-in", { ratings: given(), k: K }, signal);
    page.items = items;
    page.unknown = new Set(unknown_items.map(String));
    parts.best.show(items);
    byId("best-note").textContent = given().length ? "" : "liked by most, until you rate";
    await explain(signal);
    await map(signal);
    notice.clear();
    say(items);
  } catch (error) {
    if (!signal.aborted) notice.show(error);
  }
}

/** Say why the opened item is recommended. */
async function explain(signal) {
  const one = page.opened = parts.best.opened;
  show();
  if (!one) return;
  try {
    parts.best.explain(one.item, await post("explain", { ratings: given(), item: one.item }, signal), page.many);
  } catch (error) {
    if (signal?.aborted) throw error;
    if (error.kind === "unsupported") parts.best.say(one.item, "This bundle was exported without reasons.");
    else notice.show(error);
  }
}

/** Draw the map when it is needed first; later put there what is marked and not among its most popular items. */
async function map(signal) {
  if (page.mapless) return;
  try {
    if (!parts.map.all) return parts.map.load((await get("map", {}, signal)).items);
    const marked = [...page.items, ...page.rated].filter(({ item }) => !page.unknown.has(String(item)));
    const missing = parts.map.missing(marked).map(({ item }) => item).slice(0, PLACED);
    if (missing.length) parts.map.load((await get("map", { item: missing }, signal)).items, true);
  } catch (error) {
    if (error.kind !== "unsupported") throw error;
    page.mapless = true;
    byId("map").replaceChildren(element("p", { class: "note" }, "This bundle was exported without a map."));
  }
}

function suggest(items) {
  byId("starters").lastElementChild.replaceChildren(...items.map((one) =>
    element("li", {}, element("button", { type: "button", onclick: () => pick(one) }, named(one).name))));
}

function say(items) {
  clearTimeout(saying);
  saying = setTimeout(() => {
    const first = items.slice(0, 3).map((one) => named(one).name).join(", ");
    byId("live").textContent = items.length ? `${items.length} recommended. First: ${first}.` : "Nothing is left to recommend.";
  }, SAID);
}

byId("clear").addEventListener("click", clearOrUndo);
byId("copy").addEventListener("click", async ({ target }) => {
  const text = byId("curl");
  try {
    await navigator.clipboard.writeText(text.textContent);
    target.textContent = "Copied";
  } catch {  // without https and off this machine there is no clipboard
    getSelection().selectAllChildren(text);
    target.textContent = "Selected: press Ctrl+C";
  }
  byId("live").textContent = target.textContent;
  setTimeout(() => { target.textContent = "Copy"; }, 2000);
});
start();
