"""What holds of a page in a browser: nothing cut off, text that can be read, headings in order.

Each check is a script that returns what breaks it, a line each.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

# What a reader sees: neither hidden, nor of no size, nor kept for screen readers alone.
SEEN = """
const seen = (element) => element.checkVisibility({visibilityProperty: true, opacityProperty: true})
  && !element.closest(".skip, .wi-live");
const said = (element) => `${element.tagName.toLowerCase()}.${element.getAttribute("class") || ""} `
  + `"${element.textContent.trim().slice(0, 40)}"`;
"""

# Inside something that scrolls sideways, an element may reach beyond the screen.
CUT = """
() => {
  %s
  const scrolls = (element) => {
    for (let at = element; at; at = at.parentElement) {
      if (["auto", "scroll"].includes(getComputedStyle(at).overflowX)) return true;
    }
    return false;
  };
  const wide = document.documentElement.clientWidth, found = [];
  if (document.documentElement.scrollWidth > wide) found.push("the page scrolls sideways");
  for (const element of document.body.querySelectorAll("*")) {
    if (element.closest("svg") && element.tagName !== "svg") continue;
    if (!seen(element)) continue;
    const box = element.getBoundingClientRect();
    if (!box.width || scrolls(element)) continue;
    if (box.right > wide + 0.5 || box.left < -0.5) found.push(`beyond: ${said(element)}`);
    const hides = ["hidden", "clip"].includes(getComputedStyle(element).overflowX);
    if (hides && element.scrollWidth > element.clientWidth + 1) found.push(`cut: ${said(element)}`);
  }
  return found;
}
"""

FAINT = """
(least) => {
  %s
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const numbers = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((one) => {
      const part = one / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = numbers(getComputedStyle(at).backgroundColor);
      if (colour[3] === 1) return colour;
    }
    return [255, 255, 255, 1];
  };
  const found = new Set();
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walk.nextNode(); node; node = walk.nextNode()) {
    const element = node.parentElement;
    if (!node.textContent.trim() || !seen(element) || element.closest("svg, script")) continue;
    const one = light(numbers(getComputedStyle(element).color)), other = light(behind(element));
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < least) found.add(`${ratio.toFixed(2)}: ${said(element)}`);
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


def cut_off(page: Any) -> list[str]:
    """Return what is cut, or reaches beyond the screen."""
    return page.evaluate(CUT % SEEN)


def faint_text(page: Any, least: float = 4.5) -> list[str]:
    """Return the texts whose contrast with what is behind them is below a ratio (WCAG 2)."""
    return page.evaluate(FAINT % SEEN, least)


def skipped_headings(page: Any) -> list[tuple[int, int]]:
    """Return the levels of headings that are followed by one more than a level deeper."""
    levels = page.evaluate(HEADINGS)
    return [(one, other) for one, other in pairwise(levels) if other > one + 1]


def nameless(page: Any) -> list[str]:
    """Return what a screen reader has no name for."""
    return page.evaluate(NAMELESS)
