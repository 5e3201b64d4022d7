"""What a regressor may have besides `fit` and `predict`.

| it has | what it is used for |
|---|---|
| `predict(..., return_std=True)` | intervals, risk, acquisition |
| `covariance(weights_KD, loads_M) -> (K, K)` | batches of a round are chosen jointly |
| `gradient(weights_D) -> (M, D)` | the search uses a gradient method |
| `select(targets)` | a search predicts no losses that it does not need |
| `tuned()` | refits keep what held-out folds chose, so that they are cheap |
| `cross_fit(weights_ND, losses_NM, fold_N)` | held-out predictions in one go |
| `held_out_members` after `cross_fit` | the report shows each part of a combination |
| `watch(update)` before `cross_fit` | a long cross-fit shows what it is at |
| `explain(targets)` | the fit says why it predicts as it does |
| `uses_scale`, `at(parameters, tokens)` | trials of several sizes (model_sizes) |
| parameters `inventory` and `tokens` | laws of epochs (regressor) |
| `save(folder)`, `load(folder)`, `saved_as` | a fit is read back, not fitted again |
| `plain_law() -> {"kind": ..., ...}` | predictions where there is no Python |

All are optional. The questions ask the object and not its class, since a wrapper has an ability
only where what it wraps has it. `mixopt.testing.check_regressor` checks each that is claimed.

Shapes: N trials, D domains, M targets, K mixtures.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeGuard

from numpy.typing import ArrayLike

from mixopt.system import Array, Update

# npz without objects; LightGBM's own text.
SAFE_FORMATS = ("json", "npz", "lightgbm")


class Predictor(Protocol):
    """Predicts losses from mixtures."""

    def predict(self, weights_ND: ArrayLike, /) -> Any:
        """Return losses, shape (N, M)."""
        ...


class Learner(Protocol):
    """Learns from mixtures and their losses."""

    def fit(self, weights_ND: ArrayLike, losses_NM: ArrayLike, /) -> Any:
        """Fit, and return what predicts: a regressor returns itself."""
        ...


class Regressor(Predictor, Learner, Protocol):
    """Learns to predict losses from mixtures; a scikit-learn estimator."""


class SupportsDeviations(Predictor, Protocol):
    """Reports the uncertainty of each prediction."""

    def predict(self, weights_ND: ArrayLike, /, return_std: bool = False) -> Any:
        """Return losses, and with `return_std` also their standard deviations, (N, M) each."""
        ...


class Abilities(Regressor, Protocol):
    """Everything that a regressor may have; `supports` tells what one has.

    Attributes:
        uses_scale: Whether it is fitted on rows of weights, parameters and tokens.
        held_out_members: Each member's predictions for held-out rows, by name, after `cross_fit`.
        saved_as: Which of `SAFE_FORMATS` its files are in; a class that does not declare it is not
            read, and fitted again where a fit is read.
    """

    uses_scale: bool
    held_out_members: Mapping[str, Array]
    saved_as: ClassVar[tuple[str, ...]]

    def covariance(self, weights_KD: ArrayLike, loads_M: ArrayLike, /) -> Any:
        """Return the covariance of a weighted sum of the losses at mixtures, shape (K, K).

        It is of the losses without the noise of a trial. The error of one target is taken to be
        independent of another's, unless the regressor knows better.
        """
        ...

    def gradient(self, weights_D: ArrayLike, /) -> Any:
        """Return the slope of each loss by each weight at one mixture, shape (M, D)."""
        ...

    def select(self, targets: Sequence[int], /) -> Predictor:
        """Return a fitted copy that predicts only these targets, by position."""
        ...

    def tuned(self) -> Learner:
        """Return one to fit again that keeps what held-out folds chose."""
        ...

    def cross_fit(
        self, weights_ND: ArrayLike, losses_NM: ArrayLike, fold_N: ArrayLike, /
    ) -> tuple[Array, Array]:
        """Fit on all rows; return held-out means and standard deviations, shape (N, M) each."""
        ...

    def watch(self, update: Update, /) -> None:
        """Have the next `cross_fit` report the share that is done, 0 to 1, and what it is at."""
        ...

    def explain(self, targets: Sequence[str], /) -> Sequence[str]:
        """Return lines for a reader, given the names of the targets."""
        ...

    def at(self, parameters: float, tokens: float) -> Predictor:
        """Return the fit at one size: a predictor from mixtures alone."""
        ...

    def get_params(self) -> dict[str, Any]:
        """Return all parameters, those of its parts as `part__name`."""
        ...

    def set_params(self, **parameters: Any) -> Self:
        """Set some, and return itself."""
        ...

    def save(self, path: Path, /) -> None:
        """Write the fit into a folder, without pickle, in formats that execute nothing."""
        ...

    @classmethod
    def load(cls, path: Path, /) -> Self:
        """Read a fit that `save` wrote."""
        ...

    def plain_law(self) -> dict[str, Any]:
        """Return the fitted law: its `kind`, and what that kind needs.

        Values are strings, numbers, lists and dictionaries of these, other plain laws, and numpy
        arrays of float64, float32 or int32. Kinds are those that
        mixopt/reporting/assets/law.js can predict with, to 1e-6: means and deviations.
        """
        ...


def supports(regressor: object, ability: str) -> TypeGuard[Abilities]:
    """Tell whether a regressor has an ability, by the name of its attribute in `Abilities`."""
    return hasattr(regressor, ability)


def supports_deviations(regressor: Predictor) -> TypeGuard[SupportsDeviations]:
    """Tell whether it gives standard deviations."""
    return "return_std" in inspect.signature(regressor.predict).parameters


def supports_sizes(regressor: Predictor) -> TypeGuard[Abilities]:
    """Tell whether it is fitted on sizes besides weights."""
    return bool(getattr(regressor, "uses_scale", False))


def supports_saving(regressor: Predictor) -> TypeGuard[Abilities]:
    """Tell whether it writes and reads itself; one made of others declares it in `can_be_saved`."""
    formats = getattr(type(regressor), "saved_as", ())
    declared = isinstance(formats, tuple) and formats and set(formats) <= set(SAFE_FORMATS)
    writes = hasattr(regressor, "save") and hasattr(type(regressor), "load")
    return bool(declared) and writes and bool(getattr(regressor, "can_be_saved", True))


def supports_repetition(regressor: Predictor) -> TypeGuard[Abilities]:
    """Tell whether it knows of epochs: it, or a part of it, takes an inventory and tokens."""
    return all(parameters_called(regressor, name) for name in ("inventory", "tokens"))


def parameters_called(regressor: Predictor, name: str) -> dict[str, Any]:
    """Return the parameters of one name, its own and those of its parts, with their values."""
    if not supports(regressor, "get_params"):
        return {}
    every = regressor.get_params()
    return {key: value for key, value in every.items() if key.rpartition("__")[2] == name}


def is_estimator(found: object) -> TypeGuard[Regressor]:
    """Tell whether this is a regressor itself, and not what builds one."""
    return not inspect.isclass(found) and hasattr(found, "fit")
