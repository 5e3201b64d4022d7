"""The JavaScript of this package, as text: plain functions for one scope, without imports."""

from __future__ import annotations

from importlib.resources import files

LAW = ("law_algebra.js", "law_curves.js", "law_gaussian.js", "law.js")


def law_script() -> str:
    """Return what defines `readWhatIf(text)` and `makeLaw(data)` (mixopt/what_if/assets/law.js)."""
    return script(*LAW)


def script(*names: str) -> str:
    """Return some files of `assets`, one after another."""
    folder = files("mixopt.what_if") / "assets"
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)
