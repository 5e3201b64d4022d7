"""Backtest on a table of runs: what would fewer runs have picked, and how good was the pick?

Each quarter of the mixtures is held out once, with all runs of a mixture (seeds and sizes) on one
side. For each number of trials every predictor is fitted on the same runs of the other three
quarters; larger sets contain the smaller ones. Each predictor picks the held-out run with the best
predicted objective; rank and regret are those of its observed objective.

Predictors are `auto`, the usual alternatives (`ridge` on square roots of the shares, RegMix's
`lightgbm`, Olmix's log-linear law as `olmix`), and trivial controls: `own_share`, the `nearest`
run, and the `mean`, which picks at random.

Runs of several sizes are compared within a size, after subtracting each size's mean over the
fitted runs.

Shapes: N runs, K held-out runs, D domains, M losses.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from mixopt.config import FitConfig
from mixopt.errors import MixoptError, TrialsError
from mixopt.fitting.competition import fit_trials
from mixopt.fitting.fit_data import TrialSizes
from mixopt.fitting.held_out import OBJECTIVE, controls, with_objective
from mixopt.fitting.rank_correlation import spearman_within
from mixopt.fitting.regressor import (
    Regressor,
    fit_regressor,
    grouped_folds,
    make_regressor,
    predict_losses,
)
from mixopt.fitting.signal import LossReadiness
from mixopt.objective import Objective
from mixopt.system import Array, BoolArray, IntArray, Update, no_progress
from mixopt.trials import Trials, listed, loss_column, readiness_of, settled

DEFAULT = "auto"
PEERS = {"ridge": "", "lightgbm": "lightgbm", "olmix": "log_linear"}
CONTROLS = {"own_share": "own_share", "nearest_trial": "nearest", "mean": "mean"}
SPLITS = 4
MIN_MIXTURES = 8  # to fit
MAX_COUNTS = 5
FIXED_TIME = 20.0  # of a fit, in the time that a mixture adds
MAX_RANK_LOSS = 0.02  # loss of rank correlation at which fewer trials are still enough


@dataclass(frozen=True)
class Backtest:
    """What each predictor would have picked, by number of trials.

    Attributes:
        rows: One for each number of `trials` and `predictor`, means over the splits:
            `loss_spearman` (mean over losses) and `objective_spearman` on held-out runs, `coverage`
            of 90% intervals of losses and half their `width` in standard deviations of the loss
            (None for predictors without intervals), `pick_rank` of the run that it picks (1 is the
            best held-out run) and its `regret`, in the unit of the objective.
        losses: One for each loss at the most trials, the objective first: `loss`, `state` (`ready`,
            `weak` or `noise`, as of a fit), `spearman`, its 95% lower bound `low`, and `own_share`.
        runs: Number of finished runs.
        mixtures: Number of different mixtures.
        held_out: Mean number of runs held out in a split.
        splits: Number of splits.
        enough: Smallest number of trials that ranks and picks about as well as the largest; None if
            even the largest ranks nothing.
        unit: Unit of the regret (`Objective.value_unit`).
        notes: Conclusions and warnings, one line each.
    """

    rows: tuple[Mapping[str, Any], ...]
    losses: tuple[Mapping[str, Any], ...]
    runs: int
    mixtures: int
    held_out: float
    splits: int
    enough: int | None
    unit: str
    notes: tuple[str, ...]

    @property
    def frame(self) -> pl.DataFrame:
        """The rows as a table."""
        return pl.DataFrame(self.rows, infer_schema_length=None)

    def to_json(self) -> dict[str, Any]:
        """Return the backtest as JSON values."""
        return asdict(self)


# One predictor on one split: the figures of a row, `predictor`, and `spearmans` (of the objective
# and of each loss).
_Score = dict[str, Any]


def backtest_trials(
    trials: Trials,
    objective: Objective,
    *,
    regressors: Sequence[str] = (),
    seed: int = 0,
    update: Update = no_progress,
) -> Backtest:
    """Backtest a table; arguments as in `Trials.backtest`."""
    table = _Table(trials.finished, objective, seed)
    counts, flat = table.counts()
    if not counts:
        varying, over = _without_flat(trials, objective, flat)
        return backtest_trials(varying, over, regressors=regressors, seed=seed, update=update)
    names = list(dict.fromkeys(regressors)) or [DEFAULT]
    absent: dict[str, str] = {}
    scores = _scores(table, counts, names, absent, update)
    figures = pl.DataFrame(scores, infer_schema_length=None).drop("spearmans")
    rows = figures.group_by("trials", "predictor", maintain_order=True).mean().to_dicts()
    max_runs = rows[-1]["trials"]
    losses = table.verdicts([score for score in scores if score["trials"] == max_runs], names[0])
    enough = _enough(rows, names[0], losses[0])
    notes = [*trials.notes, *table.notes()]
    notes += [f"{name} is left out: {why}" for name, why in absent.items()]
    notes += _verdict(rows, losses, names[0], enough, table)
    return Backtest(
        rows=tuple(rows),
        losses=tuple(losses),
        runs=len(table.trials),
        mixtures=len(set(table.trials.mixtures)),
        held_out=len(table.trials) / SPLITS,
        splits=SPLITS,
        enough=enough,
        unit=table.objective.value_unit,
        notes=tuple(notes),
    )


def _without_flat(
    trials: Trials, objective: Objective, flat: Sequence[str]
) -> tuple[Trials, Objective]:
    """Return trials and objective without losses that are constant in fitted runs."""
    measured = [name for name in objective.evaluation if name not in flat]
    if not measured or any(name in flat for name in objective.measured):
        raise TrialsError(
            f"backtest: {listed(flat)}: the same in all fitted runs of a split, so nothing can"
            " be learned of it: choose other losses (--target LOSS, repeatable)"
        )
    note = f"left out {listed(flat)}: it nearly never changes"
    return trials.with_targets(measured).with_notes(note), objective.over(measured)


def _scores(
    table: "_Table",
    counts: Sequence[int],
    names: Sequence[str],
    absent: dict[str, str],
    update: Update,
) -> list[_Score]:
    """Score every predictor for each number of trials and each split."""
    total = SPLITS * (sum(counts) + FIXED_TIME * len(counts))
    spent = 0.0
    scores: list[_Score] = []
    for count in counts:
        runs_by_split = [table.fitted(count, split).sum() for split in range(SPLITS)]
        runs = round(float(np.mean(runs_by_split)))
        for split in range(SPLITS):
            update(spent / total, f"{runs} trials, split {split + 1} of {SPLITS}")
            split_scores = table.scores(count, split, names, absent)
            scores.extend({"trials": runs} | score for score in split_scores)
            spent += count + FIXED_TIME
    update(1.0, "")
    return scores


class _Table:
    """Finished runs, and their splits into fitted and held-out runs."""

    def __init__(self, trials: Trials, objective: Objective, seed: int) -> None:
        self.trials = trials
        self.seed = seed
        self.weights_ND = trials.weights()
        self.losses_NM = objective.losses(trials)
        self.size_N: IntArray = TrialSizes.of(trials).group_N
        all_N = np.ones(len(trials), dtype=bool)
        alike = self._learned(all_N, self.losses_NM - self._levels(all_N), objective)
        self.objective = replace(settled(objective, alike), leave_out=None)
        self.observed_NQ = with_objective(self.objective, self.losses_NM)
        observed_N = self.observed_NQ[:, 0]
        mixtures = sorted(set(trials.mixtures))
        min_mixtures = -(-MIN_MIXTURES * SPLITS // (SPLITS - 1))
        if len(mixtures) < min_mixtures:
            raise TrialsError(
                f"backtest: {len(trials)} finished runs of {len(mixtures)} different mixtures;"
                f" needs {min_mixtures}, to fit {MIN_MIXTURES} and hold the others out: add runs"
            )
        if np.ptp(observed_N) <= 1e-12 * max(abs(float(observed_N[0])), 1e-12):
            raise TrialsError(
                f"backtest: the objective is {observed_N[0]:.6g} in all {len(trials)} runs, so"
                " there is nothing to rank: choose another (--target LOSS)"
            )
        self.fold_N = grouped_folds(trials.mixtures, SPLITS, seed)
        order = np.random.default_rng(seed).permutation(len(mixtures))
        place_of = dict(zip(mixtures, order.tolist(), strict=True))
        self._place_N = np.array([place_of[name] for name in trials.mixtures])

    def counts(self) -> tuple[list[int], list[str]]:
        """Return the numbers of mixtures to fit, and the losses constant in fitted runs."""
        counts: list[int] = []
        count = min(len(set(self._place_N[self.fold_N != fold])) for fold in range(SPLITS))
        while count >= MIN_MIXTURES and len(counts) < MAX_COUNTS:
            flat = self._flat(count)
            if flat:
                return counts, flat
            counts.insert(0, count)
            count //= 2
        return counts, []

    def _flat(self, count: int) -> list[str]:
        """Return the losses that are constant in the fitted runs of a split."""
        flat_M = np.zeros(len(self.trials.targets), dtype=bool)
        for split in range(SPLITS):
            losses_NM = self.losses_NM[self.fitted(count, split)]
            flat_M |= np.ptp(losses_NM, axis=0) <= 1e-9 * np.maximum(np.abs(losses_NM[0]), 1e-12)
        return [self.trials.targets[column] for column in np.flatnonzero(flat_M).tolist()]

    def fitted(self, count: int, split: int) -> BoolArray:
        """Return the mask of fitted runs: the first mixtures that are not held out."""
        free_N = self.fold_N != split
        places = np.unique(self._place_N[free_N])[:count]
        return np.asarray(free_N & np.isin(self._place_N, places))

    def scores(
        self, count: int, split: int, names: Sequence[str], absent: dict[str, str]
    ) -> Iterator[_Score]:
        """Score every predictor on one split; `absent` collects why a peer is left out."""
        fitted_N = self.fitted(count, split)
        out_N = self.fold_N == split
        losses_NM = self.losses_NM - self._levels(fitted_N)
        learned = self._learned(fitted_N, losses_NM, self.objective)
        for name in names:
            yield self._fit_score(name, learned, out_N, losses_NM[out_N])
        for name, regressor in PEERS.items():
            if name in absent:
                continue
            try:
                peer = make_regressor(regressor, self.seed) if regressor else _ridge()
                law = fit_regressor(name, peer, learned.weights(), losses_NM[fitted_N])
                predicted_KM = predict_losses(law, self.weights_ND[out_N])
            except MixoptError as error:
                absent[name] = str(error)
                continue
            yield self._score(name, out_N, with_objective(self.objective, predicted_KM))
        yield from self._control_scores(fitted_N, out_N, losses_NM)

    def _fit_score(
        self, name: str, learned: Trials, out_N: BoolArray, observed_KM: Array
    ) -> _Score:
        """Score a fit, with coverage and width of its intervals."""
        fit = fit_trials(learned, FitConfig(regressors=[name]), self.objective, self.seed)
        prediction = fit.predict_turned(self.weights_ND[out_N])
        inside_KM = (prediction.low_NM <= observed_KM) & (observed_KM <= prediction.high_NM)
        halves_M = (prediction.high_NM - prediction.low_NM).mean(axis=0) / 2
        spreads_M = np.maximum(observed_KM.std(axis=0), 1e-12)
        predicted_KQ = np.column_stack([prediction.objective_N, prediction.losses_NM])
        score = self._score(name, out_N, predicted_KQ)
        score["coverage"] = float(inside_KM.mean())
        score["width"] = float((halves_M / spreads_M).mean())
        return score

    def _control_scores(
        self, fitted_N: BoolArray, out_N: BoolArray, losses_NM: Array
    ) -> Iterator[_Score]:
        used_N = fitted_N | out_N
        is_out_U = out_N[used_N]
        results = controls(
            self.weights_ND[used_N],
            losses_NM[used_N],
            is_out_U.astype(np.int64),
            self.trials.domains,
            self.objective,
        )
        for control in results:
            if control.name in CONTROLS:
                ranks_KQ = None if control.ranks_NQ is None else control.ranks_NQ[is_out_U]
                yield self._score(CONTROLS[control.name], out_N, ranks_KQ)

    def _levels(self, fitted_N: BoolArray) -> Array:
        """Return each run's size mean over the fitted runs; 0 for a single size."""
        levels_NM = np.zeros_like(self.losses_NM)
        if len(set(self.size_N.tolist())) > 1:
            for size in np.unique(self.size_N):
                of_size_N = self.size_N == size
                reference_N = of_size_N & fitted_N
                if not reference_N.any():
                    reference_N = of_size_N
                levels_NM[of_size_N] = self.losses_NM[reference_N].mean(axis=0)
        return levels_NM

    def _learned(self, fitted_N: BoolArray, losses_NM: Array, objective: Objective) -> Trials:
        """Return the fitted runs as trials of one size, with metrics as in the table."""
        targets = self.trials.targets
        columns = [
            pl.Series(loss_column(name, objective.unit), values_N)
            for name, values_N in zip(targets, objective.turned(losses_NM).T, strict=True)
        ]
        sizes = [pl.lit(None).alias(name) for name in ("parameters", "tokens")]
        table = self.trials.table.with_columns(*columns, *sizes).filter(pl.Series(fitted_N))
        return Trials(table, self.trials.domains, targets)

    def _score(self, name: str, out_N: BoolArray, ranks_KQ: Array | None) -> _Score:
        """Compare predictions with held-out runs; None predicts nothing and ranks nothing."""
        observed_KQ = self.observed_NQ[out_N]
        size_K = self.size_N[out_N]
        if ranks_KQ is None:
            ranks_KQ = np.zeros_like(observed_KQ)
        spearmans = []
        for predicted_K, observed_K in zip(ranks_KQ.T, observed_KQ.T, strict=True):
            spearmans.append(spearman_within(predicted_K, observed_K, size_K) or 0.0)
        picks = []
        for size in np.unique(size_K):
            of_size_K = size_K == size
            picks.append(_pick(ranks_KQ[of_size_K, 0], observed_KQ[of_size_K, 0]))
        rank, regret = np.mean(picks, axis=0).tolist()
        return {
            "predictor": name,
            "spearmans": spearmans,
            "loss_spearman": float(np.mean(spearmans[1:])),
            "objective_spearman": spearmans[0],
            "coverage": None,
            "width": None,
            "pick_rank": rank,
            "regret": regret,
        }

    def verdicts(self, scores: Sequence[_Score], name: str) -> list[dict[str, Any]]:
        """Return the ranking of each loss at the largest number of trials, the objective first."""
        names = (OBJECTIVE, *self.trials.targets)
        ranks_Q = _mean_spearmans(scores, name)
        control_ranks_Q = _mean_spearmans(scores, "own_share")
        readiness_Q = readiness_of(self.trials, self.observed_NQ, names)
        rows = []
        for of_trials, rank, control_rank in zip(
            readiness_Q, ranks_Q, control_ranks_Q, strict=True
        ):
            ready = LossReadiness(
                of_trials=of_trials,
                weight=1.0,
                mixtures=len(set(self.trials.mixtures)),
                spearman=rank,
                ceiling=None,
                control=("own_share", control_rank),
                domains={},
            )
            row = {
                "loss": of_trials.name,
                "state": ready.state,
                "spearman": rank,
                "low": ready.spearman_low,
                "own_share": control_rank,
            }
            rows.append(row)
        return rows

    def notes(self) -> Iterator[str]:
        """Yield notes on repeated mixtures, sizes, and few mixtures."""
        runs = len(self.trials)
        mixtures = len(set(self.trials.mixtures))
        domains = len(self.trials.domains)
        sizes = len(set(self.size_N.tolist()))
        if runs > mixtures:
            yield f"{runs} runs are of {mixtures} mixtures; those of one are held out together"
        if sizes > 1:
            yield f"runs of {sizes} sizes are compared within a size; each size's mean is taken off"
        if mixtures < domains:
            yield (
                f"fewer mixtures ({mixtures}) than domains ({domains}): merge domains that belong"
                " together, or add runs"
            )


def _mean_spearmans(scores: Sequence[_Score], predictor: str) -> list[float]:
    """Return the mean rank correlations of a predictor over the splits, the objective first."""
    spearmans = [score["spearmans"] for score in scores if score["predictor"] == predictor]
    means: list[float] = np.mean(spearmans, axis=0).tolist()
    return means


def _ridge() -> Regressor:
    """Return ridge regression on square roots of shares, with its penalty by leave-one-out."""
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    penalties = np.logspace(-6, 2, 17)
    ridge: Regressor = make_pipeline(FunctionTransformer(np.sqrt), RidgeCV(penalties))
    return ridge


def _pick(ranked_K: Array, observed_K: Array) -> tuple[float, float]:
    """Return the true rank and regret of the best prediction, averaged over ties."""
    best_K = ranked_K <= ranked_K.min() + 1e-12
    rank_K = 1 + (observed_K[None] < observed_K[:, None]).sum(axis=1)
    regret = observed_K[best_K].mean() - observed_K.min()
    return float(rank_K[best_K].mean()), float(regret)


def _enough(rows: Sequence[Mapping[str, Any]], name: str, overall: Mapping[str, Any]) -> int | None:
    """Return the smallest number of trials that is nearly as good as the largest."""
    if overall["state"] == "noise":
        return None
    regressor_rows = [row for row in rows if row["predictor"] == name]
    min_spearman = regressor_rows[-1]["objective_spearman"] - MAX_RANK_LOSS
    enough = [row["trials"] for row in regressor_rows if row["objective_spearman"] >= min_spearman]
    return int(enough[0])


def _verdict(
    rows: Sequence[Mapping[str, Any]],
    losses: Sequence[Mapping[str, Any]],
    name: str,
    enough: int | None,
    table: _Table,
) -> Iterator[str]:
    """Yield what the backtest shows and what it does not, in sentences."""
    max_trials = rows[-1]["trials"]
    if enough is None:
        yield f"this table cannot tell which mixture is better: {_why_not(losses[0], table)}"
    elif enough < max_trials:
        yield f"{enough} trials rank held-out runs about as well as {max_trials} do"
    else:
        yield f"all {max_trials} trials are needed: fewer rank worse, and more may rank better"
    ranks = {
        row["predictor"]: row["objective_spearman"] for row in rows if row["trials"] == max_trials
    }
    better = [other for other, rank in ranks.items() if rank > ranks[name] + MAX_RANK_LOSS]
    if better:
        yield f"at {max_trials} trials {listed(better)} rank the objective better than {name} does"
    noise = [loss["loss"] for loss in losses[1:] if loss["state"] == "noise"]
    if noise:
        yield f"{len(noise)} of {len(losses) - 1} losses cannot be told apart: {listed(noise)}"


def _why_not(overall: Mapping[str, Any], table: _Table) -> str:
    (ready,) = readiness_of(table.trials, table.observed_NQ[:, :1], [OBJECTIVE])
    if ready.noise is not None and ready.state == "noise":
        return (
            f"seeds of one mixture differ by {ready.noise:.3g}, mixtures by {ready.spread:.3g}"
            " (standard deviations of the objective); take a less noisy objective, or longer runs"
        )
    mixtures = len(set(table.trials.mixtures))
    low = "" if overall["low"] is None else f", lower bound {overall['low']:.2f}"
    return (
        f"the rank correlation of the objective on {mixtures} held-out mixtures is"
        f" {overall['spearman']:.2f}{low}; add runs, repeat some mixtures with other seeds, or"
        " choose another objective (--target LOSS)"
    )
