"""A fit: the chosen regressor, its predictions and its held-out errors.

A prediction has a 90% interval for a new trial with one seed, from errors on held-out folds, wider
beyond the trials. Objectives predicted better than all trials are shrunk, see
mixopt.fitting.intervals. With pilots, predictions are for runs of their size; with `size`, for that
size.

Shapes: N trials, D domains, M evaluation domains.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from mixopt.difference import shared_count, size_text, unit_text
from mixopt.errors import ConfigError, RunError
from mixopt.fitting.fit_data import FitData, ModelSize, ObjectiveLike
from mixopt.fitting.fit_files import read_fit, write_fit
from mixopt.fitting.held_out import OBJECTIVE, thin_evidence
from mixopt.fitting.intervals import (
    Calibration,
    Prediction,
    TrialReach,
    as_weights,
    calibrate,
    conformal_quantile,
    held_back,
)
from mixopt.fitting.pilots import CarriedRegressor, Correction, aligned
from mixopt.fitting.regressor import (
    Predictor,
    fit_regressor,
    predict_losses,
    predict_with_std,
    resampled_rows,
    select_targets,
    supports,
    supports_sizes,
)
from mixopt.mixture import Mixture, pairwise_total_variation
from mixopt.objective import Objective
from mixopt.system import Array, Trust, Update, no_progress, one_blas_thread, rank_text
from mixopt.trials import Trials, trials_fingerprint

if TYPE_CHECKING:
    from mixopt.config import ProposeConfig
    from mixopt.proposals import ConstraintsLike, Proposal
    from mixopt.reporting import FitPlots

SAME = 1e-3  # total variation within which a trial counts as the same mixture
# Factor on the quantile of held-out errors, which come from fits without one fold.
GAIN_WIDTH = 0.85


@dataclass(frozen=True, eq=False)
class Fit:
    """The chosen regressor, fitted on all finished trials, with the evidence for the choice.

    It is the first named whose held-out squared error of the objective exceeds the lowest by at
    most the standard error of this difference.

    Attributes:
        name: The chosen regressor.
        fitted: The estimator fitted on the trials.
        data: The finished trials as arrays, and the objective.
        report: Each regressor on held-out folds, beside controls and ceiling.
        held_out: A row for each regressor, trial and target: `predictor`, `trial`, `fold`,
            `target`, `observed`, `predicted`.
        size: The size at which it predicts, for trials of several sizes.
        pilots: Runs of the target size, which correct predictions to that size.
        inventory: Distinct tokens of each domain; a run's fit has those of the run.

    Examples:
        >>> run.fit
        Fit(...: 12 trials, 2 domains, 3 losses; held out: ...)
        >>> run.fit.domains, run.fit.targets
        (('code', 'prose'), ('code', 'prose', 'help'))
    """

    name: str
    fitted: Predictor
    data: FitData
    report: pl.DataFrame
    held_out: pl.DataFrame
    size: ModelSize | None = None
    pilots: Trials | None = None
    inventory: Mapping[str, int] | None = None

    @property
    def objective(self) -> Objective:
        """What is minimised."""
        return self.data.objective

    @property
    def trials(self) -> Trials:
        """The finished trials."""
        return self.data.trials

    @property
    def domains(self) -> tuple[str, ...]:
        """Domains, in the order of the weights."""
        return self.trials.domains

    @property
    def targets(self) -> tuple[str, ...]:
        """Evaluation domains, in the order of the losses."""
        return self.trials.targets

    @cached_property
    def scores(self) -> dict[str, dict[str, Any]]:
        """The rows of the report on the objective, by predictor; regressors hide controls."""
        rows = self.report.filter(target=OBJECTIVE).unique(
            "predictor", keep="first", maintain_order=True
        )
        return {row["predictor"]: row for row in rows.iter_rows(named=True)}

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the fitted trials."""
        return trials_fingerprint(self.trials)

    @cached_property
    def regressor(self) -> Predictor:
        """The predictor from mixtures alone: at `size`, corrected by the pilots."""
        predictor = self.fitted
        if self.size is not None:
            assert supports_sizes(predictor)
            predictor = predictor.at(self.size.parameters, self.size.tokens)
        if self.correction is None:
            return predictor
        typical_M = np.median(self.held_out_stds(), axis=0)
        return CarriedRegressor(
            self.name, predictor, self.correction, typical_M, partial(self.data.make, self.name)
        )

    @cached_property
    def correction(self) -> Correction | None:
        """The correction to the size of the pilots, if any."""
        if self.pilots is None:
            return None
        plain, weights_KD = replace(self, pilots=None), self.pilots.weights()
        return Correction.of(
            weights_KD,
            plain.predict_turned(weights_KD).losses_NM,
            self.objective.losses(self.pilots),
            spread_M=plain.known_losses_NM.std(axis=0),
            off_M=np.sqrt((self.held_out_errors() ** 2).mean(axis=0)),
        )

    def resampled(
        self,
        columns: Sequence[int],
        *,
        count: int,
        rng: np.random.Generator,
        update: Update = no_progress,
    ) -> tuple[Predictor, ...]:
        """Refit the regressor of some losses, by position, on mixtures drawn with replacement.

        A mixture is drawn with all its replicates. With `tuned`, a refit keeps the hyperparameters
        chosen on held-out folds, which is cheap. A regressor that predicts at a size and has no
        `tuned` is not refitted.
        """
        regressor, fits = select_targets(self.regressor, columns), list[Predictor]()
        if self.size is not None and not supports(regressor, "tuned"):
            return ()
        rows = self.data.rows(self.name, self.fitted)
        losses_NM = self.data.losses_NM[:, list(columns)]
        with one_blas_thread(len(rows)):
            for _ in range(count):
                drawn = resampled_rows(self.data.mixtures, rng)
                refit = (
                    regressor.tuned() if supports(regressor, "tuned") else self.data.make(self.name)
                )
                fits.append(fit_regressor(self.name, refit, rows[drawn], losses_NM[drawn]))
                update(len(fits), "refits")
        return tuple(fits)

    def with_pilots(self, pilots: Trials) -> Fit:
        """Return the fit corrected to another size by a few runs of that size.

        Args:
            pilots: Runs on the fit's domains and losses.

        Raises:
            TrialsError: The pilots have other domains, lack a loss, or have the trials' own size.
        """
        return replace(self, pilots=aligned(pilots, self.trials, self.objective))

    @property
    def is_carried(self) -> bool:
        """Whether it predicts for another size than the trials'."""
        return self.pilots is not None or self.size is not None

    @cached_property
    def predicted_size(self) -> dict[str, int | None]:
        """Tokens and parameters of the runs that it predicts; None where they differ."""
        if self.size is not None:
            return {"tokens": round(self.size.tokens), "parameters": round(self.size.parameters)}
        table = self.trials.table if self.pilots is None else self.pilots.table
        return {name: shared_count(table[name]) for name in ("tokens", "parameters")}

    @cached_property
    def known_losses_NM(self) -> Array:
        """Losses of the trials, or their predictions at another size, lower better, (N, M)."""
        data = self.data
        return (
            predict_losses(self.regressor, data.weights_ND) if self.is_carried else data.losses_NM
        )

    def observed(self, objective: Objective) -> Array:
        """Return an objective of the trials to minimise, corrected by the pilots, shape (N,)."""
        losses_NM = objective.losses(self.trials)
        if self.correction is not None:
            losses_NM = self.correction.apply(losses_NM, self.data.weights_ND)
        return objective.value(losses_NM)

    def held_out_losses(self) -> Array:
        """Predicted losses of held-out trials, lower better, shape (N, M)."""
        return self.objective.turned(self._held_out("predicted"))

    def held_out_errors(self) -> Array:
        """Return observed minus predicted losses of held-out trials, shape (N, M)."""
        return np.asarray(self.data.losses_NM - self.held_out_losses())

    def held_out_stds(self) -> Array:
        """The regressor's standard deviations for held-out trials, shape (N, M)."""
        return self._held_out("std")

    def _held_out(self, column: str) -> Array:
        rows = self.held_out.filter(predictor=self.name).partition_by("target", as_dict=True)
        return np.stack([rows[(name,)][column].to_numpy() for name in self.targets], axis=1)

    @cached_property
    def calibrations(self) -> tuple[Calibration, ...]:
        """The calibration of intervals for each target."""
        if self.correction is not None:
            return (Calibration(self.correction.quantile, 0.0, True),) * len(self.targets)
        columns = zip(self.targets, self.held_out_errors().T, self._claimed_NM.T, strict=True)
        return tuple(self._calibrated(errors, stds, (name,)) for name, errors, stds in columns)

    def objective_calibration(self, objective: Objective | None = None) -> Calibration:
        """The calibration of intervals of an objective."""
        over = objective or self.objective
        if self.correction is not None:
            return self.correction.calibration(over, self.known_losses_NM)
        stds_N = over.spread(self._claimed_NM)
        return self._calibrated(self.objective_errors(over), stds_N, over.measured)

    @cached_property
    def _claimed_NM(self) -> Array:
        """The regressor's standard deviations for held-out trials, including binomial errors."""
        return self._by_items(self.held_out_losses(), self.held_out_stds())

    def objective_errors(self, objective: Objective) -> Array:
        """Return observed minus predicted objectives of held-out trials, shape (N,)."""
        predicted_N = objective.value(self.held_out_losses())
        return np.asarray(objective.value(self.data.losses_NM) - predicted_N)

    def tried_best(self, objective: Objective) -> tuple[float, float] | None:
        """Return the best observed objective and the held-out error, for shrinking predictions.

        None if it predicts for another size, with other losses than the trials'.
        """
        if self.is_carried:
            return None
        errors_N = self.objective_errors(objective)
        best = float(objective.value(self.data.losses_NM).min())
        return best, float(np.sqrt((errors_N**2).mean()))

    def gain_half(self, mixture: Mixture, objective: Objective) -> float:
        """Return the half width of the 90% interval of a gain over an observed baseline.

        It is at most that of the predicted objective: a few trials at corners, with errors a
        thousand times those elsewhere, would make every gain as unsure as theirs.
        """
        prediction = self.predict_turned(mixture, objective)
        half = float(prediction.objective_high_N[0] - prediction.objective_N[0])
        if self.is_carried:
            return half
        even = GAIN_WIDTH * conformal_quantile(np.abs(self.objective_errors(objective)))
        return min(half, even * float(self.reach.stretch(mixture.array[None])[0]))

    def baseline(self, mixture: Mixture, objective: Objective) -> tuple[float, float]:
        """Return the value to minimise that gains are measured from, and its interval's half width.

        It is the mean of the mixture's own trials. Without own trials it is the prediction, and
        also for the best trial, whose observed value was lucky.
        """
        if not self.is_carried:
            distance_N1 = pairwise_total_variation(self.data.weights_ND, mixture.array[None])
            values_N, same_N = objective.value(self.data.losses_NM), distance_N1[:, 0] < SAME
            if same_N.any() and not same_N[values_N.argmin()]:
                return float(values_N[same_N].mean()), 0.0
        return self.value(mixture, objective), self.gain_half(mixture, objective)

    def value(self, mixture: Mixture, objective: Objective) -> float:
        """Return the predicted objective to minimise, without interval."""
        losses_1M = predict_losses(self.regressor, as_weights(mixture, self.domains))
        return float(self._held_back(objective.value(losses_1M), objective)[0])

    def _held_back(self, values_N: Array, objective: Objective) -> Array:
        best_and_error = self.tried_best(objective)
        return values_N if best_and_error is None else held_back(values_N, *best_and_error)

    @cached_property
    def item_variances(self) -> Array:
        """Binomial variance of shares of right answers, mean over trials, shape (M,)."""
        if self.correction is not None:
            return np.zeros(len(self.targets))
        errors_NM = self.objective.item_errors(self.data.losses_NM)
        return np.asarray(np.nan_to_num((errors_NM**2).mean(axis=0)))

    def _by_items(self, losses_NM: Array, stds_NM: Array) -> Array:
        """Return standard deviations with the binomial error of shares of right answers."""
        typical_M = self.item_variances
        if not typical_M.any():
            return stds_NM
        variance_NM = np.nan_to_num(self.objective.item_errors(losses_NM)) ** 2
        rest_NM = np.maximum(stds_NM**2 - typical_M, 0.0)
        return np.asarray(np.where(typical_M > 0, np.sqrt(rest_NM + variance_NM), stds_NM))

    def _calibrated(self, errors_N: Array, stds_N: Array, names: Sequence[str]) -> Calibration:
        has_items = any(name in self.objective.items for name in names)
        return calibrate(errors_N, stds_N, local=self.size is not None or has_items)

    @cached_property
    def reach(self) -> TrialReach:
        """The region of the trials, beyond which intervals are wider."""
        return TrialReach(self.data.weights_ND)

    def predict(
        self,
        weights: ArrayLike | Mapping[str, float] | Sequence[Mapping[str, float]],
        objective: Objective | None = None,
    ) -> Prediction:
        """Predict losses, metrics and objective.

        Args:
            weights: Mixtures: an array of shape (N, D), shares by domain, or a list of these.
            objective: The objective; None: the fit's own.

        Returns:
            Values as in the tables: of a metric, higher is better.

        Examples:
            >>> run.fit.predict({"code": 0.4, "prose": 0.6}).losses_NM.shape
            (1, 3)
        """
        over = objective or self.objective
        return self.predict_turned(weights, over).turned(over)

    def has_directions_of(self, objective: Objective) -> bool:
        """Whether an objective has the directions in which metrics entered the fit."""
        learned = [name for name in self.objective.higher if name in objective.evaluation]
        return set(objective.higher) == set(learned)

    def predict_turned(
        self,
        weights: ArrayLike | Mapping[str, float] | Sequence[Mapping[str, float]],
        objective: Objective | None = None,
    ) -> Prediction:
        """Predict losses and the objective as they are minimised: metrics are negated."""
        over = objective or self.objective
        if not self.has_directions_of(over):
            raise ConfigError(
                "objective: its directions are not those that the fit has learned, which are"
                f" higher for {', '.join(self.objective.higher) or 'none'}; fit again"
            )
        points_ND = as_weights(weights, self.domains)
        means_NM, stds_NM = predict_with_std(self.regressor, points_ND)
        stds_NM = self._by_items(means_NM, stds_NM)
        stretch_N = self.reach.stretch(points_ND)
        pairs = zip(self.calibrations, stds_NM.T, strict=True)
        halves_NM = np.stack(
            [stretch_N * calibration.halves(std_N) for calibration, std_N in pairs], axis=1
        )
        value_N = self._held_back(over.value(means_NM), over)
        half_N = stretch_N * self.objective_calibration(over).halves(over.spread(stds_NM))
        if over.kind == "target":  # the loss that is the objective has the objective's values
            means_NM = means_NM.copy()
            means_NM[:, over.columns[0]] = value_N
            halves_NM[:, over.columns[0]] = half_N
        return Prediction(
            losses_NM=means_NM,
            low_NM=means_NM - halves_NM,
            high_NM=means_NM + halves_NM,
            objective_N=value_N,
            objective_low_N=value_N - half_N,
            objective_high_N=value_N + half_N,
            targets=self.targets,
        )

    def __repr__(self) -> str:
        """Return the chosen regressor with its held-out accuracy."""
        row, unit = self.scores[self.name], self.objective.value_unit
        return (
            f"Fit({self.name!r}: {len(self.trials)} trials, {len(self.domains)} domains,"
            f" {len(self.targets)} losses; held out: Spearman {rank_text(row['spearman'])}, RMSE"
            f" {size_text(row['rmse'], unit)} {unit_text(unit)})"
        )

    @property
    def plot(self) -> FitPlots:
        """Its figures: `fit.plot.responses()` and others (mixopt.reporting.plots)."""
        from mixopt.reporting import FitPlots

        return FitPlots(self)

    def summary(self) -> str:
        """Return one line on the chosen regressor and its held-out accuracy."""
        unit, rank = self.objective.value_unit, self.scores[self.name]["spearman"]
        errors = {name: size_text(row["rmse"], unit) for name, row in self.scores.items()}
        rivals = [
            f"{name} {errors[name]}"
            for name, row in self.scores.items()
            if row["kind"] in ("regressor", "member") and name != self.name
        ]
        beside = ", ".join([*rivals, f"the mean {errors['mean']}"])
        rank_shown = "none" if rank is None else f"{rank:.3f}"
        error = f"error of the objective on held-out folds {errors[self.name]} ({beside})"
        lines = [f"{self.name}: {error}, Spearman {rank_shown}"]
        if self.size is not None:
            size = self.size
            lines.append(
                f"predicts at {size.parameters:.3g} parameters and {size.tokens:.3g} tokens"
            )
        if self.correction is not None:
            drawn = self.correction.lines
            slopes_M, count = drawn.slopes_M, len(drawn.weights_KD)
            lines.append(
                f"is corrected to the size of {count} pilot{'s' * (count != 1)} by lines, "
                f"slopes {slopes_M.min():.2f} to {slopes_M.max():.2f}"
            )
        thin = self.thin_evidence()
        return "; ".join(lines if thin is None else [*lines, thin])

    def thin_evidence(self) -> str | None:
        """Return a line on what trials of fewer mixtures than domains can tell; else None."""
        return thin_evidence(self.data.weights_ND, self.domains)

    def reasons(self) -> list[str]:
        """Return the regressor's explanation, one line for each target, if it has one."""
        return list(self.fitted.explain(self.targets)) if supports(self.fitted, "explain") else []

    def evaluate(self, unseen: Trials) -> dict[str, Any]:
        """Test the fit on unseen runs, as `mixopt fit --test` does.

        Args:
            unseen: Runs with losses in the fit's unit, on its domains and some of its losses.

        Returns:
            Ranks, errors, coverage and regret, by loss and for their mean
            (`mixopt.fitting.evaluate`).

        Raises:
            TrialsError: Other domains, losses or another unit than the fit's, or too few runs.
        """
        from mixopt.fitting.evaluation import evaluate

        return evaluate(self, unseen)

    def propose(
        self,
        *,
        target: ObjectiveLike | None = None,
        constraints: ConstraintsLike | None = None,
        inventory: Mapping[str, float] | str | Path | None = None,
        tokens: float | str | None = None,
        search: ProposeConfig | None = None,
        seed: int = 0,
        collapsed: Collection[str] | None = None,
    ) -> Proposal:
        """Propose the mixture with the best predicted objective, as `mixopt propose DIR` does.

        Args:
            target: A loss by name or glob, several, or weights; None: the fit's own objective.
            constraints: `Constraints`, the fields of an experiment's `constraints:`, or a YAML file
                with them.
            inventory: Distinct tokens of each domain, or a YAML file with them; None: those of the
                fit's run. Without an inventory there are no epochs, and uniform stands for the
                natural mixture.
            tokens: Length of the full run in tokens, such as 25e9, for epochs and `max_epochs`.
            search: Settings of the search: the fields of an experiment's `propose:`.
            seed: Seed of random draws.
            collapsed: Trials whose experts collapsed, for `guardrails.experts`.

        Raises:
            ConfigError: An unknown loss or domain, or an invalid argument.
            InfeasibleError: No mixture meets the constraints.

        Examples:
            >>> run.fit.propose(target="code", constraints={"bounds": {"code": [0, 0.5]}}).mixture
            Mixture(code 50%, prose 50%)
        """
        from mixopt.proposals import ProposalRequest, propose_mixture

        request = ProposalRequest.of(
            self,
            target,
            constraints=constraints,
            inventory=self.inventory if inventory is None else inventory,
            tokens=tokens,
            search=search,
            seed=seed,
            collapsed=collapsed,
            phases=self.trials.phases,
        )
        return propose_mixture(request)

    def save(self, path: str | Path) -> None:
        """Write the fit to the folder `path`, without pickle; fit.json is written last.

        Raises:
            RunError: The folder belongs to a run or to `mixopt fit`, which save fits in `fit/`.
        """
        path = Path(path)
        if (path / "config.yaml").exists() or (path / "fit" / "fit.json").exists():
            raise RunError(f"{path}: is a run directory or has a fit already; use another folder")
        tables = self.report, self.held_out
        write_fit(path, self.name, self.fitted, self.data, *tables, self.size, self.pilots)

    @classmethod
    def load(cls, path: Path, *, trust: Trust = False) -> Fit:
        """Read a fit that `save` wrote; refit a regressor that could not be written.

        Args:
            path: The folder.
            trust: Whether code that the folder names may be imported, or the names that may be;
                entry points always may.

        Raises:
            RunError: The folder holds no fit, or its files were changed.
            PluginError: Its regressor is not installed, is named by an untrusted path, or cannot be
                read.
        """
        return cls(**read_fit(path, trust))
