"""Fit metrics of which higher is better as they are, or negated so that lower is better for all.

    OMP_NUM_THREADS=1 python experiments/published/metric_directions.py --data ../shared/data

The metrics are probabilities of the right answer, exp(-loss), of published losses: for each byte on
tasks of Olmix's DCLM swarm, for each token on RegMix's domains. A draw fits both on the same runs,
and ranks all others. Printed are the Spearman correlation of each metric, mean over metrics, that
of their plain mean (the objective), and the paired difference negated - raw with its 95% interval
over draws.
"""

import argparse
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from published_data import dclm, regmix

from mixopt.difference import paired_interval
from mixopt.fitting import make_regressor, spearman
from mixopt.system import Array

REGRESSORS = ("gaussian_process", "skills", "log_linear", "linear", "lightgbm")
TASKS = 16  # of the 110, evenly spread
Table = tuple[Array, Array]  # weights, metrics


def main() -> None:
    """Print a row for each table and regressor."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    print("| table | regressor | metrics, raw | negated | difference | objective, raw | negated |")
    print("|---|---|---|---|---|---|---|")
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        for table_name, table in tables(options.data):
            for name in REGRESSORS:
                run = partial(ranks, table, name, options.trials)
                scores_S4 = np.array(list(pool.map(run, range(options.draws))))
                print(_row(table_name, name, scores_S4), flush=True)


def tables(data: Path) -> Iterator[tuple[str, Table]]:
    """Yield the tables by name."""
    olmix = dclm(data / "olmix")
    bits_NM = olmix.losses()
    chosen = np.linspace(0, bits_NM.shape[1] - 1, TASKS).round().astype(int)
    yield "DCLM", (olmix.weights(), np.exp2(-bits_NM[:, chosen]))
    small = regmix(data / "regmix", "train_1m")
    yield "RegMix", (small.weights(), np.exp(-small.losses()))


def ranks(table: Table, name: str, trials: int, draw: int) -> tuple[float, float, float, float]:
    """Return the ranks of metrics, raw and negated, then those of the objective."""
    weights_ND, metrics_NM = table
    order_N = np.random.RandomState(draw).permutation(len(weights_ND))
    known_N = order_N[:trials]
    unseen_N = order_N[trials:]
    scores = []
    for sign in (1.0, -1.0):
        regressor = make_regressor(name, 0)
        regressor.fit(weights_ND[known_N], sign * metrics_NM[known_N])
        predicted_NM = sign * np.asarray(regressor.predict(weights_ND[unseen_N]))
        scores.append(_ranks(predicted_NM, metrics_NM[unseen_N]))
    (raw, raw_mean), (negated, negated_mean) = scores
    return raw, negated, raw_mean, negated_mean


def _ranks(predicted_NM: Array, observed_NM: Array) -> tuple[float, float]:
    pairs = zip(predicted_NM.T, observed_NM.T, strict=True)
    of_metrics = [spearman(predicted_N, observed_N) or 0.0 for predicted_N, observed_N in pairs]
    of_mean = spearman(predicted_NM.mean(axis=1), observed_NM.mean(axis=1)) or 0.0
    return float(np.mean(of_metrics)), of_mean


def _row(table: str, name: str, scores_S4: Array) -> str:
    raw, negated, raw_mean, negated_mean = scores_S4.mean(axis=0)
    of_metrics = _paired(scores_S4[:, 1] - scores_S4[:, 0])
    of_mean = _paired(scores_S4[:, 3] - scores_S4[:, 2])
    return (
        f"| {table} | {name} | {raw:.3f} | {negated:.3f} | {of_metrics} | {raw_mean:.3f} |"
        f" {negated_mean:.3f} ({of_mean}) |"
    )


def _paired(differences_S: Array) -> str:
    mean, half = paired_interval(differences_S)
    return f"{mean:+.4f} ± {half:.4f}"


if __name__ == "__main__":
    main()
