"""Measure how often intervals of `scaling` hold held-out mixtures at the next size.

    OMP_NUM_THREADS=1 python experiments/published/next_size.py --data FOLDER

FOLDER/slimpajama is that of evidence.py: mixtures of seven domains at six sizes. Two thirds of the
mixtures are fitted at the smallest three or four sizes, the others predicted at the next one.

Shapes: K held-out mixtures, M losses.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import polars as pl
from evidence import slimpajama

from mixopt.fitting import spearman
from mixopt.trials import Trials

FITTED = 41  # mixtures
SPLITS = 5


def with_tokens(folder: Path) -> Trials:
    """Return the swarm with the tokens that each size was trained on."""
    trials, runs = slimpajama(folder), pl.read_csv(folder / "dmsl_llm_slimpajama.csv")
    longest = runs.group_by("model_size").agg(pl.col("n_tokens").max())
    tokens = {int(size): int(count) for size, count in longest.iter_rows()}
    table = trials.table.with_columns(tokens=pl.col("parameters").replace_strict(tokens))
    return Trials(table, trials.domains, trials.targets)


def line(trials: Trials, count: int, seed: int) -> str:
    """Return a row of the table: the smallest `count` sizes predict the one after."""
    sizes = sorted(trials.table["parameters"].unique().to_list())
    mixtures = sorted(set(trials.mixtures))
    fitted = np.random.RandomState(seed).permutation(mixtures)[:FITTED].tolist()
    is_fitted = pl.col("mixture").is_in(fitted)
    train = trials.table.filter(is_fitted & pl.col("parameters").is_in(sizes[:count]))
    test = trials.table.filter(~is_fitted & (pl.col("parameters") == sizes[count]))
    unseen = Trials(test, trials.domains, trials.targets)
    size = {"parameters": sizes[count], "tokens": float(test["tokens"][0])}
    fit = Trials(train, trials.domains, trials.targets).fit(regressors="scaling", size=size)
    prediction, seen_KM = fit.predict(unseen.weights()), unseen.losses()
    errors_KM = np.abs(seen_KM - prediction.losses_NM)
    halves_KM = prediction.high_NM - prediction.losses_NM
    wide = np.median(halves_KM / np.quantile(errors_KM, 0.9, axis=0))
    rank = spearman(prediction.objective_N, seen_KM.mean(axis=1)) or 0.0
    cover, error = (errors_KM <= halves_KM).mean(), errors_KM.mean()
    return (
        f"| {sizes[count] / 1e6:.0f}M from {count} sizes, split {seed} | {len(test)} |"
        f" {cover:.2f} | {wide:.2f} | {error:.4f} | {rank:.3f} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    trials = with_tokens(parser.parse_args().data / "slimpajama")
    print("| predicted | mixtures | 90% cover | half over error | error, nats | rank of the mean |")
    print("|---|---|---|---|---|---|")
    for seed in range(SPLITS):
        for count in (3, 4):
            print(line(trials, count, seed), flush=True)


if __name__ == "__main__":
    main()
