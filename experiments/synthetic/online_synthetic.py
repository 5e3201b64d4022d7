"""Print what estimators gain over stratified in worlds whose interactions are known.

    OMP_NUM_THREADS=1 python experiments/synthetic/online_synthetic.py \
        > experiments/synthetic/results_online_synthetic.md

Synthetic: the worlds are those of online_worlds.py (power laws of tokens with transfer, fast
recency, noise); the first kinds are what a curve fit assumes, the others break it. Options were
chosen on seeds 100 and up; the tables are of seeds 0 and up.

Shapes: D domains, W worlds, C = 2 costs.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence

import numpy as np
from online_dynamics import World, run
from online_worlds import best_schedule, best_static, make_world, static_loss
from scipy.stats import t

from mixopt.online import Estimator, make_estimator

Make = Callable[[], Estimator]
MODELS: dict[str, Make] = {
    "robust": lambda: make_estimator("robust"),
    "robust, wide": lambda: make_estimator("robust", {"eta": 0.2, "least": 0.6, "most": 1.5}),
    "aioli": lambda: make_estimator("aioli"),
    "aioli, EMA": lambda: make_estimator("aioli", {"ema": 0.1}),
    "sweeps only": lambda: make_estimator("aioli", {"eta": 0.0}),
    "odm": lambda: make_estimator("odm", {"update_steps": 5}),
}
KINDS = ("plain", "transfer", "interference", "anneal", "recency", "noise domain")
MILLI = 1000.0


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=int, default=10)
    options = parser.parse_args()
    print("# Estimators in synthetic worlds\n")
    print(
        "Command: `python experiments/synthetic/online_synthetic.py`. Thousandths of a nat of the"
        " objective at the end of the run, gained over stratified in the same world (above 0 is"
        f" better), with paired 95% intervals over {options.worlds} worlds. `robust, wide` is"
        " `robust` in steps of 0.2 in [0.6, 1.5] of the reference on the mean, twice the defaults."
        " The last column is the worst world of `robust`, in percent of its loss. `robust` is for"
        " targets that are trained on.\n"
    )
    _print_gains("The mean over the domains", "mean", (2, 3, 8, 32), ("plain",), options.worlds)
    _print_gains("The mean, worlds that break a curve fit", "mean", (5,), KINDS[1:], options.worlds)
    _print_gains("A target that is a training domain", "one", (3, 8), ("plain", "transfer"),
                 options.worlds)  # fmt: skip
    _print_gains("A target that is none", "outside", (2, 3, 8, 16), ("plain", "transfer"),
                 options.worlds)  # fmt: skip
    _print_gains("A target that is none, and that all domains serve alike", "alike", (3, 8, 16),
                 ("plain",), options.worlds)  # fmt: skip
    _print_noise("The mean over three domains", "mean", 3, (0.1, 0.3, 1.0), options.worlds)
    _print_noise("A target that is none, eight domains", "outside", 8, (0.3, 3, 5), options.worlds)
    _print_noise("The same, that all serve alike", "alike", 8, (0.3, 3, 5), options.worlds)
    _print_costs(options.worlds)


def _print_gains(
    title: str, objective: str, domains: Sequence[int], kinds: Sequence[str], worlds: int
) -> None:
    names = _models(objective)
    print(f"## {title}\n")
    print("| world | domains | best static | best schedule | " + " | ".join(names) + " | worst % |")
    print("|---|---|---|---|" + "---|" * (len(names) + 1))
    for kind in kinds:
        for count in domains:
            drawn = [make_world(kind, count, seed, objective) for seed in range(worlds)]
            _print_row(f"| {kind} | {count}", drawn, names)
    print()


def _models(objective: str) -> list[str]:
    """Return the estimators that can work for an objective."""
    is_outside = objective in {"outside", "alike"}
    return [name for name in MODELS if not (is_outside and name.startswith("robust"))]


def _print_row(label: str, drawn: Sequence[World], names: Sequence[str]) -> None:
    even = [static_loss(world, np.full(len(world.domains), 1 / len(world.domains)))
            for world in drawn]  # fmt: skip
    static = [one - best_static(world)[1] for one, world in zip(even, drawn, strict=True)]
    schedule = [one - best_schedule(world)[1] for one, world in zip(even, drawn, strict=True)]
    cells, worst = [], math.nan
    for name in names:
        gains = [
            one - run(world, MODELS[name](), seed).loss
            for seed, (one, world) in enumerate(zip(even, drawn, strict=True))
        ]
        cells.append(_cell(gains))
        if name == "robust":
            worst = 100 * min(gain / one for gain, one in zip(gains, even, strict=True))
    references = [f"{MILLI * float(np.mean(values)):.1f}" for values in (static, schedule)]
    last = "" if math.isnan(worst) else f"{worst:+.2f}"
    print(f"{label} | " + " | ".join([*references, *cells]) + f" | {last} |", flush=True)
    sys.stderr.write(f"{label}\n")


def _print_noise(
    title: str, objective: str, domains: int, jitters: Sequence[float], worlds: int
) -> None:
    names = _models(objective)
    print(f"## {title}, by held-out jitter (nats)\n")
    print("| jitter | best static | best schedule | " + " | ".join(names) + " | worst % |")
    print("|---|---|---|" + "---|" * (len(names) + 1))
    for jitter in jitters:
        drawn = [make_world("plain", domains, seed, objective, jitter) for seed in range(worlds)]
        _print_row(f"| {0.01 * jitter:g}", drawn, names)
    print()


def _print_costs(worlds: int) -> None:
    """Print what Aioli's estimation costs, in percent of a run."""
    print("## What do Aioli's sweeps cost?\n")
    print(
        "Percent of the run, mean over plain worlds: steps on perturbed mixtures, and the cost of"
        " held-out passes, an evaluated token at a third of a trained one. The others have none.\n"
    )
    print("| objective | domains | aioli |\n|---|---|---|")
    for objective, counts in (("mean", (3, 32)), ("one", (3, 8)), ("outside", (3, 8, 16, 32))):
        for count in counts:
            drawn = [make_world("plain", count, seed, objective) for seed in range(worlds)]
            runs = [run(world, MODELS["aioli"](), seed) for seed, world in enumerate(drawn)]
            perturbed = 100 * np.mean([one.perturbed for one in runs])
            evaluated = 100 * np.mean([one.evaluated / 3 for one in runs])
            print(f"| {objective} | {count} | {perturbed:.1f}, {evaluated:.1f} |")
    print(flush=True)


def _cell(gains: Sequence[float]) -> str:
    half = t.ppf(0.975, len(gains) - 1) * np.std(gains, ddof=1) / math.sqrt(len(gains))
    return f"{MILLI * float(np.mean(gains)):+.1f} ± {MILLI * half:.1f}"


if __name__ == "__main__":
    main()
