// The explanation of a recommendation: the contribution of each rating to its score, and the most similar liked items.

import { element, screenReaderText } from "./dom.js";
import { displayTitle, signed } from "./format.js";

const SHOWN = 6;

/** Elements that show a response of /explain; `scale` is null where scores are not ratings. */
export function explanationElements({ score, base, rest, contributions, nearest }, many, scale) {
  if (!contributions.length) {
    return [element("p", { class: "note" }, `No ratings yet: this is one of the ${many} that most people like.`)];
  }
  const sorted = [...contributions].sort((a, b) => Math.abs(b.contribution) - Math.abs(a.contribution));
  const shown = sorted.slice(0, SHOWN);
  const others = sorted.slice(SHOWN);
  const largest = Math.max(...sorted.map(({ contribution }) => Math.abs(contribution)), 1e-9);
  const sum = contributions.reduce((total, { contribution }) => total + contribution, 0);
  const parts = [`${signed(sum)} from your ratings`];
  if (Math.abs(base) >= 0.005) parts.unshift(`${signed(base)} from the average of all users`);  // 0 for implicit feedback
  if (Math.abs(rest) >= 0.005) parts.push(`${signed(rest)} from other ratings in training`);
  const near = nearest.filter(({ similarity }) => similarity > 0.1);
  const end = scale ? `, scaled into the range of ratings: ${score.toFixed(2)}.` : ".";
  return [
    element("h3", {}, "Contributions of your ratings"),
    element("ul", { class: "bars" }, shown.map((one) => bar(one, largest))),
    others.length > 0 && element("p", { class: "note" }, `and ${others.length} more: ${signed(
      others.reduce((total, { contribution }) => total + contribution, 0))}`),
    element("p", { class: "note sum" }, parts.join(", ") + end),
    near.length > 0 && element("p", { class: "nearest" }, "Nearest of yours: ", near.flatMap((one, place) => [
      place ? ", " : "", element("span", { class: "name" }, displayTitle(one).name), ` ${one.similarity.toFixed(2)}`])),
  ].filter((one) => one !== false);
}

function bar(one, largest) {
  const { name } = displayTitle(one);
  const size = (50 * Math.abs(one.contribution)) / largest;
  const fill = element("span", { class: one.contribution < 0 ? "minus" : "plus" });
  fill.style.width = `${size}%`;
  return element("li", {},
    element("span", { class: "label", title: name }, name),
    element("span", { class: "track", "aria-hidden": "true" }, fill),
    element("span", { class: "value" }, screenReaderText(one.contribution < 0 ? "lowers it by " : "raises it by "), signed(one.contribution)));
}
