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
from mixopt.fitting.fit_data import FitData, ModelSize, ObjectiveLike, thin_evidence
from mixopt.fitting.fit_files import read_fit, write_fit
from mixopt.fitting.held_out import accuracy_text, objective_scores
from mixopt.fitting.held_out_errors import HeldOutErrors, with_item_errors
from mixopt.fitting.intervals import Calibration, Prediction, TrialReach, as_weights, held_back
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


@dataclass(frozen=True, eq=False)
class Fit:
    """The chosen regressor, fitted on all finished trials, with the evidence for the choice.

    The choice is the first named regressor whose held-out squared error of the objective exceeds
    the lowest by at most the standard error of this difference.

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
        return objective_scores(self.report)

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
        return CarriedRegressor(
            name=self.name,
            regressor=predictor,
            correction=self.correction,
            typical_M=np.median(self.errors.stds_NM, axis=0),
            make=partial(self.data.make, self.name),
        )

    @cached_property
    def correction(self) -> Correction | None:
        """The correction to the size of the pilots, if any."""
        if self.pilots is None:
            return None
        uncorrected = replace(self, pilots=None)
        weights_KD = self.pilots.weights()
        return Correction.of(
            weights_KD,
            uncorrected.predict_turned(weights_KD).losses_NM,
            self.objective.losses(self.pilots),
            spread_M=uncorrected.known_losses_NM.std(axis=0),
            off_M=self.errors.rmse_M,
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

        All replicates of a drawn mixture are drawn with it. With `tuned`, a refit keeps the
        hyperparameters chosen on held-out folds, which is cheap. A regressor that predicts at a
        size and has no `tuned` is not refitted.
        """
        regressor = select_targets(self.regressor, columns)
        if self.size is not None and not supports(regressor, "tuned"):
            return ()
        rows = self.data.rows(self.name, self.fitted)
        losses_NM = self.data.losses_NM[:, list(columns)]
        refits: list[Predictor] = []
        with one_blas_thread(len(rows)):
            for _ in range(count):
                drawn = resampled_rows(self.data.mixtures, rng)
                if supports(regressor, "tuned"):
                    unfitted = regressor.tuned()
                else:
                    unfitted = self.data.make(self.name)
                refits.append(fit_regressor(self.name, unfitted, rows[drawn], losses_NM[drawn]))
                update(len(refits), "refits")
        return tuple(refits)

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
        if self.is_carried:
            return predict_losses(self.regressor, self.data.weights_ND)
        return self.data.losses_NM

    def observed(self, objective: Objective) -> Array:
        """Return an objective of the trials to minimise, corrected by the pilots, shape (N,)."""
        losses_NM = objective.losses(self.trials)
        if self.correction is not None:
            losses_NM = self.correction.apply(losses_NM, self.data.weights_ND)
        return objective.value(losses_NM)

    @cached_property
    def errors(self) -> HeldOutErrors:
        """The held-out predictions of the chosen regressor, and their errors."""
        is_sized = self.size is not None
        observed_NM = self.data.losses_NM
        return HeldOutErrors.of(
            self.held_out, self.name, self.objective, observed_NM, local=is_sized
        )

    @cached_property
    def calibrations(self) -> tuple[Calibration, ...]:
        """The calibration of intervals for each target."""
        if self.correction is not None:
            return (Calibration(self.correction.quantile, 0.0, True),) * len(self.targets)
        return self.errors.calibrations

    def objective_calibration(self, objective: Objective | None = None) -> Calibration:
        """Return the calibration of intervals of an objective; None: the fit's own."""
        objective = objective or self.objective
        if self.correction is not None:
            return self.correction.calibration(objective, self.known_losses_NM)
        return self.errors.objective_calibration(objective)

    @property
    def item_variances(self) -> Array:
        """Binomial variance of shares of right answers, mean over trials, shape (M,)."""
        if self.correction is not None:
            return np.zeros(len(self.targets))
        return self.errors.item_variances

    def tried_best(self, objective: Objective) -> tuple[float, float] | None:
        """Return the best observed objective and the held-out error, for shrinking predictions.

        None if it predicts for another size, where losses differ from those of the trials.
        """
        if self.is_carried:
            return None
        best = float(objective.value(self.data.losses_NM).min())
        return best, self.errors.objective_rmse(objective)

    def gain_half(self, mixture: Mixture, objective: Objective) -> float:
        """Return the half width of the 90% interval of a gain over an observed baseline.

        It is at most that of the predicted objective. Otherwise a few trials at corners, with
        errors a thousand times larger than elsewhere, would widen the interval of every gain.
        """
        prediction = self.predict_turned(mixture, objective)
        half = float(prediction.objective_high_N[0] - prediction.objective_N[0])
        if self.is_carried:
            return half
        stretch = float(self.reach.stretch(mixture.array[None])[0])
        return min(half, self.errors.gain_width(objective) * stretch)

    def baseline(self, mixture: Mixture, objective: Objective) -> tuple[float, float]:
        """Return the value to minimise that gains are measured from, and its interval's half width.

        It is the mean over trials of this mixture. Without such trials it is the prediction, and
        also for the best trial, whose observed value was lucky.
        """
        if not self.is_carried:
            distance_N1 = pairwise_total_variation(self.data.weights_ND, mixture.array[None])
            is_same_N = distance_N1[:, 0] < SAME
            values_N = objective.value(self.data.losses_NM)
            if is_same_N.any() and not is_same_N[values_N.argmin()]:
                return float(values_N[is_same_N].mean()), 0.0
        return self.value(mixture, objective), self.gain_half(mixture, objective)

    def value(self, mixture: Mixture, objective: Objective) -> float:
        """Return the predicted objective to minimise, without interval."""
        losses_1M = predict_losses(self.regressor, as_weights(mixture, self.domains))
        return float(self._held_back(objective.value(losses_1M), objective)[0])

    def _held_back(self, values_N: Array, objective: Objective) -> Array:
        best_and_error = self.tried_best(objective)
        if best_and_error is None:
            return values_N
        best, error = best_and_error
        return held_back(values_N, best, error)

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
        stds_NM = with_item_errors(self.objective, means_NM, stds_NM, self.item_variances)
        stretch_N = self.reach.stretch(points_ND)
        halves_NM = np.empty_like(means_NM)
        for column, calibration in enumerate(self.calibrations):
            halves_NM[:, column] = stretch_N * calibration.halves(stds_NM[:, column])
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
        row = self.scores[self.name]
        unit = self.objective.value_unit
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
        parts = [accuracy_text(self.scores, self.name, self.objective.value_unit)]
        if self.size is not None:
            size = self.size
            parts.append(
                f"predicts at {size.parameters:.3g} parameters and {size.tokens:.3g} tokens"
            )
        if self.correction is not None:
            parts.append(self.correction.describe())
        thin = self.thin_evidence()
        if thin is not None:
            parts.append(thin)
        return "; ".join(parts)

    def thin_evidence(self) -> str | None:
        """Return a line on what trials of fewer mixtures than domains can tell; else None."""
        return thin_evidence(self.data.weights_ND, self.domains)

    def reasons(self) -> list[str]:
        """Return the regressor's explanation, one line for each target, if it has one."""
        if not supports(self.fitted, "explain"):
            return []
        return list(self.fitted.explain(self.targets))

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
        write_fit(
            path,
            name=self.name,
            fitted=self.fitted,
            data=self.data,
            report=self.report,
            held_out=self.held_out,
            size=self.size,
            pilots=self.pilots,
        )

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
