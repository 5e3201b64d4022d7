"""A fit: the chosen regressor, what it predicts and how wrong it was, and its folder.

A prediction has a 90% interval for a new trial with one seed, from errors on held-out folds
(mixopt.fitting.intervals); far from all trials it is too narrow. With pilots
(mixopt.fitting.pilots) predictions and intervals are of runs at their size; with a size
(mixopt.fitting.model_sizes), at that one.

    fit/
      fit.json             the choice, the objective, fingerprints
      report.parquet       mixopt.fitting.fit_report
      held_out.parquet     every held-out prediction
      trials.parquet       the trials that were fitted
      pilots.parquet       the pilots, where there are some; their correction is in fit.json
      regressor/           the fitted regressor, where it can be written without pickle

A regressor that cannot be written is fitted again, with the same seed on the same trials, when
the folder is read.

Shapes: N trials, D domains, M evaluation domains.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from mixopt.errors import RunError
from mixopt.fitting.fit_report import OBJECTIVE
from mixopt.fitting.intervals import Calibration, calibrate
from mixopt.fitting.model_sizes import Size, regressor_rows
from mixopt.fitting.pilot_regressor import Corrected
from mixopt.fitting.pilots import Pilots, aligned, learn_pilots
from mixopt.fitting.prediction import Prediction, as_weights
from mixopt.fitting.regressor import (
    can_be_saved,
    fit_regressor,
    make_regressor,
    predict_with_std,
    read_regressor,
)
from mixopt.fitting.repetition import Repetition
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.system import Array, read_json, replacing, write_json
from mixopt.trials import Trials, trials_fingerprint

if TYPE_CHECKING:
    from mixopt.config import ProposeConfig
    from mixopt.proposals import ConstraintsLike, Proposal, RiskLike

FORMAT = "mixopt-fit/1"
CRITERION = "least root mean squared error of the objective on held-out folds"


@dataclass(frozen=True, eq=False)
class Fit:
    """The chosen regressor, fitted on all finished trials, and how it was chosen.

    Attributes:
        name: The chosen regressor.
        fitted: The estimator, as it was fitted on the trials.
        objective: What is minimised.
        trials: The finished trials that it was fitted on.
        report: Each regressor on held-out folds, beside controls and ceiling.
        held_out: A row for each regressor, trial and target: `predictor`, `trial`, `fold`,
            `target`, `observed`, `predicted`.
        seed: Seed of folds and regressors.
        folds: How many folds there were.
        size: What it predicts at, where the trials are of several sizes.
        repetition: Inventory and tokens that regressors were given.
        pilots: What carries it to the target size.
    """

    name: str
    fitted: Any
    objective: Objective
    trials: Trials
    report: pl.DataFrame
    held_out: pl.DataFrame
    seed: int
    folds: int
    criterion: str = CRITERION
    size: Size | None = None
    repetition: Repetition | None = None
    pilots: Pilots | None = None

    @cached_property
    def regressor(self) -> Any:
        """What predicts losses from mixtures: at the size that is asked, carried by the pilots."""
        own = self.fitted if self.size is None else self.fitted.at(**self.size.to_json())
        if self.pilots is None:
            return own
        pilots = self.pilots
        return Corrected(self.name, own, pilots.correction, pilots.typical_M, self._made)

    def with_pilots(self, pilots: Trials) -> Fit:
        """Return the fit carried to another size by a few runs of that size.

        Args:
            pilots: Runs on the fit's domains and losses.

        Raises:
            TrialsError: They are of other domains, lack a loss, or are of the trials' own size.
        """
        plain = replace(self, pilots=None)
        runs = aligned(pilots, self.trials, self.objective)
        learned = learn_pilots(
            runs,
            plain.predict(runs.weights()).losses_NM,
            self.objective,
            spread_M=plain.spreads(),
            noise_M=np.sqrt((plain.held_out_errors() ** 2).mean(axis=0)),
            typical_M=np.median(plain.held_out_stds(), axis=0),
        )
        return replace(self, pilots=learned)

    @property
    def is_carried(self) -> bool:
        """Whether it predicts runs of another size than the trials'."""
        return self.pilots is not None or self.size is not None

    def spreads(self) -> Array:
        """Standard deviation of each loss over the trials, at the size it predicts, shape (M,)."""
        losses_NM = (
            self.predict(self.trials.weights()).losses_NM
            if self.is_carried
            else self.trials.losses(self.objective.unit)
        )
        return np.asarray(losses_NM.std(axis=0))

    def rows(self) -> Array:
        """Return what the regressor was fitted on: weights, with sizes where it knows of them."""
        return regressor_rows(self.name, self.fitted, self.trials)

    def carried(self, losses_NM: Array) -> Array:
        """Return losses of the trials as pilots carry them over; unchanged without pilots."""
        if self.pilots is None:
            return losses_NM
        return self.pilots.correction.apply(losses_NM, self.trials.weights())

    @property
    def domains(self) -> tuple[str, ...]:
        """Domains, in the order of the weights."""
        return self.trials.domains

    @property
    def targets(self) -> tuple[str, ...]:
        """Evaluation domains, in the order of the losses."""
        return self.trials.targets

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the trials that were fitted."""
        return trials_fingerprint(self.trials)

    def held_out_losses(self) -> Array:
        """Losses that the chosen regressor predicts for held-out trials, shape (N, M)."""
        return self._held_out_columns("predicted")

    def _held_out_columns(self, column: str) -> Array:
        rows = self.held_out.filter(pl.col("predictor") == self.name)
        columns = [rows.filter(pl.col("target") == name)[column] for name in self.targets]
        return np.stack([one.to_numpy() for one in columns], axis=1)

    def held_out_errors(self) -> Array:
        """Return observed less predicted losses of held-out trials, shape (N, M)."""
        errors: Array = self.trials.losses(self.objective.unit) - self.held_out_losses()
        return errors

    def objective_errors(self, objective: Objective | None = None) -> Array:
        """Return observed less predicted objective of held-out trials, shape (N,)."""
        asked = objective or self.objective
        observed_N = asked.value(self.trials.losses(self.objective.unit))
        return observed_N - asked.value(self.held_out_losses())

    def held_out_stds(self) -> Array:
        """Deviations that the chosen regressor claimed for held-out trials, shape (N, M)."""
        return self._held_out_columns("std")

    @cached_property
    def calibrations(self) -> tuple[Calibration, ...]:
        """How deviations become intervals, for each target."""
        if self.pilots is not None:
            return (self.pilots.calibration,) * len(self.targets)
        pairs = zip(self.held_out_errors().T, self.held_out_stds().T, strict=True)
        beyond = self.size is not None
        return tuple(calibrate(errors_N, stds_N, local=beyond) for errors_N, stds_N in pairs)

    def objective_calibration(self, objective: Objective | None = None) -> Calibration:
        """How deviations of an objective become intervals."""
        asked = objective or self.objective
        if self.pilots is not None:
            return self.pilots.objective_calibration(asked)
        errors_N, stds_N = self.objective_errors(asked), asked.spread(self.held_out_stds())
        return calibrate(errors_N, stds_N, local=self.size is not None)

    def predict(
        self, weights: ArrayLike | Mixture | Sequence[Mixture], objective: Objective | None = None
    ) -> Prediction:
        """Predict losses and objective.

        Args:
            weights: Mixtures: an array of shape (N, D), a `Mixture`, or several.
            objective: The fit's own when None.
        """
        asked = objective or self.objective
        losses_NM, stds_NM = predict_with_std(self.regressor, as_weights(weights, self.domains))
        halves = [c.halves(std_N) for c, std_N in zip(self.calibrations, stds_NM.T, strict=True)]
        halves_NM, value_N = np.stack(halves, axis=1), asked.value(losses_NM)
        half_N = self.objective_calibration(asked).halves(asked.spread(stds_NM))
        return Prediction(
            losses_NM=losses_NM,
            low_NM=losses_NM - halves_NM,
            high_NM=losses_NM + halves_NM,
            objective_N=value_N,
            objective_low_N=value_N - half_N,
            objective_high_N=value_N + half_N,
        )

    def summary(self) -> str:
        """Say in a line what was chosen and how good it is on held-out folds."""
        rows = self.report.filter(pl.col("target") == OBJECTIVE)
        error = dict(zip(rows["predictor"], rows["rmse"], strict=True))
        rank = dict(zip(rows["predictor"], rows["spearman"], strict=True))
        others = [
            n
            for n, kind in zip(rows["predictor"], rows["kind"], strict=True)
            if kind in ("regressor", "member")
        ]
        beaten = ", ".join(f"{name} {error[name]:.4f}" for name in others if name != self.name)
        ranks = "none" if rank[self.name] is None else f"{rank[self.name]:.3f}"
        return (
            f"{self.name}: error of the objective on held-out folds {error[self.name]:.4f}"
            f" ({beaten + ', ' if beaten else ''}the mean {error['mean']:.4f}), Spearman {ranks}"
            + "".join(f"; {line}" for line in self.carried_by())
        )

    def carried_by(self) -> list[str]:
        """Say at which size it predicts, where that is not the trials'."""
        lines = [] if self.size is None else [f"predicts at {self.size.describe()}"]
        return lines if self.pilots is None else [*lines, self.pilots.describe()]

    def reasons(self) -> list[str]:
        """Say why the regressor predicts as it does, a line a target, where it can tell."""
        explain = getattr(self.fitted, "explain", None)
        return [] if explain is None else list(explain(self.targets))

    def save(self, path: str | Path) -> None:
        """Write everything into the folder `path`, without pickle; fit.json comes last.

        Raises:
            RunError: The folder is that of a run or of `mixopt fit`, which have theirs in `fit/`.
        """
        path = Path(path)
        if (path / "config.yaml").exists() or (path / "fit" / "fit.json").exists():
            raise RunError(f"{path}: is a run directory or has a fit already; use another folder")
        tables = (("report", self.report), ("held_out", self.held_out))
        for name, table in tables:
            with replacing(path / f"{name}.parquet") as temporary:
                table.write_parquet(temporary)
        self.trials.write(path / "trials.parquet")
        if can_be_saved(self.fitted):
            self.fitted.save(path / "regressor")
        if self.pilots is not None:
            self.pilots.trials.write(path / "pilots.parquet")
        write_json(path / "fit.json", self._content())

    def evaluate(self, unseen: Trials, *, affine: bool = False) -> dict[str, Any]:
        """Test the fit against runs that it has not seen, as `mixopt evaluate` does.

        Args:
            unseen: Runs with losses in the fit's unit, on its domains and some of its losses.
            affine: Map predictions to the scale of the runs first, each by the other runs.

        Returns:
            Ranks, errors, coverage and regret, by loss and for their mean
            (mixopt.fitting.evaluation.evaluate).

        Raises:
            TrialsError: Other domains, losses or another unit than the fit's, or too few runs.
        """
        from mixopt.fitting.evaluation import evaluate

        return evaluate(self, unseen, affine=affine)

    def propose(
        self,
        *,
        target: str | None = None,
        constraints: ConstraintsLike | None = None,
        inventory: Mapping[str, float] | str | Path | None = None,
        tokens: float | str | None = None,
        risk: RiskLike | None = None,
        search: ProposeConfig | None = None,
        seed: int = 0,
        collapsed: Collection[str] | None = None,
    ) -> Proposal:
        """Propose the mixture with the best predicted objective, as `mixopt propose DIR` does.

        Args:
            target: A loss to minimise by its name; the fit's own objective when None.
            constraints: What is allowed: `Constraints`, the fields of an experiment's
                `constraints:`, or a YAML file of them.
            inventory: Distinct tokens of each domain, or a YAML file of them; without, nothing is
                known of epochs, and the natural mixture is taken to be the uniform one.
            tokens: Length of the full run, such as 25e9, for epochs and `max_epochs`.
            risk: How much being unsure counts: `{"std": K}` or `{"quantile": Q}`.
            search: How the best mixture is searched; the fields of an experiment's `propose:`.
            seed: Of the draws.
            collapsed: Trials whose experts collapsed, for `guardrails.experts`.

        Raises:
            ConfigError: An unknown loss or domain, or an argument that cannot be right.
            InfeasibleError: Constraints that no mixture meets.
        """
        from mixopt.proposals import Question

        question = Question.of(
            self,
            constraints=constraints,
            inventory=inventory,
            tokens=tokens,
            risk=risk,
            search=search,
            seed=seed,
            collapsed=collapsed,
        )
        return question.proposal(target)

    @classmethod
    def load(cls, path: Path) -> Fit:
        """Read a fit that `save` wrote; a regressor that was not written is fitted again.

        Raises:
            RunError: The folder holds no fit, or its trials are not those of the fit.
        """
        content = read_json(path / "fit.json")
        if content.get("format") != FORMAT:
            raise RunError(f"{path / 'fit.json'}: format {content.get('format')!r}, not {FORMAT!r}")
        trials = Trials.read(path / "trials.parquet")
        if trials_fingerprint(trials) != content["trials"]:
            raise RunError(f"{path}: trials.parquet is not what was fitted; fit again")
        objective = Objective.from_json(content["objective"])
        name, seed = content["regressor"], content["seed"]
        known = _read_further(content, path)
        if content["saved"]:
            regressor = read_regressor(name, path / "regressor")
        else:
            regressor = fit_again(name, trials, objective, seed, known["repetition"])
        report, rows = (_read_table(path / f"{n}.parquet") for n in ("report", "held_out"))
        folds = content["folds"]
        return cls(name, regressor, objective, trials, report, rows, seed, folds, **known)

    def _made(self) -> Any:
        return make_regressor(self.name, self.seed, self.repetition)

    def _content(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "regressor": self.name,
            "saved": can_be_saved(self.fitted),
            "criterion": self.criterion,
            "folds": self.folds,
            "seed": self.seed,
            "trials": self.fingerprint,
            "domains": list(self.domains),
            "objective": self.objective.to_json(),
            "intervals": {
                name: one.to_json()
                for name, one in zip(self.targets, self.calibrations, strict=True)
            },
            "reasons": self.reasons(),
            **{name: one and one.to_json() for name, one in self._further().items()},
        }

    def _further(self) -> dict[str, Size | Repetition | Pilots | None]:
        return {"size": self.size, "repetition": self.repetition, "pilots": self.pilots}


def fit_again(
    name: str,
    trials: Trials,
    objective: Objective,
    seed: int,
    repetition: Repetition | None = None,
) -> Any:
    """Fit the regressor `name` to all trials, the same way each time."""
    regressor = make_regressor(name, seed, repetition)
    rows = regressor_rows(name, regressor, trials)
    return fit_regressor(name, regressor, rows, trials.losses(objective.unit))


def _read_further(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Read what only some fits have: a size, a repetition, pilots."""
    size, repetition, pilots = (content.get(n) for n in ("size", "repetition", "pilots"))
    return {
        "size": size and Size.from_json(size),
        "repetition": repetition and Repetition.from_json(repetition),
        "pilots": pilots and Pilots.from_json(pilots, Trials.read(path / "pilots.parquet")),
    }


def _read_table(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path, glob=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise RunError(
            f"{path}: cannot be read: {' '.join(str(error).split())}; fit again"
        ) from error
