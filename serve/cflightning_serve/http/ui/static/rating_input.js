// The input of a rating: stars, a slider, or a like button, depending on the bundle's rating range.

import { svgElement, element, screenReaderText } from "./dom.js";

const STAR = "M12 2.6l2.9 5.9 6.5.9-4.7 4.6 1.1 6.5L12 17.4l-5.8 3.1 1.1-6.5L2.6 9.4l6.5-.9z";
const HEART = "M12 20.5C5 15.4 2.5 12 2.5 8.4A4.9 4.9 0 0 1 12 6.6a4.9 4.9 0 0 1 9.5 1.8c0 3.6-2.5 7-9.5 12.1z";
let groups = 0;

/** An element that calls onRate(value); `name` is the title of the item, `value` is null if it is not rated yet. */
export function ratingInput(scale, name, value, onRate) {
  if (scale.kind === "stars") return stars(scale, name, value, onRate);
  if (scale.kind === "slider") return slider(scale, name, value, onRate);
  return likes(name, value, onRate);
}

function stars({ low, high, step, say }, name, value, onRate) {
  const group = `stars-${groups++}`;
  const labels = [];
  for (let stars = low; stars <= high; stars += step) {
    const half = step < 1 ? (Number.isInteger(stars) ? " right" : " left") : "";
    const box = half === " left" ? "0 0 12 24" : half === " right" ? "12 0 12 24" : "0 0 24 24";
    labels.push(element("label", { class: `star${half}` },
      element("input", { type: "radio", name: group, value: stars, checked: stars === value, onchange: () => onRate(stars) }),
      screenReaderText(say(stars)),
      svgElement("svg", { viewBox: box, "aria-hidden": "true" }, svgElement("path", { d: STAR }))));
  }
  return element("fieldset", {
    class: "stars",
    onkeydown: ({ key, target, altKey, ctrlKey, metaKey }) => {  // digits, while the stars have the focus
      const wanted = labels.map((label) => label.firstChild).find((input) => input.value === key);
      if (wanted && target.type === "radio" && !altKey && !ctrlKey && !metaKey) {
        wanted.checked = true;
        wanted.focus();
        onRate(Number(key));
      }
    },
  }, element("legend", { class: "hidden" }, `Your rating of ${name}`), labels);
}

function slider({ low, high, step, suggested }, name, value, onRate) {
  const digits = Math.max(0, -Math.floor(Math.log10(step)));
  const shown = element("output", {}, value === null ? "–" : value.toFixed(digits));
  const show = ({ target }) => { shown.textContent = target.valueAsNumber.toFixed(digits); };
  const input = element("input", {
    type: "range", min: low, max: high, step, value: value ?? suggested, "aria-label": `Your rating of ${name}`,
    oninput: show, onchange: ({ target }) => onRate(target.valueAsNumber),  // when the slider is released
  });
  return element("div", { class: "slider" }, input, shown);
}

function likes(name, value, onRate) {
  return element("button", {
    type: "button", class: "like", "aria-pressed": String(value !== null), "aria-label": `I like ${name}`,
    onclick: ({ currentTarget }) => {
      const likes = currentTarget.getAttribute("aria-pressed") !== "true";
      currentTarget.setAttribute("aria-pressed", String(likes));
      onRate(likes ? 1 : null);
    },
  }, svgElement("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, svgElement("path", { d: HEART })), "Like");
}
