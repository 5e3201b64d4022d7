"""Print what `experiments/real_text/online.py` has trained: losses beside stratified, paired.

Shapes: S seeds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t

LEVEL = 0.95
CONTROL = "stratified"
Rows = list[dict[str, Any]]


def print_tables(out: Path, objectives: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """Print a table for each group, size and objective that has runs.

    Args:
        out: Folder of the runs.
        objectives: By group and name, the weight of each domain's loss.
    """
    print("# Online estimators on real text\n")
    print(
        "Commands: `python experiments/real_text/online.py --data FOLDER --out runs/online"
        " --group three --group five --group outside`, the same with"
        " `--group eleven --steps 300`, both with `--fresh` (`outside` with"
        " `--steps 2000`), `--size large --group five --steps 300`, then"
        " `--print`.\n"
    )
    print(
        "Mean held-out loss in nats per token on text that nothing has seen, less that of"
        " `stratified` with the same seed (below 0 is better), with the paired 95% interval;"
        " perplexity is the weighted mean of exp(loss). The model has 0.12M weights (`large`:"
        " 1.4M). `fresh` are seeds that no default was chosen on. `sweeps` and `evaluated` are"
        " tokens of the run spent on perturbed mixtures, and tokens evaluated, in percent of those"
        " trained on; an evaluated token costs a third of a trained one. The trivial answer, all"
        " weight on the target, is not here: see results_online_trivial.md."
    )
    for folder in sorted(out.glob("*-*")):
        group = folder.name.partition("-")[0]
        methods = read(folder)
        if CONTROL in methods:
            for name, weights in objectives[group].items():
                _print_objective(folder, name, weights, methods)


def read(folder: Path) -> dict[str, Rows]:
    """Return the runs of each method, sorted by seed."""
    runs = {}
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text())
        if "runs" in content and not content["method"].startswith(("design", "proxies")):
            runs[content["method"]] = sorted(content["runs"], key=lambda row: row["seed"])
    return runs


def _print_objective(
    folder: Path, objective: str, weights: Mapping[str, float], methods: Mapping[str, Rows]
) -> None:
    control_S = values(methods[CONTROL], weights)
    rows = []
    for method, runs in methods.items():
        goal = method.partition("/")[2]
        if method != CONTROL and goal in ("", objective):
            rows.append((values(runs, weights).mean(), method.partition("/")[0], runs))
    if not rows:
        return
    measured = ", ".join(f"{name} {weight:.2g}" for name, weight in weights.items() if weight > 0)
    print(f"\n## {folder.name}, {objective}: {measured}\n")
    print(
        f"{len(control_S)} seeds; stratified: {control_S.mean():.4f} nats, perplexity"
        f" {perplexities(methods[CONTROL], weights).mean():.3f}.\n"
    )
    print("| method | less stratified | 95% interval | perplexity | sweeps % | evaluated % |")
    print("|---|---|---|---|---|---|")
    for _, method, runs in sorted(rows, key=lambda row: row[0]):
        low, middle, high = paired(values(runs, weights) - control_S)
        spent = [100 * float(np.mean([run[key] for run in runs])) for key in COSTS]
        print(
            f"| {method} | {middle:+.4f} | {low:+.4f} to {high:+.4f} |"
            f" {perplexities(runs, weights).mean():.3f} | {spent[0]:.1f} | {spent[1]:.1f} |"
        )


COSTS = ("perturbed", "evaluated")


def values(runs: Rows, weights: Mapping[str, float]) -> np.ndarray:
    """Return the objective of each run on test text, shape (S,)."""
    return np.array([sum(w * run["test"][n] for n, w in weights.items()) for run in runs])


def perplexities(runs: Rows, weights: Mapping[str, float]) -> np.ndarray:
    """Return the weighted mean of the domains' perplexities for each run, shape (S,)."""
    return np.array([sum(w * math.exp(run["test"][n]) for n, w in weights.items()) for run in runs])


def paired(differences_S: Sequence[float] | np.ndarray) -> tuple[float, float, float]:
    """Return the mean difference between the ends of its interval: low, mean, high."""
    count = len(differences_S)
    half = t.ppf((1 + LEVEL) / 2, count - 1) * np.std(differences_S, ddof=1) / math.sqrt(count)
    middle = float(np.mean(differences_S))
    return middle - half, middle, middle + half
