"""A fit: the chosen regressor, what it predicts and how wrong it was, and its folder.

The standard deviation of a prediction is the root mean squared error of the chosen regressor on
held-out folds: it holds for a new trial with one seed, drawn like the trials, and is the same
for every mixture.

    fit/
      fit.json             the choice, the objective, fingerprints
      report.parquet       mixopt.fit_report
      held_out.parquet     every held-out prediction
      trials.parquet       the trials that were fitted
      regressor/           the fitted regressor, where it can be written without pickle

A regressor that cannot be written is fitted again, with the same seed on the same trials, when
the folder is read.

Shapes: N trials, D domains, M evaluation domains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from mixopt.crossval import Array
from mixopt.errors import RunError
from mixopt.files import read_json, replacing, write_json
from mixopt.fit_report import OBJECTIVE
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.regressor import can_be_saved, fit_regressor, make_regressor, read_regressor
from mixopt.trial_checks import trials_fingerprint
from mixopt.trials import Trials

FORMAT = "mixopt-fit/1"
CRITERION = "least root mean squared error of the objective on held-out folds"


@dataclass(frozen=True, eq=False)
class Prediction:
    """What is predicted for some mixtures.

    Attributes:
        losses_NM: Losses by evaluation domain.
        std_NM: Their standard deviations, from errors on held-out folds.
        objective_N: The objective.
        objective_std: Its standard deviation, from errors on held-out folds.
    """

    losses_NM: Array
    std_NM: Array
    objective_N: Array
    objective_std: float


@dataclass(frozen=True, eq=False)
class Fit:
    """The chosen regressor, fitted on all finished trials, and how it was chosen.

    Attributes:
        name: The chosen regressor.
        regressor: The fitted estimator.
        objective: What is minimised.
        trials: The finished trials that it was fitted on.
        report: Each regressor on held-out folds, beside controls and ceiling.
        held_out: A row for each regressor, trial and target: `predictor`, `trial`, `fold`,
            `target`, `observed`, `predicted`.
        seed: Seed of folds and regressors.
        folds: How many folds there were.
    """

    name: str
    regressor: Any
    objective: Objective
    trials: Trials
    report: pl.DataFrame
    held_out: pl.DataFrame
    seed: int
    folds: int
    criterion: str = CRITERION

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
        rows = self.held_out.filter(pl.col("predictor") == self.name)
        columns = [rows.filter(pl.col("target") == name)["predicted"] for name in self.targets]
        return np.stack([column.to_numpy() for column in columns], axis=1)

    def held_out_errors(self) -> Array:
        """Return observed less predicted losses of held-out trials, shape (N, M)."""
        errors: Array = self.trials.losses(self.objective.unit) - self.held_out_losses()
        return errors

    def objective_errors(self, objective: Objective | None = None) -> Array:
        """Return observed less predicted objective of held-out trials, shape (N,)."""
        asked = objective or self.objective
        observed_N = asked.value(self.trials.losses(self.objective.unit))
        return observed_N - asked.value(self.held_out_losses())

    def stds(self) -> Array:
        """Standard deviation of a new trial's losses: the error on held-out folds, shape (M,)."""
        std: Array = np.sqrt((self.held_out_errors() ** 2).mean(axis=0))
        return std

    def predict(self, weights: ArrayLike | Mixture | Sequence[Mixture]) -> Prediction:
        """Predict losses and objective.

        Args:
            weights: Mixtures: an array of shape (N, D), a `Mixture`, or several.
        """
        weights_ND = as_weights(weights, self.domains)
        losses_NM = np.asarray(self.regressor.predict(weights_ND), dtype=np.float64)
        losses_NM = losses_NM.reshape(len(weights_ND), len(self.targets))
        std_NM = np.broadcast_to(self.stds(), losses_NM.shape)
        spread = float(np.sqrt((self.objective_errors() ** 2).mean()))
        return Prediction(losses_NM, std_NM, self.objective.value(losses_NM), spread)

    def summary(self) -> str:
        """Say in a line what was chosen and how good it is on held-out folds."""
        rows = self.report.filter(pl.col("target") == OBJECTIVE)
        error = dict(zip(rows["predictor"], rows["rmse"], strict=True))
        rank = dict(zip(rows["predictor"], rows["spearman"], strict=True))
        others = [
            n
            for n, kind in zip(rows["predictor"], rows["kind"], strict=True)
            if kind == "regressor"
        ]
        beaten = ", ".join(f"{name} {error[name]:.4f}" for name in others if name != self.name)
        ranks = "none" if rank[self.name] is None else f"{rank[self.name]:.3f}"
        return (
            f"{self.name}: error of the objective on held-out folds {error[self.name]:.4f}"
            f" ({beaten + ', ' if beaten else ''}the mean {error['mean']:.4f}), Spearman {ranks}"
        )

    def save(self, path: Path) -> None:
        """Write everything into the folder `path`, without pickle; fit.json comes last."""
        tables = (("report", self.report), ("held_out", self.held_out))
        for name, table in tables:
            with replacing(path / f"{name}.parquet") as temporary:
                table.write_parquet(temporary)
        self.trials.write(path / "trials.parquet")
        if can_be_saved(self.regressor):
            self.regressor.save(path / "regressor")
        write_json(path / "fit.json", self._content())

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
        if content["saved"]:
            regressor = read_regressor(name, path / "regressor")
        else:
            regressor = fit_again(name, trials, objective, seed)
        report, rows = (_read_table(path / f"{n}.parquet") for n in ("report", "held_out"))
        return cls(name, regressor, objective, trials, report, rows, seed, content["folds"])

    def _content(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "regressor": self.name,
            "saved": can_be_saved(self.regressor),
            "criterion": self.criterion,
            "folds": self.folds,
            "seed": self.seed,
            "trials": self.fingerprint,
            "domains": list(self.domains),
            "objective": self.objective.to_json(),
            "std": dict(zip(self.targets, self.stds().tolist(), strict=True)),
        }


def as_weights(weights: ArrayLike | Mixture | Sequence[Mixture], domains: tuple[str, ...]) -> Array:
    """Return mixtures as an array, shape (N, D), in the order of `domains`."""
    several = [weights] if isinstance(weights, Mixture) else weights
    if isinstance(several, Sequence) and several and isinstance(several[0], Mixture):
        mixtures = [one.over(domains) for one in several if isinstance(one, Mixture)]
        return np.stack([mixture.array for mixture in mixtures])
    return np.atleast_2d(np.asarray(weights, dtype=np.float64))


def fit_again(name: str, trials: Trials, objective: Objective, seed: int) -> Any:
    """Fit the regressor `name` to all trials, the same way each time."""
    losses_NM = trials.losses(objective.unit)
    return fit_regressor(name, make_regressor(name, seed), trials.weights(), losses_NM)


def _read_table(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path, glob=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise RunError(
            f"{path}: cannot be read: {' '.join(str(error).split())}; fit again"
        ) from error
