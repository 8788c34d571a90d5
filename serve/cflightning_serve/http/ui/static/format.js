// Formatting of titles, ratings and numbers.

const ARTICLE = /^([^(]+?), (the|an?|l[ae]s?|l'|gli|il?|els?|los|d(?:er|ie|as)|een|den?|het)(?= \(|$)/i;

/** "Matrix, The (1999)" -> {name: "The Matrix", year: "1999"}; an item without a title has its id as name. */
export function displayTitle({ item, title }) {
  if (title === null || title === undefined) return { name: String(item), year: "" };
  const [, whole, year] = title.match(/^(.+?)(?: \((\d{4})\))?$/s) ?? [null, title, ""];
  const name = whole.replace(ARTICLE, (_, rest, article) => (article.endsWith("'") ? article + rest : `${article} ${rest}`));
  return { name, year: year ?? "" };
}

export const short = (text, length) => (text.length <= length ? text : `${text.slice(0, length - 1).trimEnd()}…`);

export const signed = (number) => (number < 0 ? "−" : "+") + Math.abs(number).toFixed(2);

/** Write the name of the bundle's items, films or items, into the page; return its plural. */
export function nameItems(what) {
  const many = what === "film" ? "films" : "items";
  for (const place of document.querySelectorAll("[data-things]")) place.textContent = many;
  for (const place of document.querySelectorAll("[data-thing-with-article]")) {
    place.textContent = what === "film" ? "a film" : "an item";
  }
  return many;
}

/** The rating input of a bundle's rating range: stars, a slider, or likes for implicit feedback. */
export function scaleOf(range) {
  if (range === null) return { kind: "liked", suggested: 1, say: () => "liked" };
  const [low, high] = range;
  if (high === 5 && (low === 1 || low === 0.5)) {
    return { kind: "stars", low, high, step: low, suggested: null, say: (value) => `${value} of 5 stars` };
  }
  const span = high - low;
  const step = span > 20 || !Number.isInteger(low) || !Number.isInteger(high) ? nice(span / 20) : span > 5 ? 1 : 0.5;
  const suggested = low + Math.round((0.8 * span) / step) * step;
  return { kind: "slider", low, high, step, suggested, say: (value) => `${value} of ${high}` };
}

/** The nearest number of the form 1, 2 or 5 times a power of ten. */
function nice(step) {
  const power = 10 ** Math.floor(Math.log10(step));
  return [1, 2, 5, 10].map((one) => one * power).reduce((a, b) => (Math.abs(b - step) < Math.abs(a - step) ? b : a));
}
