"""The JavaScript of this package, as text: plain functions for one scope, without imports.

Pages carry the scripts as they are, so comments and indentation stay out of them, and so do the
files of kinds of laws that a page's data does not have.
"""

from __future__ import annotations

from collections.abc import Collection
from importlib.resources import files

# By which kinds of laws a file is needed; those without any are needed by all.
LAW = {
    "law_algebra.js": (),
    "law_curves.js": ("power", "skills"),
    "law_formulas.js": ("linear", "log_linear", "epochs"),
    "law_scale.js": ("gaussian_process",),
    "law_gaussian.js": ("gaussian_process",),
    "law_trees.js": ("trees",),
    "law_pilots.js": ("corrected", "aimed"),
    "law.js": (),
}
VIEW = (
    "mixture_state.js",
    "nearest_mixture.js",
    "near_reference.js",
    "reach_target.js",
    "limits.js",
    "target_drag.js",
    "elements.js",
    "link_state.js",
    "domain_list.js",
    "target_list.js",
    "ternary.js",
    "trade_off.js",
    "summary.js",
    "view.js",
)


def law_script(kinds: Collection[str] | None = None) -> str:
    """Return what defines `readWhatIf(text)` and `makeLaw(data)` (mixopt/what_if/assets/law.js).

    Args:
        kinds: Of laws that are to be read; None reads all.
    """
    wanted = [
        name
        for name, of in LAW.items()
        if kinds is None or not of or any(kind in kinds for kind in of)
    ]
    return script(*wanted)


def style(name: str = "what_if.css") -> str:
    """Return a style: that of the view, or another file of `assets`."""
    return compact(asset(name))


def script(*names: str) -> str:
    """Return some files of `assets`, one after another, without comments and indentation."""
    return "\n".join(compact(asset(name)) for name in names)


def compact(text: str) -> str:
    """Return code without lines that are comments, blank lines and leading blanks.

    Comments are dropped where they begin a line; one behind code stays. A text over several lines
    would lose its leading blanks: our files have none.
    """
    kept, inside = [], False
    for line in map(str.strip, text.splitlines()):
        if inside or line.startswith("/*"):
            inside = "*/" not in line
        elif line and not line.startswith("//"):
            kept.append(line)
    return "\n".join(kept)


def asset(name: str) -> str:
    """Return a file of `assets` as it is."""
    return (files("mixopt.what_if") / "assets" / name).read_text(encoding="utf-8")
