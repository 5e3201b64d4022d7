"""The JavaScript of this package, as text: plain functions for one scope, without imports."""

from __future__ import annotations

from importlib.resources import files

LAW = (
    "law_algebra.js",
    "law_curves.js",
    "law_formulas.js",
    "law_scale.js",
    "law_gaussian.js",
    "law_trees.js",
    "law_pilots.js",
    "law.js",
)
VIEW = (
    "mixture_state.js",
    "nearest_mixture.js",
    "reach_target.js",
    "limits.js",
    "elements.js",
    "link_state.js",
    "domain_list.js",
    "target_list.js",
    "ternary.js",
    "trade_off.js",
    "summary.js",
    "view.js",
)


def law_script() -> str:
    """Return what defines `readWhatIf(text)` and `makeLaw(data)` (mixopt/what_if/assets/law.js)."""
    return script(*LAW)


def style(name: str = "what_if.css") -> str:
    """Return a style: that of the view, or another file of `assets`."""
    return _asset(name)


def script(*names: str) -> str:
    """Return some files of `assets`, one after another."""
    return "\n".join(_asset(name) for name in names)


def _asset(name: str) -> str:
    return (files("mixopt.what_if") / "assets" / name).read_text(encoding="utf-8")
