"""The regressor interface: build by name, fit, predict, save and load.

A regressor is a scikit-learn estimator: `fit(weights_ND, losses_NM)`, `predict(weights_ND)`.
Any scikit-learn estimator works, pipelines included; an estimator for a single target is fitted
once for each target. Five abilities are optional:

| ability | methods | what for |
|---|---|---|
| deviations | `predict(..., return_std=True)`, `covariance` | intervals; rounds |
| gradient | `gradient`; `plain_law` | the search; predictions without Python |
| refits | `tuned`, `select`, `cross_fit`, `held_out_members`, `explain` | cheap refits and folds |
| sizes | `uses_scale`, `at`; parameters `inventory` and `tokens` | other sizes; laws of epochs |
| files | `save`, `load`, `saved_as` | loading a fit without refitting |

`supports` asks the object and not its class, because a wrapper has an ability only if the wrapped
regressor has it. `mixopt.testing.check_regressor` checks every ability that a regressor claims.

Shapes: N trials, D domains, M targets, K mixtures.
"""

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol, Self, TypeGuard

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from mixopt.errors import MixoptError, PluginError, TrialsError
from mixopt.system import Array, BoolArray, IntArray, Update
from mixopt.trials import Trials

OFTEN = 2.0  # epochs up to which repeated text is nearly as good as fresh text
SHARE = 0.1  # of the trials must exceed `OFTEN` to fit a law of epochs
ONE_LENGTH = 1.01  # ratio of tokens within which trials have one length
# npz without objects; LightGBM's text format.
SAFE_FORMATS = ("json", "npz", "lightgbm")


class Predictor(Protocol):
    """Predicts losses from mixtures."""

    def predict(self, weights_ND: ArrayLike, /) -> Any:
        """Return losses, shape (N, M)."""
        ...


class Regressor(Predictor, Protocol):
    """Learns to predict losses from mixtures; a scikit-learn estimator."""

    def fit(self, weights_ND: ArrayLike, losses_NM: ArrayLike, /) -> Any:
        """Fit, and return a predictor: the regressor itself."""
        ...


class Abilities(Regressor, Protocol):
    """All optional abilities; `supports` tells whether a regressor has one.

    Attributes:
        uses_scale: Whether it is fitted on rows of weights, parameters and tokens.
        held_out_members: Predictions of each member for held-out rows, by name, after `cross_fit`.
        saved_as: One of `SAFE_FORMATS`, the format of its files. A class without it is not loaded
            but refitted when a fit is loaded.
    """

    uses_scale: bool
    held_out_members: Mapping[str, Array]
    saved_as: ClassVar[tuple[str, ...]]

    def predict(self, weights_ND: ArrayLike, /, return_std: bool = False) -> Any:
        """Return losses, and with `return_std` their standard deviations, (N, M) each."""
        ...

    def covariance(self, weights_KD: ArrayLike, loads_M: ArrayLike, /) -> Any:
        """Return the covariance of a weighted sum of the losses at mixtures, shape (K, K).

        It excludes the noise of a trial. Errors of targets are independent unless the regressor
        models their correlation.
        """
        ...

    def gradient(self, weights_D: ArrayLike, /) -> Any:
        """Return the gradient of each loss at one mixture, shape (M, D)."""
        ...

    def plain_law(self) -> dict[str, Any]:
        """Return the fitted law: its `kind`, and the values that this kind needs.

        Values are strings, numbers, lists and dictionaries of these, other plain laws, and numpy
        arrays of float64, float32 or int32. Kinds are those that
        mixopt/reporting/assets/law.js can predict with, to 1e-6: means and deviations.
        """
        ...

    def tuned(self) -> Regressor:
        """Return an unfitted copy that keeps hyperparameters chosen on held-out folds."""
        ...

    def select(self, targets: Sequence[int], /) -> Predictor:
        """Return a fitted copy that predicts only these targets, by position."""
        ...

    def cross_fit(
        self, weights_ND: ArrayLike, losses_NM: ArrayLike, fold_N: ArrayLike, update: Update, /
    ) -> tuple[Array, Array]:
        """Fit on all rows; return held-out means and standard deviations, shape (N, M) each.

        `update` takes the share that is done, 0 to 1, and what it is at.
        """
        ...

    def explain(self, targets: Sequence[str], /) -> Sequence[str]:
        """Return an explanation, one line for each target."""
        ...

    def at(self, parameters: float, tokens: float) -> Predictor:
        """Return a predictor from mixtures alone, at one size."""
        ...

    def get_params(self) -> dict[str, Any]:
        """Return all parameters; those of parts as `part__name`."""
        ...

    def set_params(self, **parameters: Any) -> Self:
        """Set parameters; return the regressor."""
        ...

    def save(self, path: Path, /) -> None:
        """Write the fit to a folder, without pickle, in formats that execute nothing."""
        ...

    @classmethod
    def load(cls, path: Path, /) -> Self:
        """Read a fit that `save` wrote."""
        ...


def supports(regressor: object, ability: str) -> TypeGuard[Abilities]:
    """Return whether a regressor has an ability, by its name in `Abilities`."""
    return hasattr(regressor, ability)


def supports_deviations(regressor: Predictor) -> TypeGuard[Abilities]:
    """Return whether a regressor predicts standard deviations."""
    return "return_std" in inspect.signature(regressor.predict).parameters


def supports_sizes(regressor: Predictor) -> TypeGuard[Abilities]:
    """Return whether a regressor is fitted on sizes besides weights."""
    return bool(getattr(regressor, "uses_scale", False))


def supports_saving(regressor: Predictor) -> TypeGuard[Abilities]:
    """Return whether a regressor can be saved; one with members declares it in `can_be_saved`."""
    formats = getattr(type(regressor), "saved_as", ())
    declared = isinstance(formats, tuple) and formats and set(formats) <= set(SAFE_FORMATS)
    writes = hasattr(regressor, "save") and hasattr(type(regressor), "load")
    return bool(declared) and writes and bool(getattr(regressor, "can_be_saved", True))


def supports_repetition(regressor: Predictor) -> TypeGuard[Abilities]:
    """Return whether a regressor models epochs: it or a part takes an inventory and tokens."""
    return all(parameters_called(regressor, name) for name in ("inventory", "tokens"))


def parameters_called(regressor: Predictor, name: str) -> dict[str, Any]:
    """Return all parameters of one name, its own and those of parts, with their values."""
    if not supports(regressor, "get_params"):
        return {}
    parameters = regressor.get_params()
    return {key: value for key, value in parameters.items() if key.rpartition("__")[2] == name}


@dataclass(frozen=True)
class Repetition:
    """The sizes from which epochs are computed.

    Attributes:
        inventory: Distinct tokens of each domain, > 0, in the order of the trials' domains.
        tokens: Training tokens of each trial, > 0.
    """

    inventory: tuple[Annotated[float, Field(gt=0, lt=1e18)], ...]
    tokens: Annotated[float, Field(gt=0, lt=1e18)]

    @classmethod
    def of_trials(cls, trials: Trials, inventory: Mapping[str, float]) -> Self:
        """Build from a table of trials and an inventory."""
        tokens = trials.table["tokens"].to_list()
        if None in tokens or min(tokens) < 1:
            raise TrialsError(
                "--inventory: epochs need the tokens of each trial too: give the table a column"
                " 'tokens'"
            )
        if max(tokens) > ONE_LENGTH * min(tokens):
            raise TrialsError(
                f"--inventory: the trials are of {min(tokens)} to {max(tokens)} tokens, but a law "
                "of epochs needs a single length: give trials of one length"
            )
        return cls(tuple(float(inventory[name]) for name in trials.domains), float(tokens[0]))

    def is_learnable(self, weights_ND: ArrayLike) -> bool:
        """Return whether enough trials repeat a domain more than `OFTEN` times."""
        epochs_ND = np.asarray(weights_ND) * self.tokens / np.array(self.inventory)
        return bool((epochs_ND.max(axis=1) > OFTEN).mean() >= SHARE)


def make_regressor(
    name: str,
    seed: int,
    repetition: Repetition | None = None,
    carried: Sequence[Sequence[float | None]] | None = None,
) -> Regressor:
    """Build an unfitted regressor; seed, repetition and carried trials are set if it uses them.

    A scikit-learn estimator for a single target is fitted once for each target.
    """
    from sklearn.base import BaseEstimator, clone
    from sklearn.multioutput import MultiOutputRegressor
    from sklearn.utils import get_tags

    from mixopt.system import load_plugin

    plugin = load_plugin("regressor", name)
    try:
        is_instance = hasattr(plugin, "fit") and not inspect.isclass(plugin)
        estimator: Any = clone(plugin) if is_instance else plugin()
        parameters: dict[str, Any] = dict.fromkeys(
            parameters_called(estimator, "random_state"), seed
        )
        available: dict[str, Any] = {} if repetition is None else dict(vars(repetition))
        available["carried"] = carried
        for field, value in available.items():
            for key, current in parameters_called(estimator, field).items():
                if current is None and value is not None:
                    parameters[key] = list(value) if field == "inventory" else value
        if parameters:
            estimator.set_params(**parameters)
        single = (
            isinstance(estimator, BaseEstimator)
            and not get_tags(estimator).target_tags.multi_output
        )
        regressor: Regressor = MultiOutputRegressor(estimator) if single else estimator
    except MixoptError:
        raise
    except Exception as error:
        raise PluginError(f"regressor {name!r} cannot be built: {error_text(error)}") from error
    return regressor


def fit_regressor(
    name: str, regressor: Regressor, weights_ND: ArrayLike, losses_NM: ArrayLike
) -> Predictor:
    """Fit a regressor; an error in it becomes one line that names it."""
    from sklearn.multioutput import MultiOutputRegressor

    losses = np.asarray(losses_NM)
    # scikit-learn warns about a column vector.
    plain = type(regressor).__module__.partition(".")[0] == "sklearn"
    if plain and losses.shape[1:] == (1,) and not isinstance(regressor, MultiOutputRegressor):
        losses = losses[:, 0]
    with named_errors(name, len(losses)):
        fitted: Predictor = regressor.fit(weights_ND, losses)
        return fitted


@contextmanager
def named_errors(name: str, rows: int) -> Iterator[None]:
    """Turn any error of a regressor into one line that names it."""
    try:
        yield
    except MixoptError:
        raise
    except Exception as error:
        raise PluginError(
            f"regressor {name!r} failed on {rows} trials: {error_text(error)}; leave it out of"
            " fit.regressors"
        ) from error


def grouped_folds(groups: Sequence[str], folds: int, seed: int) -> IntArray:
    """Assign groups of rows to folds of about equal size.

    Whole mixtures are held out: replicates on both sides of a split would flatter a regressor.
    """
    sizes = Counter(groups)
    names = sorted(sizes)
    shuffled = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    rows_of_fold = [0] * folds
    fold_of: dict[str, int] = {}
    for name in sorted(shuffled, key=lambda name: -sizes[name]):
        fold_of[name] = int(np.argmin(rows_of_fold))
        rows_of_fold[fold_of[name]] += sizes[name]
    return np.array([fold_of[name] for name in groups], dtype=np.int64)


def row_groups(weights_ND: Array) -> list[str]:
    """Return a name for each mixture, equal for equal rows (to nine decimals)."""
    return [row.tobytes().hex() for row in np.round(weights_ND, 9) + 0.0]


def splits(fold_N: IntArray) -> Iterator[tuple[BoolArray, BoolArray]]:
    """Yield masks of the training and the held-out rows, shape (N,), for each fold."""
    for fold in np.unique(fold_N):
        yield fold_N != fold, fold_N == fold


def out_of_fold(
    fit: Callable[[Array, Array], Predictor], rows: Array, losses_NM: Array, fold_N: IntArray
) -> tuple[Array, Array]:
    """Predict every row by a regressor fitted without its fold."""
    means_NM, stds_NM = np.full(losses_NM.shape, np.nan), np.zeros(losses_NM.shape)
    for train_N, out_N in splits(fold_N):
        fitted = fit(rows[train_N], losses_NM[train_N])
        means_NM[out_N], stds_NM[out_N] = predict_with_std(fitted, rows[out_N])
    return means_NM, stds_NM


ROOTS_REACH = 0.5  # length scale of `roots_alike`


def roots_alike(weights_KD: Array) -> Array:
    """Compare mixtures by a Matern kernel on the square roots of their weights, shape (K, K)."""
    roots_KD = np.sqrt(np.maximum(weights_KD, 0.0))
    squared_KK = np.maximum(2.0 - 2.0 * roots_KD @ roots_KD.T, 0.0)
    np.fill_diagonal(squared_KK, 0.0)
    return matern(np.sqrt(5.0 * squared_KK) / ROOTS_REACH)


def matern(distances: Array) -> Array:
    """Return a Matern kernel of smoothness 5/2 at distances times sqrt(5)."""
    return (1.0 + distances + distances**2 / 3.0) * np.exp(-distances)


def select_targets(regressor: Predictor, targets: Sequence[int]) -> Predictor:
    """Return a fitted regressor for some targets, from all predictions if it has no `select`."""
    if supports(regressor, "select"):
        return regressor.select(targets)
    return _Columns(regressor, list(targets))


class _Columns:
    """A fitted regressor reduced to some columns."""

    def __init__(self, regressor: Predictor, targets: list[int]) -> None:
        self._regressor, self._targets = regressor, targets
        if supports(regressor, "gradient"):
            self.gradient = lambda weights_D: regressor.gradient(weights_D)[targets]

    def predict(self, weights_ND: ArrayLike) -> Any:
        return predict_losses(self._regressor, weights_ND)[:, self._targets]


def predict_losses(regressor: Predictor, weights_ND: ArrayLike) -> Array:
    """Return predictions, shape (N, M)."""
    means = np.asarray(regressor.predict(weights_ND), float)
    return means.reshape(len(means), -1)


def predict_with_std(regressor: Predictor, weights_ND: ArrayLike) -> tuple[Any, Any]:
    """Return predictions and their standard deviations, (N, M) each; 0 if it has none."""
    if not supports_deviations(regressor):
        means_NM = predict_losses(regressor, weights_ND)
        return means_NM, np.zeros_like(means_NM)
    answer = (np.asarray(part, float) for part in regressor.predict(weights_ND, return_std=True))
    means_NM, stds_NM = (part.reshape(len(part), -1) for part in answer)
    return means_NM, stds_NM


def read_regressor(name: str, path: Path, like: Regressor) -> Predictor:
    """Read a fitted regressor from a folder that `save` wrote."""
    if not supports_saving(like):
        raise PluginError(f"{path}: regressor {name!r} cannot read files of mixopt; fit again")
    try:
        return type(like).load(path)
    except MixoptError:
        raise
    except Exception as error:
        raise PluginError(f"{path}: cannot be read: {error_text(error)}; fit again") from error


def error_text(error: Exception) -> str:
    """Return an error as one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def resampled_rows(mixtures: Sequence[str], rng: np.random.Generator) -> list[int]:
    """Bootstrap the mixtures; return the rows of all drawn mixtures."""
    rows: dict[str, list[int]] = {}
    for row, mixture in enumerate(mixtures):
        rows.setdefault(mixture, []).append(row)
    names = list(rows)
    drawn = rng.integers(len(names), size=len(names))
    return [row for place in drawn for row in rows[names[place]]]
