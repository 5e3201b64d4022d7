"""Optional abilities of regressors: a protocol and a predicate for each.

| ability | what it has | what it is used for |
|---|---|---|
| deviations | `predict(..., return_std=True)` | intervals, risk, acquisition |
| covariance | `covariance(weights_KD, loads_M) -> (K, K)` | batches of a round are chosen jointly |
| gradient | `gradient(weights_D) -> (M, D)` | the search uses a gradient method |
| selection | `select(targets)` | a search predicts no losses that it does not need |
| refit | `tuned()` | refits keep what held-out folds chose, so that they are cheap |
| cross-fit | `cross_fit(weights_ND, losses_NM, fold_N)` | held-out predictions in one go |
| members | `held_out_members` after `cross_fit` | the report shows each part of a combination |
| watching | `watch(update)` before `cross_fit` | a long cross-fit shows what it is at |
| explanation | `explain(targets)` | the fit says why it predicts as it does |
| sizes | `uses_scale`, `at(parameters, tokens)` | trials of several sizes (model_sizes) |
| repetition | parameters `inventory` and `tokens` | laws of epochs (repetition) |
| saving | `save(folder)`, `load(folder)`, `saved_as` | a fit is read back, not fitted again |
| plain law | `plain_law() -> {"kind": ..., ...}` | predictions where there is no Python |

All are optional. The questions ask the object and not its class, since a wrapper has an ability
only where what it wraps has it; `isinstance` with a runtime-checkable protocol reads the class
alone from Python 3.12 on. `mixopt.testing.check_regressor` checks each ability that is claimed.

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


class SupportsCovariance(Predictor, Protocol):
    """Reports the joint uncertainty of several predictions."""

    def covariance(self, weights_KD: ArrayLike, loads_M: ArrayLike, /) -> Any:
        """Return the covariance of a weighted sum of the losses at mixtures, shape (K, K).

        It is of the losses without the noise of a trial. The error of one target is taken to be
        independent of another's, unless the regressor knows better.
        """
        ...


class SupportsGradient(Predictor, Protocol):
    """Provides gradients of its predictions."""

    def gradient(self, weights_D: ArrayLike, /) -> Any:
        """Return the slope of each loss by each weight at one mixture, shape (M, D)."""
        ...


class SupportsSelection(Predictor, Protocol):
    """Can be reduced to some targets."""

    def select(self, targets: Sequence[int], /) -> Predictor:
        """Return a fitted copy that predicts only these targets, by position."""
        ...


class SupportsRefit(Predictor, Protocol):
    """Can be fitted again without choosing again."""

    def tuned(self) -> Learner:
        """Return one to fit again that keeps what held-out folds chose."""
        ...


class SupportsCrossFit(Regressor, Protocol):
    """Cross-validates itself, where that is cheaper than a fit for each fold."""

    def cross_fit(
        self, weights_ND: ArrayLike, losses_NM: ArrayLike, fold_N: ArrayLike, /
    ) -> tuple[Array, Array]:
        """Fit on all rows; return held-out means and standard deviations, shape (N, M) each."""
        ...


class SupportsMembers(Predictor, Protocol):
    """Consists of other regressors, which `cross_fit` compared."""

    @property
    def held_out_members(self) -> Mapping[str, Array]:
        """Return each member's predictions for held-out rows, shape (N, M), by name."""
        ...


class SupportsWatching(Predictor, Protocol):
    """Says how far its next `cross_fit` has come."""

    def watch(self, update: Update, /) -> None:
        """Have the next `cross_fit` report the share that is done, 0 to 1, and what it is at."""
        ...


class SupportsExplanation(Predictor, Protocol):
    """Can explain its predictions."""

    def explain(self, targets: Sequence[str], /) -> Sequence[str]:
        """Return lines for a reader, given the names of the targets."""
        ...


class SupportsSizes(Regressor, Protocol):
    """Is fitted on rows of weights, parameters and tokens."""

    uses_scale: bool

    def at(self, parameters: float, tokens: float) -> Predictor:
        """Return the fit at one size: a predictor from mixtures alone."""
        ...


class SupportsParameters(Regressor, Protocol):
    """Has parameters, as scikit-learn's estimators do."""

    def get_params(self) -> dict[str, Any]:
        """Return all parameters, those of its parts as `part__name`."""
        ...

    def set_params(self, **parameters: Any) -> Self:
        """Set some, and return itself."""
        ...


class SupportsSaving(Regressor, Protocol):
    """Writes and reads itself, without pickle, in formats that execute nothing.

    Attributes:
        saved_as: Which of `SAFE_FORMATS` its files are in; a class that does not declare it is not
            read, and fitted again where a fit is read.
    """

    saved_as: ClassVar[tuple[str, ...]]

    def save(self, path: Path, /) -> None:
        """Write the fit into a folder."""
        ...

    @classmethod
    def load(cls, path: Path, /) -> Self:
        """Read a fit that `save` wrote."""
        ...


class SupportsPlainLaw(Predictor, Protocol):
    """Can be written out as numbers, so that something other than Python predicts the same."""

    def plain_law(self) -> dict[str, Any]:
        """Return the fitted law: its `kind`, and what that kind needs.

        Values are strings, numbers, lists and dictionaries of these, other plain laws, and numpy
        arrays of float64, float32 or int32. Kinds are those that
        mixopt/reporting/assets/law.js can predict with, to 1e-6: means and deviations.
        """
        ...


def is_estimator(found: object) -> TypeGuard[Regressor]:
    """Tell whether this is a regressor itself, and not what builds one."""
    return not inspect.isclass(found) and hasattr(found, "fit")


def supports_deviations(regressor: Predictor) -> TypeGuard[SupportsDeviations]:
    """Tell whether it gives standard deviations."""
    return "return_std" in inspect.signature(regressor.predict).parameters


def supports_covariance(regressor: Predictor) -> TypeGuard[SupportsCovariance]:
    """Tell whether it gives covariances; a combination does where all its members do."""
    return hasattr(regressor, "covariance")


def supports_gradient(regressor: Predictor) -> TypeGuard[SupportsGradient]:
    """Tell whether it gives gradients."""
    return hasattr(regressor, "gradient")


def supports_selection(regressor: Predictor) -> TypeGuard[SupportsSelection]:
    """Tell whether it can be reduced to some targets."""
    return hasattr(regressor, "select")


def supports_refit(regressor: Predictor) -> TypeGuard[SupportsRefit]:
    """Tell whether it can be fitted again with what it chose."""
    return hasattr(regressor, "tuned")


def supports_cross_fit(regressor: Predictor) -> TypeGuard[SupportsCrossFit]:
    """Tell whether it cross-validates itself."""
    return hasattr(regressor, "cross_fit")


def supports_members(regressor: Predictor) -> TypeGuard[SupportsMembers]:
    """Tell whether its members' held-out predictions are known; after `cross_fit` alone."""
    return hasattr(regressor, "held_out_members")


def supports_watching(regressor: Predictor) -> TypeGuard[SupportsWatching]:
    """Tell whether it says how far it has come."""
    return hasattr(regressor, "watch")


def supports_explanation(regressor: Predictor) -> TypeGuard[SupportsExplanation]:
    """Tell whether it can explain its predictions."""
    return hasattr(regressor, "explain")


def supports_sizes(regressor: Predictor) -> TypeGuard[SupportsSizes]:
    """Tell whether it is fitted on sizes besides weights."""
    return bool(getattr(regressor, "uses_scale", False))


def supports_saving(regressor: Predictor) -> TypeGuard[SupportsSaving]:
    """Tell whether it writes and reads itself; one made of others declares it in `can_be_saved`."""
    formats = getattr(type(regressor), "saved_as", ())
    declared = isinstance(formats, tuple) and formats and set(formats) <= set(SAFE_FORMATS)
    writes = hasattr(regressor, "save") and hasattr(type(regressor), "load")
    return bool(declared) and writes and bool(getattr(regressor, "can_be_saved", True))


def supports_plain_law(regressor: Predictor) -> TypeGuard[SupportsPlainLaw]:
    """Tell whether it can be written out; a combination can be where all its members can."""
    return hasattr(regressor, "plain_law")


def supports_parameters(regressor: Predictor) -> TypeGuard[SupportsParameters]:
    """Tell whether it has parameters that can be set."""
    return hasattr(regressor, "get_params")


def supports_repetition(regressor: Predictor) -> TypeGuard[SupportsParameters]:
    """Tell whether it knows of epochs: it, or a part of it, takes an inventory and tokens."""
    return all(parameters_called(regressor, name) for name in ("inventory", "tokens"))


def parameters_called(regressor: Predictor, name: str) -> dict[str, Any]:
    """Return the parameters of one name, its own and those of its parts, with their values."""
    if not supports_parameters(regressor):
        return {}
    every = regressor.get_params()
    return {key: value for key, value in every.items() if key.rpartition("__")[2] == name}
