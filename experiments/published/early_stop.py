"""Does ending the worse half of the trials early beat fewer trials at full length?

    OMP_NUM_THREADS=1 python experiments/published/early_stop.py --data FOLDER

The folder holds data/dmsl_llm_slimpajama.csv of meiqwq/Explaining-Data-Mixing-Scaling-Laws: runs at
11 checkpoints. Of the mixtures of one size two thirds are drawn, and the rest is held out. One way
ends the worse half of those (by the mean loss) at a part of their tokens; the other trains fewer
for the same tokens. Both choose the best run that ended, and the held-out mixture that a Gaussian
process predicts to be best; `lines` adds the ended runs, mapped to the end by a line a loss through
the others. Regret is the mean loss beyond the best of all (of the held-out) mixtures; in brackets
stopped (lines) - fewer, with the standard error over 40 draws.

Shapes: N mixtures, D domains, M losses, T checkpoints.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from evidence import slimpajama_table

from mixopt.fitting import make_regressor, spearman
from mixopt.system import Array, one_blas_thread

REPEATS, CHECKPOINTS = 40, 11
SIZES = (122e6, 310e6, 680e6, 937e6)
WAYS = ((0.5, 0.5), (0.25, 0.5), (0.5, 0.25))  # part of the tokens, kept part of the trials
Scores = tuple[list[float], list[float], list[float]]


def curves(folder: Path, size: float) -> tuple[Array, Array]:
    """Return mixtures, shape (N, D), and their losses by checkpoint, shape (N, T, M)."""
    table, weights, losses = slimpajama_table(folder)
    table = table.filter(model_size=size).unique(
        [*weights, "n_tokens"], keep="first", maintain_order=True
    )
    runs = [run for _, run in table.group_by(weights, maintain_order=True)]
    whole = [r for r in runs if len(r) == CHECKPOINTS == len(r.drop_nulls(losses))]
    weights_ND = np.array([run.select(weights).row(0) for run in whole], dtype=float)
    return weights_ND, np.array([run.select(losses).to_numpy() for run in whole])


def main() -> None:
    """Print one table for each way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    folder = parser.parse_args().data
    print(
        "| at, keep | size | tokens | best run: stopped, fewer | pick: stopped, lines, fewer |"
        " Spearman: stopped, lines, fewer |\n|---|---|---|---|---|---|"
    )
    for at, keep in WAYS:
        for size in SIZES:
            weights_ND, losses_NTM = curves(folder, size)
            rows = [_compare(weights_ND, losses_NTM, at, keep, seed) for seed in range(REPEATS)]
            best, picks, ranks = (np.array(part) for part in zip(*rows, strict=True))
            cells = [
                *(f"{at:g}, {keep:g}", f"{size / 1e6:.0f}M", f"{at + keep * (1 - at):.3f}"),
                f"{_means(best, 4)} ({_difference(best[:, 0] - best[:, 1])})",
                f"{_means(picks, 4)} ({_difference(picks[:, 1] - picks[:, 2])})",
                _means(ranks, 3),
            ]
            print(f"| {' | '.join(cells)} |", flush=True)


def _means(values: Array, digits: int) -> str:
    return ", ".join(f"{mean:.{digits}f}" for mean in values.mean(axis=0))


def _difference(values: Array) -> str:
    return f"{values.mean():+.4f} +- {values.std() / np.sqrt(REPEATS):.4f}"


def _compare(weights_ND: Array, losses_NTM: Array, at: float, keep: float, seed: int) -> Scores:
    order_N = np.random.default_rng(seed).permutation(len(weights_ND))
    drawn, held = order_N[: 2 * len(order_N) // 3], order_N[2 * len(order_N) // 3 :]
    early_NM, end_NM = losses_NTM[:, round(at * CHECKPOINTS) - 1], losses_NTM[:, -1]
    end_N = end_NM.mean(axis=1)
    continued = drawn[np.argsort(early_NM[drawn].mean(axis=1))[: round(keep * len(drawn))]]
    stopped = np.setdiff1d(drawn, continued)
    fewer = drawn[: round((at + keep * (1 - at)) * len(drawn))]
    mapped_NM = end_NM.copy()
    for loss in range(end_NM.shape[1]):
        slope, level = np.polyfit(early_NM[continued, loss], end_NM[continued, loss], 1)
        mapped_NM[stopped, loss] = level + slope * early_NM[stopped, loss]
    best = [float(end_N[rows].min() - end_N.min()) for rows in (continued, fewer)]
    picks, ranks = [], []
    for rows, learned_NM in ((continued, end_NM), (drawn, mapped_NM), (fewer, end_NM)):
        with one_blas_thread(len(rows)):
            law = make_regressor("gaussian_process", 0).fit(weights_ND[rows], learned_NM[rows])
            predicted_K = np.asarray(law.predict(weights_ND[held])).mean(axis=1)
        picks.append(float(end_N[held][np.argmin(predicted_K)] - end_N[held].min()))
        ranks.append(spearman(predicted_K, end_N[held]) or 0.0)
    return best, picks, ranks


if __name__ == "__main__":
    main()
