"""Fit published runs and print how well each regressor predicts runs that it has not seen.

    OMP_NUM_THREADS=1 python experiments/published/published_runs.py --data ../shared/data \
        > experiments/published/results_published_runs.md

RegMix: n of the 512 mixtures of train_1m, `RandomState(seed).permutation(512)[:n]`, scored on the
256 mixtures of test_1m and on the same mixtures at 60 times the size, test_60m (mean Spearman over
13 losses). Data Mixing Laws: random splits, mean absolute error in nats over all losses. Every
number is of one setting, the defaults, whatever the data.

The folder holds regmix/ and mixinglaws/, see published_data.py.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from published_data import mean_spearman, mixing_laws, objective_of, regmix, some, without_a_law
from scipy.stats import rankdata

from mixopt.config import FitConfig
from mixopt.fitting import fit_trials, make_regressor
from mixopt.system import Array
from mixopt.trials import Trials

NAMES = ("auto", "gaussian_process", "skills", "lightgbm", "log_linear", "linear")
SIZES = (32, 64, 128, 512)
TARGETS = {32: (0.972, 0.968), 64: (0.983, 0.979), 128: (0.987, 0.983), 512: (0.992, 0.987)}
SPLITS = (
    ("5mix", "70M", 20, "5Mix 70M, 20 fitted, 6 held out", "0.021"),
    ("redpajama", "70M", 20, "RedPajama 70M, 20 and 22", "0.025"),
    ("3mix", "410M", 24, "3Mix 410M, 24 and 8", ""),
)
RESAMPLES = 400


@dataclass(frozen=True)
class Score:
    """One fit on unseen runs: its predictions of both tests, its intervals, and CPU seconds."""

    name: str
    rows: int
    small_NM: Array
    large_NM: Array
    coverage: float
    width: float
    seconds: float


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    print("# Regressors on published runs\n")
    print(
        "Command: `OMP_NUM_THREADS=1 python experiments/published/published_runs.py --data"
        " ../shared/data`.\nLosses are in nats per token. All regressors have their defaults.\n"
    )
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        _print_regmix(options.data / "regmix", options.seeds, pool)
        _print_mixing_laws(options.data / "mixinglaws", pool)


def _print_regmix(folder: Path, seeds: int, pool: ProcessPoolExecutor) -> None:
    jobs = [
        (folder, name, rows, seed)
        for rows in reversed(SIZES)
        for name in NAMES
        for seed in range(1 if rows == SIZES[-1] else seeds)
    ]
    scores = list(pool.map(_score, *zip(*jobs, strict=True)))
    small, large = (regmix(folder, name).losses() for name in ("test_1m", "test_60m"))
    print("## RegMix\n")
    print(
        f"Mean Spearman over 13 losses on test_1m / test_60m, mean over {seeds} draws of the rows"
        " (least and most of them on test_1m); 512 are all rows.\n"
    )
    _heading("regressor", [f"n = {rows}" for rows in SIZES])
    for name in NAMES:
        _row(name, [_ranks(_of(scores, name, rows), small, large) for rows in SIZES])
    _row("*target of auto*", ["{:.3f} / {:.3f}".format(*TARGETS[rows]) for rows in SIZES])
    _row("auto less lightgbm", [_gain(scores, rows, small) for rows in SIZES])
    _row("own share, no law", [_own_share(folder)] * len(SIZES))
    _row("ceiling", [f"not known / {mean_spearman(small, large):.4f}"] * len(SIZES))
    print(
        "\nauto less lightgbm: on test_1m, with a 90% interval from resampling the 256 mixtures,"
        " paired.\nceiling: how the 1M losses themselves rank the same mixtures at 60M; there are"
        " no replicates, so\nthat of 1M is not known.\n\nShare of 256 x 13 losses of test_1m"
        " inside 90% intervals; in brackets half their width, in standard\ndeviations of the"
        " loss. Mean over the draws (lightgbm: the first).\n"
    )
    _heading("regressor", [f"n = {rows}" for rows in SIZES])
    for name in NAMES:
        _row(name, [_coverage(_of(scores, name, rows)) for rows in SIZES])
    _row("*target of auto*", ["0.85 to 0.95"] * len(SIZES))
    print("\nCPU seconds of a fit to 13 losses with its five held-out folds, on one core:\n")
    _heading("regressor", [f"n = {rows}" for rows in SIZES])
    for name in NAMES:
        _row(name, [_seconds(_of(scores, name, rows)) for rows in SIZES])
    _row("*target of auto*", ["", "", "", "120"])
    print()


def _score(folder: Path, name: str, rows: int, seed: int) -> Score:
    train, small, large = (regmix(folder, n) for n in ("train_1m", "test_1m", "test_60m"))
    trials = some(train, np.random.RandomState(seed).permutation(512)[:rows])
    make_regressor(name, 0).fit(trials.weights()[:8], trials.losses()[:8])  # imports
    if name == "lightgbm" and seed:
        return _without_folds(name, trials, small, large)
    start = time.process_time()
    fit = fit_trials(
        trials, FitConfig(regressors=[name]), objective_of("mean", trials.targets), seed=0
    )
    seconds = time.process_time() - start
    predicted, losses_NM = fit.predict(small.weights()), small.losses()
    inside_NM = (predicted.low_NM <= losses_NM) & (losses_NM <= predicted.high_NM)
    halves_M = (predicted.high_NM - predicted.low_NM).mean(axis=0) / 2
    return Score(
        name,
        rows,
        predicted.losses_NM,
        fit.predict(large.weights()).losses_NM,
        float(inside_NM.mean()),
        float((halves_M / losses_NM.std(axis=0)).mean()),
        seconds,
    )


def _without_folds(name: str, trials: Trials, small: Trials, large: Trials) -> Score:
    """Return a score without intervals: LightGBM's folds take longer than all else together."""
    fitted = make_regressor(name, 0).fit(trials.weights(), trials.losses())
    pair = (np.asarray(fitted.predict(test.weights())) for test in (small, large))
    return Score(name, len(trials), *pair, coverage=np.nan, width=np.nan, seconds=np.nan)


def _print_mixing_laws(folder: Path, pool: ProcessPoolExecutor) -> None:
    places = range(len(SPLITS))
    jobs = [(folder, name, place, seed) for place, name, seed in product(places, NAMES, range(3))]
    scores = dict(zip(jobs, pool.map(_split_score, *zip(*jobs, strict=True)), strict=True))
    print("## Data Mixing Laws\n\nMean absolute error in nats over all losses / mean Spearman,")
    print("mean over three random splits.\n")
    titles = [title for *_, title, _ in SPLITS]
    _heading("regressor", titles)
    for name in NAMES:
        by_seed = [[scores[folder, name, place, seed] for seed in range(3)] for place in places]
        _row(name, [_both([score[:2] for score in seeds]) for seeds in by_seed])
    _row("*target of auto*", [target for *_, target in SPLITS])
    for control in ("own_share", "nearest_trial", "mean"):
        ranks = [
            [without_a_law(*_split(folder, place, seed))[control] for seed in range(3)]
            for place in places
        ]
        _row(f"{control}, no law", [_both(pairs) for pairs in ranks])
    covered = [np.mean([scores[folder, "auto", p, seed][2] for seed in range(3)]) for p in places]
    _row("90% intervals of auto hold", [f"{share:.3f}" for share in covered])


def _split(folder: Path, place: int, seed: int) -> tuple[Trials, Trials]:
    name, size, count, *_ = SPLITS[place]
    trials = mixing_laws(folder / f"mixinglaws_{name}_final.csv", size)
    order = np.random.RandomState(seed).permutation(len(trials))
    return some(trials, order[:count]), some(trials, order[count:])


def _split_score(folder: Path, name: str, place: int, seed: int) -> tuple[float, float, float]:
    train, test = _split(folder, place, seed)
    observed_NM, coverage = test.losses(), np.nan
    if name == "auto":
        fit = fit_trials(
            train, FitConfig(regressors=[name]), objective_of("mean", train.targets), seed=0
        )
        answer = fit.predict(test.weights())
        predicted_NM = answer.losses_NM
        coverage = ((answer.low_NM <= observed_NM) & (observed_NM <= answer.high_NM)).mean()
    else:
        fitted = make_regressor(name, 0).fit(train.weights(), train.losses())
        predicted_NM = np.asarray(fitted.predict(test.weights()))
    error = float(np.abs(predicted_NM - observed_NM).mean())
    return error, mean_spearman(predicted_NM, observed_NM), float(coverage)


def _own_share(folder: Path) -> str:
    """Rank each loss by its own domain's share, nothing fitted."""
    train = regmix(folder, "train_1m")
    tests = (regmix(folder, name) for name in ("test_1m", "test_60m"))
    return "{:.3f} / {:.3f}".format(*(without_a_law(train, t)["own_share"][1] for t in tests))


def _of(scores: list[Score], name: str, rows: int) -> list[Score]:
    return [score for score in scores if (score.name, score.rows) == (name, rows)]


def _ranks(runs: list[Score], small_NM: Array, large_NM: Array) -> str:
    small = [mean_spearman(score.small_NM, small_NM) for score in runs]
    large = [mean_spearman(score.large_NM, large_NM) for score in runs]
    spread = f" ({min(small):.3f}..{max(small):.3f})" if len(runs) > 1 else ""
    return f"{np.mean(small):.4f} / {np.mean(large):.4f}{spread}"


def _gain(scores: list[Score], rows: int, losses_NM: Array) -> str:
    """Return the gain in rank correlation of auto over LightGBM, with its interval."""
    pairs = list(zip(_of(scores, "auto", rows), _of(scores, "lightgbm", rows), strict=True))
    rng, gains = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        drawn = rng.integers(len(losses_NM), size=len(losses_NM))
        observed = losses_NM[drawn]
        ranks = [[_rank_correlation(s.small_NM[drawn], observed) for s in pair] for pair in pairs]
        gains.append(np.mean([ours - theirs for ours, theirs in ranks]))
    plain = [mean_spearman(score.small_NM, losses_NM) for pair in pairs for score in pair]
    gain = np.mean(plain[::2]) - np.mean(plain[1::2])
    return "{:+.4f} ({:+.4f}..{:+.4f})".format(gain, *np.quantile(gains, [0.05, 0.95]))


def _rank_correlation(left_NM: Array, right_NM: Array) -> float:
    """Return the mean Spearman of all columns at once."""
    ranks = [rankdata(side, axis=0) for side in (left_NM, right_NM)]
    left, right = (rank - rank.mean(axis=0) for rank in ranks)
    scale_M = np.sqrt((left**2).sum(axis=0) * (right**2).sum(axis=0))
    return float(((left * right).sum(axis=0) / np.maximum(scale_M, 1e-12)).mean())


def _coverage(of: list[Score]) -> str:
    return f"{np.nanmean([s.coverage for s in of]):.3f} ({np.nanmean([s.width for s in of]):.2f})"


def _seconds(runs: list[Score]) -> str:
    return f"{np.nanmean([score.seconds for score in runs]):.1f}"


def _both(pairs: list[tuple[float, float]]) -> str:
    return "{:.4f} / {:.3f}".format(*np.mean(pairs, axis=0))


def _heading(first: str, columns: list[str]) -> None:
    print(f"| {first} | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")


def _row(first: str, cells: list[str]) -> None:
    print(f"| {first} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
