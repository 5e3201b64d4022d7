"""Print what `experiments/story/story.py` has trained: tasks beside the natural mixture, paired.

Shapes: S seeds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t

from mixopt.system import Array

Scores = Mapping[str, list[Mapping[str, Any]]]
INTRODUCTION = """# From a corpus to a model that answers

Commands: `python experiments/story/story.py --data FOLDER --tasks TASKS --out runs/story`, then
`python experiments/story/story.py --out runs/story --print`. The pages of the two decisions are
`report.html` of their run directories.

A model of 0.12M weights is pretrained on {base:,} bytes of six domains and annealed on {anneal:,}
more of ten, the six and four new sources; three seeds of initial weights and order. Bits per byte
of right answers that no proxy has seen, {items} items of each task at most; each family counts
half. Differences are paired by seed, with 95% intervals; below 0 is better."""


def print_story(out: Path, arms: Iterable[str], numbers: Mapping[str, int]) -> None:
    """Print the mixtures, and a table for each stage.

    Args:
        out: Folder of the runs.
        arms: What was annealed, by name.
        numbers: Tokens of each stage, and items of a task.
    """
    print(INTRODUCTION.format(**numbers))
    for stage in ("base", "annealed"):
        print(f"\n## {'After pretraining' if stage == 'base' else 'After annealing'}\n")
        _print_mixtures(out / f"mixtures_{stage}.json")
        _print_stage({name: _runs(out, stage, name) for name in (*arms,)})


def folder_name(arm: str) -> str:
    """Return the prefix of an arm's folders."""
    return arm.replace(", ", "-").replace(" ", "-")


def _runs(out: Path, stage: str, arm: str) -> list[Mapping[str, Any]]:
    files = (out / "scores").glob(f"{stage}-{folder_name(arm)}-[0-9]*.json")
    return [json.loads(path.read_text()) for path in sorted(files)]


def _print_mixtures(path: Path) -> None:
    mixtures = json.loads(path.read_text())
    names = list(dict.fromkeys(name for one in mixtures.values() for name in one))
    print(f"| mixture | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    for name, weights in mixtures.items():
        shares = " | ".join(f"{100 * weights.get(one, 0.0):.0f}%" for one in names)
        print(f"| {name} | {shares} |")


def _print_stage(runs: Scores) -> None:
    trained = {name: seeds for name, seeds in runs.items() if seeds}
    measured = {name: [_measures(run) for run in seeds] for name, seeds in trained.items()}
    columns = list(measured["natural"][0])
    print(
        f"\n| bits per byte, mean of seeds | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}"
    )
    for name in measured:
        means = [f"{_column(measured, name, one).mean():.3f}" for one in columns]
        print(f"| {name} | {' | '.join(means)} |")
    print(f"\n| difference | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name, other in _pairs(list(measured)):
        cells = [
            _interval(_column(measured, name, column) - _column(measured, other, column))
            for column in columns
        ]
        print(f"| {name} - {other} | {' | '.join(cells)} |")


def _pairs(names: list[str]) -> Iterable[tuple[str, str]]:
    """Yield pairs with natural, then pairs of the recommendation with all others."""
    yield from ((name, "natural") for name in names if name != "natural")
    others = (name for name in names if name not in ("natural", "recommended"))
    yield from (("recommended", name) for name in others)


def _column(measured: Mapping[str, list[dict[str, float]]], name: str, column: str) -> Array:
    """Return one measure of all runs of an arm, shape (S,)."""
    return np.array([one[column] for one in measured[name]])


def _measures(run: Mapping[str, Any]) -> dict[str, float]:
    """Return the mean of the families, each of them, each task, and the mean held-out loss."""
    families: dict[str, list[float]] = {}
    tasks = {}
    for name, task in run["tasks"].items():
        tasks[name.split("_rc_")[0].split("_gold_")[0]] = task["metrics"]["bits_per_byte"]
        families.setdefault(task["family"], []).append(task["metrics"]["bits_per_byte"])
    means = {name: float(np.mean(scores)) for name, scores in families.items()}
    held_out = float(np.mean([*run["losses"].values()])) / math.log(2)
    whole = float(np.mean([*means.values()]))
    return {"tasks": whole, **means, **tasks, "held-out text": held_out}


def _interval(differences_S: Array) -> str:
    count = len(differences_S)
    half = t.ppf(0.975, count - 1) * np.std(differences_S, ddof=1) / math.sqrt(count)
    return f"{differences_S.mean():+.3f} ± {half:.3f}"
