"""Measure how right predicted gains are: in known worlds, and on published runs.

    OMP_NUM_THREADS=1 python experiments/published/gains.py --seeds 5 --data ../shared/data

In a known world (known_worlds.py) the natural and the uniform mixture and random ones are trained,
`auto` is fitted, and the gain of its proposal over both is held against the true one. Of published
runs some are fitted; the one of the others that is predicted best is held against what it had, for
the mean of all losses and for each.

Shapes: N runs, M losses.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from known_worlds import KINDS, Kind, known_world
from published_data import dclm, objective_of, regmix, some

from mixopt.config import FitConfig
from mixopt.fitting import fit_trials
from mixopt.mixture import Mixture
from mixopt.proposals import ProposalRequest, propose_mixture
from mixopt.trials import Trials

COUNTS = (32, 64, 128)


@dataclass(frozen=True)
class Gain:
    """A predicted and a true gain, and half of the predicted interval."""

    setting: str
    predicted: float
    true: float
    half: float


def of_world(kind: Kind, count: int, seed: int) -> list[Gain]:
    """Return the gains of one proposal over the natural and the uniform mixture."""
    world = known_world(kind, seed)
    uniform_1D = np.full((1, len(world.domains)), 1 / len(world.domains))
    drawn_ND = np.vstack([world.natural.array, uniform_1D, world.random(count - 2, seed)])
    trained = world.train(world.constraints.simplex.inside(drawn_ND), seed)
    fit = fit_trials(trained, FitConfig(), world.objective, seed=0)
    proposal = propose_mixture(ProposalRequest(fit, world.constraints, world.natural))
    compared = {"natural": world.natural, "uniform": Mixture.uniform(fit.domains)}
    value = float(world.values(proposal.mixture.array[None])[0])
    gains = []
    for name, mixture in compared.items():
        true = float(world.values(mixture.array[None])[0]) - value
        answer = proposal.gains[name]
        gains.append(Gain(f"{kind}, {count}", answer.mean, true, answer.high - answer.mean))
    return gains


def of_runs(trials: Trials, others: Trials, setting: str) -> Iterator[Gain]:
    """Yield the gain of the best-predicted run over the mean of the trials."""
    fit = fit_trials(trials, FitConfig(), objective_of("mean", trials.targets), seed=0)
    for name in ("mean", *trials.targets):
        objective = objective_of(name, trials.targets)
        predicted_N = fit.predict(others.weights(), objective).objective_N
        row = int(predicted_N.argmin())
        usual = float(objective.value(trials.losses()).mean())
        true = float(objective.value(others.losses()[row : row + 1])[0])
        half = fit.gain_half(Mixture.from_array(fit.domains, others.weights()[row]), objective)
        yield Gain(setting, usual - predicted_N[row], usual - true, half)


def published(data: Path, seeds: int) -> Iterator[Gain]:
    """Yield the gains on RegMix's and Olmix's runs."""
    train, test = (regmix(data / "regmix", f"{name}_1m") for name in ("train", "test"))
    swarm = dclm(data / "olmix")
    for seed in range(seeds):
        for count in (32, 64):
            rows = np.random.RandomState(seed).permutation(len(train))[:count]
            yield from of_runs(some(train, rows), test, f"RegMix 1M, {count}")
        rows = np.random.RandomState(seed).permutation(len(swarm))
        yield from of_runs(some(swarm, rows[:48]), some(swarm, rows[48:]), "DCLM, 48")


def line(name: str, gains: list[Gain]) -> str:
    """Return a row of the table; errors are predicted less true."""
    errors_N = np.array([gain.predicted - gain.true for gain in gains])
    true_N, half_N = (np.array([getattr(gain, key) for gain in gains]) for key in ("true", "half"))
    rms, zero = (float(np.sqrt((values**2).mean())) for values in (errors_N, true_N))
    numbers = (
        f"{errors_N.mean():+.4f} | {errors_N.mean() / errors_N.std():+.2f} | {rms:.4f} | "
        f"{zero:.4f} | {(np.abs(errors_N) <= half_N).mean():.2f} | {half_N.mean():.3f}"
    )
    return f"| {name} | {len(gains)} | {numbers} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=200, help="seed of the first world")
    parser.add_argument("--data", type=Path, help="folder of published runs")
    given = parser.parse_args()
    print("| setting | gains | error | over its deviation | rms | rms of 0 | 90% cover | half |")
    print("|---|---|---|---|---|---|---|---|")
    collected = []
    for kind in KINDS:
        for count in COUNTS:
            seeds = range(given.first, given.first + given.seeds)
            gains = [gain for seed in seeds for gain in of_world(kind, count, seed)]
            print(line(f"{kind}, {count}", gains), flush=True)
            collected += gains
    print(line("known worlds", collected))
    if given.data is not None:
        runs = list(published(given.data, given.seeds))
        for setting in dict.fromkeys(gain.setting for gain in runs):
            print(line(setting, [gain for gain in runs if gain.setting == setting]))


if __name__ == "__main__":
    main()
