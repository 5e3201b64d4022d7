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
        measured = [name for name in objective.evaluation if name not in flat]
        if not measured or any(name in flat for name in objective.measured):
            raise TrialsError(
                f"backtest: {listed(flat)}: the same in all fitted runs of a split, so nothing can"
                " be learned of it: choose other losses (--target LOSS, repeatable)"
            )
        note = f"left out {listed(flat)}: it nearly never changes"
        varying, over = trials.with_targets(measured).with_notes(note), objective.over(measured)
        return backtest_trials(varying, over, regressors=regressors, seed=seed, update=update)
    names = list(dict.fromkeys(regressors)) or [DEFAULT]
    spent, total = 0.0, sum(SPLITS * (count + 20) for count in counts)  # time of fits
    scores: list[_Score] = []
    absent: dict[str, str] = {}
    for count in counts:
        runs = round(float(np.mean([table.fitted(count, k).sum() for k in range(SPLITS)])))
        for split in range(SPLITS):
            update(spent / total, f"{runs} trials, split {split + 1} of {SPLITS}")
            split_scores = table.scores(count, split, names, absent)
            scores += [{"trials": runs, **score} for score in split_scores]
            spent += count + 20
    update(1.0, "")
    figures = pl.DataFrame(scores, infer_schema_length=None).drop("spearmans")
    rows = figures.group_by("trials", "predictor", maintain_order=True).mean().to_dicts()
    losses = table.verdicts([score for score in scores if score["trials"] == runs], names[0])
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


class _Table:
    """Finished runs, and their splits into fitted and held-out runs."""

    def __init__(self, trials: Trials, objective: Objective, seed: int) -> None:
        self.trials, self.seed = trials, seed
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
        place = dict(zip(mixtures, order.tolist(), strict=True))
        self._place_N = np.array([place[name] for name in trials.mixtures])

    def counts(self) -> tuple[list[int], list[str]]:
        """Return the numbers of mixtures to fit, and the losses constant in fitted runs."""
        counts: list[int] = []
        count = min(len(set(self._place_N[self.fold_N != fold])) for fold in range(SPLITS))
        while count >= MIN_MIXTURES and len(counts) < MAX_COUNTS:
            if flat := self._flat(count):
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
        return [name for name, flat in zip(self.trials.targets, flat_M, strict=True) if flat]

    def fitted(self, count: int, split: int) -> BoolArray:
        """Return the mask of fitted runs: the first mixtures that are not held out."""
        free_N = self.fold_N != split
        places = np.unique(self._place_N[free_N])[:count]
        return np.asarray(free_N & np.isin(self._place_N, places))

    def scores(
        self, count: int, split: int, names: Sequence[str], absent: dict[str, str]
    ) -> Iterator[_Score]:
        """Score every predictor on one split; `absent` collects why a peer is left out."""
        fitted_N, out_N = self.fitted(count, split), self.fold_N == split
        losses_NM = self.losses_NM - self._levels(fitted_N)
        learned = self._learned(fitted_N, losses_NM, self.objective)
        weights_KD, observed_KM = self.weights_ND[out_N], losses_NM[out_N]
        for name in names:
            fit = fit_trials(learned, FitConfig(regressors=[name]), self.objective, self.seed)
            prediction = fit.predict_turned(weights_KD)
            inside_KM = (prediction.low_NM <= observed_KM) & (observed_KM <= prediction.high_NM)
            halves_M = (prediction.high_NM - prediction.low_NM).mean(axis=0) / 2
            width = float((halves_M / np.maximum(observed_KM.std(axis=0), 1e-12)).mean())
            predicted_KQ = np.column_stack([prediction.objective_N, prediction.losses_NM])
            score = self._score(name, out_N, predicted_KQ)
            yield score | {"coverage": float(inside_KM.mean()), "width": width}
        for name, regressor in PEERS.items():
            if name in absent:
                continue
            try:
                peer = make_regressor(regressor, self.seed) if regressor else _ridge()
                law = fit_regressor(name, peer, learned.weights(), losses_NM[fitted_N])
                predicted_KM = predict_losses(law, weights_KD)
            except MixoptError as error:
                absent[name] = str(error)
                continue
            yield self._score(name, out_N, with_objective(self.objective, predicted_KM))
        used_N = fitted_N | out_N
        fold_N = out_N[used_N].astype(np.int64)
        domains = self.trials.domains
        for control in controls(
            self.weights_ND[used_N], losses_NM[used_N], fold_N, domains, self.objective
        ):
            if control.name in CONTROLS:
                ranks_KQ = None if control.ranks_NQ is None else control.ranks_NQ[fold_N == 1]
                yield self._score(CONTROLS[control.name], out_N, ranks_KQ)

    def _levels(self, fitted_N: BoolArray) -> Array:
        """Return each run's size mean over the fitted runs; 0 for a single size."""
        levels_NM = np.zeros_like(self.losses_NM)
        if len(set(self.size_N.tolist())) > 1:
            for size in np.unique(self.size_N):
                of_size_N = self.size_N == size
                reference_N = of_size_N & fitted_N if (of_size_N & fitted_N).any() else of_size_N
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
        observed_KQ, size_K = self.observed_NQ[out_N], self.size_N[out_N]
        ranked_KQ = np.zeros_like(observed_KQ) if ranks_KQ is None else ranks_KQ
        pairs = zip(ranked_KQ.T, observed_KQ.T, strict=True)
        spearmans = [spearman_within(*pair, size_K) or 0.0 for pair in pairs]
        groups = [size_K == size for size in np.unique(size_K)]
        picks = [_pick(ranked_KQ[rows, 0], observed_KQ[rows, 0]) for rows in groups]
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
        names, mixtures = (OBJECTIVE, *self.trials.targets), len(set(self.trials.mixtures))
        ranks_Q, controls_Q = (
            np.mean(
                [score["spearmans"] for score in scores if score["predictor"] == predictor], axis=0
            ).tolist()
            for predictor in (name, "own_share")
        )
        rows = []
        for of_trials, rank, control in zip(
            readiness_of(self.trials, self.observed_NQ, names), ranks_Q, controls_Q, strict=True
        ):
            ready = LossReadiness(of_trials, 1.0, mixtures, rank, None, ("own_share", control), {})
            numbers = {"spearman": rank, "low": ready.spearman_low, "own_share": control}
            rows.append({"loss": of_trials.name, "state": ready.state, **numbers})
        return rows

    def notes(self) -> Iterator[str]:
        """Yield notes on repeated mixtures, sizes, and few mixtures."""
        runs, mixtures = len(self.trials), len(set(self.trials.mixtures))
        domains, sizes = len(self.trials.domains), len(set(self.size_N.tolist()))
        if runs > mixtures:
            yield f"{runs} runs are of {mixtures} mixtures; those of one are held out together"
        if sizes > 1:
            yield f"runs of {sizes} sizes are compared within a size; each size's mean is taken off"
        if mixtures < domains:
            yield (
                f"fewer mixtures ({mixtures}) than domains ({domains}): merge domains that belong"
                " together, or add runs"
            )


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
    rank_K = np.array([1 + int((observed_K < value).sum()) for value in observed_K])
    return float(rank_K[best_K].mean()), float(observed_K[best_K].mean() - observed_K.min())


def _enough(rows: Sequence[Mapping[str, Any]], name: str, overall: Mapping[str, Any]) -> int | None:
    """Return the smallest number of trials that is nearly as good as the largest."""
    if overall["state"] == "noise":
        return None
    regressor_rows = [row for row in rows if row["predictor"] == name]
    min_spearman = regressor_rows[-1]["objective_spearman"] - MAX_RANK_LOSS
    return next(
        int(row["trials"]) for row in regressor_rows if row["objective_spearman"] >= min_spearman
    )


def _verdict(
    rows: Sequence[Mapping[str, Any]],
    losses: Sequence[Mapping[str, Any]],
    name: str,
    enough: int | None,
    table: _Table,
) -> Iterator[str]:
    """Yield what the backtest shows and what it does not, in sentences."""
    overall, max_trials = losses[0], rows[-1]["trials"]
    last = {row["predictor"]: row for row in rows if row["trials"] == max_trials}
    if enough is None:
        yield f"this table cannot tell which mixture is better: {_why_not(overall, table)}"
    else:
        yield (
            f"{enough} trials rank held-out runs about as well as {max_trials} do"
            if enough < max_trials
            else f"all {max_trials} trials are needed: fewer rank worse, and more may rank better"
        )
    better = [
        other
        for other, row in last.items()
        if other != name
        and row["objective_spearman"] > last[name]["objective_spearman"] + MAX_RANK_LOSS
    ]
    if better:
        yield f"at {max_trials} trials {listed(better)} rank the objective better than {name} does"
    noise = [loss["loss"] for loss in losses[1:] if loss["state"] == "noise"]
    if noise:
        yield f"{len(noise)} of {len(losses) - 1} losses cannot be told apart: {listed(noise)}"


def _why_not(overall: Mapping[str, Any], table: _Table) -> str:
    (of,) = readiness_of(table.trials, table.observed_NQ[:, :1], [OBJECTIVE])
    if of.noise is not None and of.state == "noise":
        return (
            f"seeds of one mixture differ by {of.noise:.3g}, mixtures by {of.spread:.3g} (standard"
            " deviations of the objective); take a less noisy objective, or longer runs"
        )
    mixtures = len(set(table.trials.mixtures))
    low = "" if overall["low"] is None else f", lower bound {overall['low']:.2f}"
    return (
        f"the rank correlation of the objective on {mixtures} held-out mixtures is"
        f" {overall['spearman']:.2f}{low}; add runs, repeat some mixtures with other seeds, or"
        " choose another objective (--target LOSS)"
    )
