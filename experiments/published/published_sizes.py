"""Predict the losses of a larger model from smaller ones, on the runs of Data Mixing Laws.

    OMP_NUM_THREADS=1 python experiments/published/published_sizes.py --data ../shared/data \
        > experiments/published/results_published_sizes.md

Four questions, each on mixtures that are held out:

1. 5Mix, 26 mixtures at 70M, 160M, 305M and 410M. 20 of them are fitted at the three smaller
   sizes; the 6 others were trained at none. What do they give at 410M?
2. The same 20, which were trained at 305M: does `scaling` say more than their own loss there?
3. Pilots: proxies of 70M, and k runs at the largest size among the mixtures that were fitted
   (5Mix), or among new ones (RedPajama, 22 mixtures at 70M alone, 20 at both 70M and 160M).

4. Intervals beyond the trials' sizes, with and without their growth, and with rows in them that are
   no finished runs, which a fit refuses unless it is told that they are.

Parameters are without embeddings: 12 layers x width^2 of the published shapes, whose totals with
twice 50,304 x width for embeddings are 70M, 162M, 304M and 405M. All runs have 30,000 steps.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from published_data import (
    mean_spearman,
    mixing_laws,
    objective_of,
    regmix,
    some,
    without_a_law,
)

from mixopt.config import FitConfig
from mixopt.errors import ConfigError, TrialsError
from mixopt.fitting import (
    ModelSize,
    correct,
    fit_trials,
    grouped_folds,
    make_regressor,
    out_of_fold,
    predict_with_std,
    row_groups,
    spearman,
)
from mixopt.system import Array
from mixopt.trials import Trials

SHAPES = {"70M": (6, 512), "160M": (12, 768), "305M": (16, 1024), "410M": (24, 1024)}
STEPS = 30_000
SEEDS, REPEATS = 3, 5
PILOTS = (0, 2, 4, 8)
NORMAL = 1.645
PROXY = "gaussian_process"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    folder = parser.parse_args().data / "mixinglaws"
    start = time.process_time()
    print("# Larger models from smaller ones\n")
    print(
        "Command: `OMP_NUM_THREADS=1 python experiments/published/published_sizes.py --data"
        " ../shared/data`.\nMean absolute error in nats over 23 losses / mean Spearman.\n"
    )
    sizes = {size: mixing_laws(folder / "mixinglaws_5mix_final.csv", size) for size in SHAPES}
    _print_scaling(sizes)
    _print_intervals(folder, folder.parent / "regmix")
    print("## Pilots\n")
    print(
        f"Proxies of 70M fitted by {PROXY}; k runs at the larger size correct them. Scored on the"
        f" larger runs that are no pilots, mean over {REPEATS} draws of pilots. Aggregate: Spearman"
        " of the mean of all\nlosses, each over its spread over the proxies.\n"
    )
    print("| runs | k | single losses | aggregate | aggregate, co-kriging | pilots alone |")
    print("|---|---|---|---|---|---|")
    _print_pilots("5Mix 70M to 410M", sizes["70M"], sizes["410M"], held_out=6)
    small, large = (
        mixing_laws(folder / "mixinglaws_redpajama_final.csv", size) for size in ("70M", "160M")
    )
    new_N = np.array([one not in set(large.mixtures) for one in small.mixtures])
    only_small = some(small, np.flatnonzero(new_N))
    _print_pilots("RedPajama 70M to 160M", only_small, large, held_out=0)
    print(f"\n{time.process_time() - start:.0f} CPU seconds.")


def _print_scaling(sizes: dict[str, Trials]) -> None:
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    covered: list[float] = []
    for seed in range(SEEDS):
        order = np.random.RandomState(seed).permutation(26)
        for group, rows in (("new", order[20:]), ("trained smaller", order[:20])):
            answers, inside = _answers(sizes, order[:20], rows, group)
            covered += [inside] if group == "new" else []
            observed_NM = sizes["410M"].losses()[rows]
            for name, predicted_NM in answers.items():
                error = float(np.abs(predicted_NM - observed_NM).mean())
                pair = error, mean_spearman(predicted_NM, observed_NM)
                found.setdefault((name, group), []).append(pair)
        train, test = (some(sizes["305M"], rows) for rows in (order[:20], order[20:]))
        rank = without_a_law(train, test)["own_share"][1]
        found.setdefault(("best single share at 305M, no law", "new"), []).append((np.nan, rank))
    print("## Scaling: 410M from 70M, 160M and 305M\n")
    print("| predicted by | 6 mixtures of no run | 20 mixtures with smaller runs |\n|---|---|---|")
    for name in dict.fromkeys(name for name, _ in found):
        cells = [_both(found.get((name, group))) for group in ("new", "trained smaller")]
        print(f"| {name} | {cells[0]} | {cells[1]} |")
    print(
        f"\n90% intervals of scaling hold {np.mean(covered):.3f} of the new mixtures' losses."
        f" Mean over {SEEDS} splits.\n"
    )


def _print_intervals(mixing: Path, regmix_folder: Path) -> None:
    print("## Intervals beyond the trials' sizes\n")
    print(
        "`mixopt fit` with `scaling`, 20 mixtures fitted and 6 others judged of 5Mix; 96 runs of 1M"
        " and 48 of 60M of\nRegMix, 64 runs of 1B judged. Half-widths are in standard deviations of"
        " a loss over the judged runs; growth is for\na unit of log size.\n"
    )
    print("| fitted | judged | growth | hold, of losses | of the mean | half-width |")
    print("|---|---|---|---|---|---|")
    final, curves = (mixing / f"mixinglaws_5mix_{kind}.csv" for kind in ("final", "curves"))
    for smaller in (("70M", "160M", "305M"), ("70M", "160M")):
        trials, judged = _sized(final, smaller, slice(20)), _sized(final, ("410M",), slice(20, 26))
        _print_fit(" + ".join(smaller), "410M", trials, judged)
    refused = []
    mixed = _sized(curves, ("70M", "160M"), slice(20), every=3)
    refused.append(_refusal(mixed, judged))
    seeds = pl.Series("seed", range(len(mixed)), dtype=pl.Int64)
    told = Trials(mixed.table.with_columns(seeds), mixed.domains, mixed.targets)
    _print_fit("their curves, every third point, told that all are finished", "410M", told, judged)
    rows = np.random.RandomState(0).permutation(256)
    small, large = regmix(regmix_folder, "train_1m"), regmix(regmix_folder, "test_60m")
    parts = [_at(some(small, rows[:96]), 1e6, 1e9), _at(some(large, rows[:48]), 6e7, 1e9)]
    trials = Trials(pl.concat([one.table for one in parts]), small.domains, small.targets)
    judged = _at(regmix(regmix_folder, "test_1B"), 1e9, 25e9)
    refused.append(_refusal(trials, judged))
    _print_fit("RegMix 1M + 60M, both of 1B tokens", "1B of 25B tokens", trials, judged)
    print("\nThe last two are refused now:\n")
    print("\n".join(f"- `{line}`" for line in refused), "\n")


def _print_fit(title: str, larger: str, trials: Trials, judged: Trials) -> None:
    """Print how a fit's intervals hold, without growth and with it."""
    objective = objective_of("mean", trials.targets)
    asked, known_N2 = _size_of(judged), trials.table.select("parameters", "tokens").to_numpy()
    # What trials do not tell is refused, so the size is changed behind the fit.
    shared = len(np.unique(known_N2[:, 1])) == 1
    within = replace(asked, tokens=float(known_N2[0, 1])) if shared else asked
    fit = fit_trials(trials, FitConfig(regressors=["scaling"]), objective, 0, size=within)
    losses_NM = judged.losses()
    for growth in dict.fromkeys((0.0, fit.growth)):
        found = replace(fit, size=asked, growth=growth).predict(judged.weights())
        values_N = objective.value(losses_NM)
        held = float(((found.low_NM <= losses_NM) & (losses_NM <= found.high_NM)).mean())
        low_N, high_N = found.objective_low_N, found.objective_high_N
        mean = float(((low_N <= values_N) & (values_N <= high_N)).mean())
        half = float(((found.high_NM - found.losses_NM) / losses_NM.std(axis=0)).mean())
        print(f"| {title} | {larger} | {growth:.3f} | {held:.3f} | {mean:.3f} | {half:.2f} |")


def _refusal(trials: Trials, judged: Trials) -> str:
    objective, config = objective_of("mean", trials.targets), FitConfig(regressors=["scaling"])
    try:
        fit_trials(trials, config, objective, 0, size=_size_of(judged))
    except (ConfigError, TrialsError) as error:
        return str(error)
    return "not refused"


def _size_of(trials: Trials) -> ModelSize:
    row = trials.table.row(0, named=True)
    return ModelSize(row["parameters"], row["tokens"])


def _sized(path: Path, sizes: Sequence[str], mixtures: slice, every: int = 1) -> Trials:
    """Return all rows of some sizes and runs, with parameters and tokens.

    Args:
        path: Final losses, or curves.
        sizes: Which.
        mixtures: Places of the runs in an order of their own, the same for every size.
        every: Of how many points of a curve one is taken, from the last back.
    """
    runs = np.random.RandomState(0).permutation(26)[mixtures]
    table = pl.read_csv(path).filter(pl.col("run").is_in(runs.tolist()))
    parts = []
    for size in sizes:
        layers, width = SHAPES[size]
        steps = sorted(set(table.filter(pl.col("size") == size)["step"]), reverse=True)
        for step in steps[::every]:
            one = mixing_laws(table.filter(pl.col("step") == step), size)
            named = one.table.with_columns(trial=f"{size} " + pl.col("trial") + f" at {step}")
            one = Trials(named, one.domains, one.targets)
            parts.append(_at(one, 12 * layers * width**2, step * 2**20))
    return Trials(pl.concat([one.table for one in parts]), parts[0].domains, parts[0].targets)


def _at(trials: Trials, parameters: float, tokens: float) -> Trials:
    table = trials.table.with_columns(
        parameters=pl.lit(int(parameters), pl.Int64), tokens=pl.lit(int(tokens), pl.Int64)
    )
    named = table.with_columns(trial=f"{parameters:g} " + pl.col("trial"))
    return Trials(named, trials.domains, trials.targets)


def _answers(
    sizes: dict[str, Trials], fitted: Array, asked: Array, group: str
) -> tuple[dict[str, Array], float]:
    """Return what each way predicts at 410M, and the coverage of scaling's intervals."""
    smaller = ("70M", "160M", "305M")
    rows = np.vstack([_rows(sizes[size], size)[fitted] for size in smaller])
    losses_NM = np.vstack([sizes[size].losses()[fitted] for size in smaller])
    scaling = make_regressor("scaling", 0).fit(rows, losses_NM)
    means_NM, stds_NM = predict_with_std(scaling, _rows(sizes["410M"], "410M")[asked])
    observed_NM = sizes["410M"].losses()[asked]
    inside_NM = np.abs(means_NM - observed_NM) <= NORMAL * stds_NM
    weights_ND = sizes["410M"].weights()
    found = {"scaling": means_NM}
    for size in ("305M", "410M"):
        if size == "410M" and group != "new":
            continue
        title = f"{PROXY} of {'305M alone' if size == '305M' else 'the 410M runs themselves'}"
        losses = sizes[size].losses()[fitted]
        one = make_regressor(PROXY, 0).fit(sizes[size].weights()[fitted], losses)
        found[title] = np.asarray(one.predict(weights_ND[asked]))
    found["their own loss at 305M" + (", known" if group == "new" else "")] = sizes[
        "305M"
    ].losses()[asked]
    return found, float(inside_NM.mean())


def _rows(trials: Trials, size: str) -> Array:
    layers, width = SHAPES[size]
    scale = np.broadcast_to([12 * layers * width**2, STEPS * 2**20], (len(trials), 2))
    return np.column_stack([trials.weights(), scale])


def _print_pilots(title: str, small: Trials, large: Trials, *, held_out: int) -> None:
    """Print a row for each number of pilots.

    Args:
        title: Of the rows.
        small: Proxies.
        large: Runs of the same or other mixtures at the larger size.
        held_out: Proxies that are not fitted, and among which no pilot is; 0 fits all.
    """
    for count in PILOTS:
        scores = [_pilots(small, large, count, seed, held_out) for seed in range(REPEATS)]
        single = np.mean([one[:2] for one in scores], axis=0)
        line, kriged = np.mean([one[2:4] for one in scores], axis=0)
        alone = np.nanmean([one[4] for one in scores]) if count >= 4 else np.nan
        cells = [
            "{:.4f} / {:.3f}".format(*single),
            f"{line:.3f}",
            f"{kriged:.3f}" if count else "-",
            f"{alone:.3f}" if count >= 4 else "-",
        ]
        print(f"| {title} | {count} | {' | '.join(cells)} |", flush=True)


def _pilots(
    small: Trials, large: Trials, count: int, seed: int, held_out: int
) -> tuple[float, float, float, float, float]:
    order = np.random.RandomState(seed).permutation(len(large))
    kept = order[held_out:] if held_out else np.arange(len(small))
    weights_ND, losses_NM = small.weights()[kept], small.losses()[kept]
    fitted = make_regressor(PROXY, 0).fit(weights_ND, losses_NM)
    pilots = order[held_out : held_out + count]
    asked = np.setdiff1d(np.arange(len(large)), pilots)
    spread_M = losses_NM.std(axis=0)
    predicted_NM = np.asarray(fitted.predict(large.weights()))
    observed_NM = large.losses()
    plain_NM = kriged_NM = predicted_NM
    if count:
        fold_N = grouped_folds(row_groups(weights_ND), 5, 0)
        folds_NM, _ = out_of_fold(lambda: make_regressor(PROXY, 0), weights_ND, losses_NM, fold_N)
        noise_M = np.sqrt(((folds_NM - losses_NM) ** 2).mean(axis=0))
        given = (predicted_NM[pilots], observed_NM[pilots], large.weights()[pilots])
        plain_NM, kriged_NM = (
            correct(*given, spread_M, noise_M, residual=residual).apply(
                predicted_NM, large.weights()
            )
            for residual in (False, True)
        )
    alone = np.nan
    if count >= 4:
        own = make_regressor(PROXY, 0).fit(large.weights()[pilots], observed_NM[pilots])
        alone = _aggregate(np.asarray(own.predict(large.weights())), observed_NM, asked, spread_M)
    error = float(np.abs(plain_NM - observed_NM)[asked].mean())
    return (
        error,
        mean_spearman(plain_NM[asked], observed_NM[asked]),
        _aggregate(plain_NM, observed_NM, asked, spread_M),
        _aggregate(kriged_NM, observed_NM, asked, spread_M),
        alone,
    )


def _aggregate(predicted_NM: Array, observed_NM: Array, asked: Array, spread_M: Array) -> float:
    sides = [(side[asked] / spread_M).mean(axis=1) for side in (predicted_NM, observed_NM)]
    return spearman(*sides) or 0.0


def _both(pairs: list[tuple[float, float]] | None) -> str:
    if not pairs:
        return "-"
    error, rank = np.mean(pairs, axis=0)
    return f"{error:.4f} / {rank:.3f}" if np.isfinite(error) else f"- / {rank:.3f}"


if __name__ == "__main__":
    main()
