"""Read the published runs that the experiments share, and score predictions of them.

RegMix's files are {train,test}_{1m,60m}_{mixture,loss}.csv of github.com/sail-sg/regmix; those of
Data Mixing Laws are mixinglaws_*_final.csv, the last losses of every run of
github.com/yegcjs/mixinglaws: `size`, `run`, `step`, `w_*`, `loss_*`.

Shapes: N runs, D domains, M targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from mixopt.config import ObjectiveConfig
from mixopt.fitting import controls, spearman
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.system import Array
from mixopt.trials import Losses, Trial, TrialResult, Trials

UNIT = "nats_per_token"
# Shares of the Pile's domains in percent, to two digits.
NATURAL = Mixture.natural(
    {
        "arxiv": 1100, "freelaw": 390, "nih_exporter": 39, "pubmed_central": 1100,
        "wikipedia_en": 480, "dm_mathematics": 160, "github": 980, "philpapers": 46,
        "stackexchange": 640, "enron_emails": 18, "gutenberg_pg_19": 270, "pile_cc": 2300,
        "ubuntu_irc": 120, "europarl": 97, "hackernews": 75, "pubmed_abstracts": 390,
        "uspto_backgrounds": 410,
    }
)  # fmt: skip


def regmix(folder: Path, name: str) -> Trials:
    """Return one table of RegMix's runs: train_1m, test_1m or test_60m."""
    return Trials.from_csv(folder / f"{name}_mixture.csv", folder / f"{name}_loss.csv")


def dclm(folder: Path, name: str = "dclm") -> Trials:
    """Return a swarm of Olmix's, from its folder."""
    return Trials.from_csv(folder / f"{name}_ratios.csv", folder / f"{name}_metrics.csv")


def mixing_laws(path: Path, size: str) -> Trials:
    """Return the last losses of one size of model, by run.

    Weights that are off 1 by rounding are rescaled.
    """
    table = pl.read_csv(path).filter(pl.col("size") == size).sort("run")
    targets = [n.removeprefix("loss_") for n in table.columns if n.startswith("loss_")]
    table = table.drop("w_sum_raw", strict=False).rename(lambda n: n.removeprefix("loss_"))
    return long_table(table, "w_", targets)


def long_table(table: pl.DataFrame, weights: str, losses: list[str], size: str = "") -> Trials:
    """Return the runs of a table with one row each; rows without all losses are left out."""
    table = table.drop_nulls(losses)
    names = [name for name in table.columns if name.startswith(weights)]
    weights_ND = table.select(names).to_numpy(order="c")
    return observed(
        [name.removeprefix(weights) for name in names],
        weights_ND / weights_ND.sum(axis=1, keepdims=True),
        losses,
        table.select(losses).to_numpy(),
        parameters_N=table[size].to_list() if size else None,
    )


def observed(
    domains: Sequence[str],
    weights_ND: Array,
    targets: Sequence[str],
    losses_NM: Array,
    *,
    parameters_N: Sequence[int] | None = None,
    tokens: int = 0,
    first: int = 0,
) -> Trials:
    """Return finished trials of some mixtures; they are named t0, t1, ... from `first` on."""
    trials, results = [], []
    for place, (weights_D, losses_M) in enumerate(zip(weights_ND, losses_NM, strict=True)):
        name, mixture = f"t{first + place}", Mixture.from_array(domains, weights_D)
        trials.append(Trial(name, mixture, first + place))
        losses = Losses(tokens, dict(zip(targets, losses_M.tolist(), strict=True)), {})
        parameters = 0 if parameters_N is None else parameters_N[place]
        results.append(TrialResult(name, "finished", tokens, parameters, 0.0, losses))
    return Trials.from_results(trials, results, proxy="published")


def some(trials: Trials, rows: Array) -> Trials:
    """Return some rows, in their order."""
    return Trials(trials.table[rows], trials.domains, trials.targets)


def objective_of(kind: str, targets: tuple[str, ...]) -> Objective:
    """Return one target by name, or `mean`: the plain mean of all."""
    fields = {"mean": dict.fromkeys(targets, 1.0)} if kind == "mean" else {"target": kind}
    return Objective.from_config(ObjectiveConfig(**fields, unit=UNIT), targets)


def mean_spearman(predicted_NM: Array, observed_NM: Array) -> float:
    """Return the rank correlation, averaged over targets; a constant prediction has 0."""
    pairs = zip(predicted_NM.T, observed_NM.T, strict=True)
    return float(np.mean([spearman(*pair) or 0.0 for pair in pairs]))


def without_a_law(train: Trials, test: Trials) -> dict[str, tuple[float, float]]:
    """Return mean absolute error and mean Spearman of each control, which knows no law.

    Args:
        train: What the controls learn from.
        test: What they predict.
    """
    fold_N = np.repeat([0, 1], [len(train), len(test)])
    weights_ND = np.vstack([train.weights(), test.weights()])
    observed_NM = np.vstack([train.losses(UNIT), test.losses(UNIT)])
    objective = objective_of("mean", train.targets)
    scores = {}
    for rule in controls(weights_ND, observed_NM, fold_N, train.domains, objective):
        error = float(np.abs(rule.predicted_NQ[:, 1:] - observed_NM)[fold_N == 1].mean())
        ranks_NM = np.zeros_like(observed_NM) if rule.ranks_NQ is None else rule.ranks_NQ[:, 1:]
        scores[rule.name] = error, mean_spearman(ranks_NM[fold_N == 1], observed_NM[fold_N == 1])
    return scores
