"""Read the published runs that the experiments share, and score predictions of them.

RegMix's files are {train,test}_{1m,60m}_{mixture,loss}.csv of github.com/sail-sg/regmix; those of
Data Mixing Laws are mixinglaws_*_final.csv, the last losses of every run of
github.com/yegcjs/mixinglaws: `size`, `run`, `step`, `w_*`, `loss_*`.

Shapes: N runs, D domains, M targets.
"""

from __future__ import annotations

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


def mixing_laws(path: Path | pl.DataFrame, size: str) -> Trials:
    """Return the last losses of one size of model, by run, from a file or a part of one.

    Weights that are off 1 by rounding are rescaled.
    """
    given = path if isinstance(path, pl.DataFrame) else pl.read_csv(path)
    table = given.filter(pl.col("size") == size).sort("run")
    domains = [n for n in table.columns if n.startswith("w_") and n != "w_sum_raw"]
    targets = [n for n in table.columns if n.startswith("loss_")]
    trials, results = [], []
    for row in table.iter_rows(named=True):
        weights_D = np.array([row[n] for n in domains])
        mixture = Mixture.from_array([n[2:] for n in domains], weights_D / weights_D.sum())
        trials.append(Trial(f"r{row['run']}", mixture, 0))
        losses = Losses(0, {n[5:]: row[n] for n in targets}, {})
        results.append(TrialResult(trials[-1].name, "finished", 0, 0, 0.0, losses))
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
