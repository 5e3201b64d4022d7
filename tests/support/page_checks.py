"""What holds of a page in a browser: nothing cut off, text that can be read, headings in order.

Each check is a script that returns what breaks it, a line each.
"""

from itertools import pairwise

# What a reader sees: neither hidden, nor of no size, nor kept for screen readers alone.
SEEN = """
const seen = (element) => element.checkVisibility({visibilityProperty: true, opacityProperty: true})
  && !element.closest(".skip, .wi-live");
const name = (element) => `${element.tagName}.${element.getAttribute("class") || ""} `
  + `"${element.textContent.trim().slice(0, 40)}"`;
const above = function* (element) {
  for (let at = element; at; at = at.parentElement) yield getComputedStyle(at);
};
"""

# Inside something that scrolls sideways, an element may reach beyond the screen.
CUT = """
() => {
  %s
  const scrolls = (element) =>
    [...above(element)].some((style) => ["auto", "scroll"].includes(style.overflowX));
  const wide = document.documentElement.clientWidth, found = [];
  if (document.documentElement.scrollWidth > wide) found.push("the page scrolls sideways");
  for (const element of document.body.querySelectorAll("*")) {
    if (element.closest("svg") && element.tagName !== "svg") continue;
    const box = element.getBoundingClientRect();
    if (!seen(element) || !box.width || scrolls(element)) continue;
    if (box.right > wide + 0.5 || box.left < -0.5) found.push(`beyond: ${name(element)}`);
    const hides = ["hidden", "clip"].includes(getComputedStyle(element).overflowX);
    if (hides && element.scrollWidth > element.clientWidth + 1) found.push(`cut: ${name(element)}`);
  }
  return found;
}
"""

# The contrast of WCAG 2, from the luminance of the text and of what is behind it.
FAINT = """
() => {
  %s
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const numbers = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const light = (colour) => {
    const [x, y, z] = [...numbers(colour)].map((one) => one / 255).map((part) =>
      part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => [...above(element)].map((style) => style.backgroundColor)
    .find((colour) => numbers(colour)[3] === 255) || "white";
  const found = new Set();
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walk.nextNode(); node; node = walk.nextNode()) {
    const element = node.parentElement;
    if (!node.textContent.trim() || !seen(element) || element.closest("svg, script")) continue;
    const one = light(getComputedStyle(element).color), other = light(behind(element));
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) found.add(`${ratio.toFixed(2)}: ${name(element)}`);
  }
  return [...found];
}
"""

HEADINGS = """
() => [...document.querySelectorAll("h1, h2, h3, h4, h5, h6")]
  .filter((one) => one.checkVisibility()).map((one) => Number(one.tagName[1]))
"""

NAMELESS = """
() => [...document.querySelectorAll("button, input, select, a[href], nav, svg[role=img]")]
  .filter((one) => one.checkVisibility())
  .filter((one) => !(one.getAttribute("aria-label") || one.getAttribute("aria-labelledby")
    || one.textContent.trim() || (one.labels && one.labels.length) || one.title))
  .map((one) => one.outerHTML.slice(0, 80))
"""


def cut_off(page):
    """Return what is cut, or reaches beyond the screen."""
    return page.evaluate(CUT % SEEN)


def faint_text(page):
    """Return the texts whose contrast with what is behind them is below 4.5."""
    return page.evaluate(FAINT % SEEN)


def skipped_headings(page):
    """Return the levels of headings that are followed by one more than a level deeper."""
    levels = page.evaluate(HEADINGS)
    return [(one, other) for one, other in pairwise(levels) if other > one + 1]


def nameless(page):
    return page.evaluate(NAMELESS)
