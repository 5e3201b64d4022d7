"""Trials that regressors are checked on, and the error of a broken promise.

Shapes: N trials, D domains, M evaluation domains.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from mixopt.fitting import (
    Abilities,
    Predictor,
    SupportsDeviations,
    fit_regressor,
    parameters_called,
    predict_with_std,
    supports,
    supports_deviations,
    supports_repetition,
    supports_saving,
    supports_sizes,
)
from mixopt.system import Array, IntArray

TRIALS, DOMAINS, TARGETS, FOLDS = 48, 4, 3, 2
FEW = 24  # trials of what takes many fits
SIZES = ((1e7, 1e9), (4e7, 1e9), (4e7, 8e9))  # parameters and tokens


def promise(kept: bool, said: str, detail: str) -> None:
    """Raise an error that says which promise of a regressor is broken, and how."""
    if not kept:
        raise AssertionError(f"a regressor promises: {said}. Broken: {detail}")


@dataclass(frozen=True, eq=False)
class CheckedTrials:
    """Trials whose losses follow an exponential law of the mixture, with a little noise.

    Attributes:
        sized: Whether rows hold parameters and tokens after the weights.
        count: How many there are.
    """

    sized: bool
    count: int = TRIALS

    @property
    def weights_ND(self) -> Array:
        """Mixtures."""
        return self._drawn[0][: self.count]

    @cached_property
    def rows(self) -> Array:
        """What a regressor is fitted on."""
        return np.hstack([self.weights_ND, self._sizes_N2]) if self.sized else self.weights_ND

    @cached_property
    def losses_NM(self) -> Array:
        """Losses, which fall with the size where there are several."""
        law_NM: Array = self._drawn[1][: self.count]
        if not self.sized:
            return law_NM
        shrinks_N: Array = 10.0 * self._sizes_N2.prod(axis=1) ** -0.1
        return law_NM + shrinks_N[:, None]

    @property
    def fold_N(self) -> IntArray:
        """Folds to hold out."""
        return np.arange(len(self.rows)) % FOLDS

    def few(self) -> CheckedTrials:
        """Return fewer of them, for what takes many fits."""
        return CheckedTrials(self.sized, FEW)

    @cached_property
    def _drawn(self) -> tuple[Array, Array]:
        rng = np.random.default_rng(0)
        weights_ND = rng.dirichlet(np.ones(DOMAINS), size=TRIALS)
        slopes_DM = rng.uniform(-2.0, 0.0, size=(DOMAINS, TARGETS))
        noise_NM = 1e-3 * rng.standard_normal((TRIALS, TARGETS))
        return weights_ND, 2.0 + np.exp(weights_ND @ slopes_DM) + noise_NM

    @property
    def _sizes_N2(self) -> Array:
        return np.array([SIZES[n % len(SIZES)] for n in range(self.count)])


TYPES = ("float64", "float32", "int32")


def check_plain_law(law: Any) -> None:
    """Check what `plain_law` returned (mixopt.fitting.capabilities)."""
    named = isinstance(law, dict) and isinstance(law.get("kind"), str)
    promise(named, "plain_law returns a dictionary with its kind", f"{type(law).__name__}")
    for place, value in _parts("plain_law", law):
        if isinstance(value, np.ndarray):
            said = f"arrays of a plain law are of {', '.join(TYPES)}"
            promise(value.dtype.name in TYPES, said, f"{place} is of {value.dtype}")
        else:
            plain = value is None or type(value) in (str, bool, int, float)
            said = "a plain law holds words, numbers, arrays, lists and dictionaries"
            promise(plain, said, f"{place} is a {type(value).__name__}")
        numbers = not isinstance(value, str) and value is not None
        finite = not numbers or bool(np.isfinite(value).all())
        promise(finite, "numbers of a plain law are finite", f"{place} has one that is not")


def _parts(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield all that is not a list or a dictionary, with where it is."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _parts(f"{place}.{key}", one)
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from _parts(f"{place}[{number}]", one)
    else:
        yield place, value


NAMES = ("web", "code", "exam")
STEP = 1e-5
CLOSE = 1e-9  # relative, of what should be equal but for the order of sums
ROUNDED = 1e-6  # part of the largest covariance that rounding may leave
SEEN = 0.1  # of a change of a fold's losses, that may come back through what weighs members
ALIKE = 0.05  # of a loss's spread over the trials: how far a refit on the same trials may be off


def check_abilities(make: Callable[[], Any], fitted: Any, trials: CheckedTrials) -> None:
    """Check each ability that a regressor claims."""
    if supports_deviations(fitted):
        _check_deviations(fitted, trials.rows)
    if supports_saving(fitted):
        _check_saving(fitted, trials.rows)
    if supports(fitted, "explain"):
        _check_explanation(fitted)
    predictor: Predictor = fitted
    if supports_sizes(fitted):
        predictor = _check_sizes(fitted, trials)
    if supports(predictor, "gradient"):
        _check_gradient(predictor, trials.weights_ND)
    if supports(predictor, "covariance"):
        _check_covariance(predictor, trials.weights_ND)
    if supports(predictor, "select"):
        _check_selection(predictor, trials.weights_ND)
    if supports(predictor, "plain_law"):
        check_plain_law(predictor.plain_law())
    if supports(predictor, "tuned"):
        _check_refit(predictor, trials)
    if supports(make(), "cross_fit"):
        _check_cross_fit(make, trials.few())
    if supports_repetition(make()):
        _check_repetition(make, trials.few())


def _check_deviations(regressor: SupportsDeviations, rows: Array) -> None:
    answer = regressor.predict(rows, return_std=True)
    pair = isinstance(answer, tuple) and len(answer) == 2
    promise(pair, "return_std gives a pair (mean, std)", f"it gave {type(answer).__name__}")
    mean_NM, std_NM = (np.asarray(part) for part in answer)
    shapes = f"{mean_NM.shape} and {std_NM.shape}"
    promise(mean_NM.shape == std_NM.shape, "mean and std have the same shape", shapes)
    same = np.array_equal(mean_NM, np.asarray(regressor.predict(rows)))
    promise(same, "return_std does not change the mean", "it did")
    fine = bool(np.isfinite(std_NM).all() and (std_NM >= 0).all())
    promise(fine, "std is finite and >= 0", f"the least is {std_NM.min()}")


def _check_gradient(regressor: Abilities, weights_ND: Array) -> None:
    """Compare along directions that keep the sum: move weight from the first domain to another."""
    weights_D = weights_ND.mean(axis=0)
    gradient_MD = np.asarray(regressor.gradient(weights_D))
    shape = (np.shape(regressor.predict(weights_ND))[1], DOMAINS)
    promise(gradient_MD.shape == shape, "gradient returns shape (M, D)", f"{gradient_MD.shape}")
    steps_KD = STEP * (np.eye(DOMAINS)[1:] - np.eye(DOMAINS)[0])
    ahead_KM = np.asarray(regressor.predict(weights_D + steps_KD))
    behind_KM = np.asarray(regressor.predict(weights_D - steps_KD))
    measured_KM = (ahead_KM - behind_KM) / (2 * STEP)
    claimed_KM = (gradient_MD[:, 1:] - gradient_MD[:, :1]).T
    close = np.allclose(claimed_KM, measured_KM, rtol=1e-3, atol=1e-4)
    detail = f"{np.round(claimed_KM, 4).tolist()}, not {np.round(measured_KM, 4).tolist()}"
    promise(close, "gradient is that of predict", detail)


def _check_covariance(regressor: Abilities, weights_ND: Array) -> None:
    targets = np.shape(regressor.predict(weights_ND))[1]
    loads_M = np.linspace(1.0, -0.5, targets)
    found_NN = np.asarray(regressor.covariance(weights_ND, loads_M))
    shape = (len(weights_ND), len(weights_ND))
    promise(found_NN.shape == shape, "covariance returns shape (K, K)", f"{found_NN.shape}")
    most = max(float(np.abs(found_NN).max()), 1e-300)
    apart = float(np.abs(found_NN - found_NN.T).max()) / most
    promise(apart <= CLOSE, "covariance is symmetric", f"it is off by {apart:.3g} of the largest")
    least = float(np.linalg.eigvalsh(found_NN + found_NN.T).min()) / (2.0 * most)
    promise(least >= -ROUNDED, "no sum of mixtures has a variance below 0", f"one has {least:.3g}")
    twice_NN = np.asarray(regressor.covariance(weights_ND, 2.0 * loads_M))
    off = float(np.abs(twice_NN - 4.0 * found_NN).max()) / most
    promise(off <= ROUNDED, "covariance is of the weighted sum", f"twice it is off by {off:.3g}")


def _check_selection(regressor: Abilities, weights_ND: Array) -> None:
    before = predict_with_std(regressor, weights_ND)
    targets = [2, 0]
    selected = regressor.select(targets)
    shape = np.shape(selected.predict(weights_ND))
    asked = shape == (len(weights_ND), len(targets))
    promise(asked, "select leaves the targets that are asked for", f"shape {shape}")
    after = predict_with_std(selected, weights_ND)
    said = "select keeps what is predicted for the targets that are left, in their order"
    for whole_NM, kept_NM in zip(before, after, strict=True):
        apart = float(np.abs(whole_NM[:, targets] - kept_NM).max())
        promise(apart <= CLOSE * np.abs(whole_NM).max(), said, f"it moves by up to {apart:.3g}")
    again_NM = np.asarray(regressor.predict(weights_ND))
    promise(np.array_equal(again_NM, before[0]), "select changes a copy", "the whole moved")
    both = supports(regressor, "gradient") == supports(selected, "gradient")
    promise(both, "select keeps whether there is a gradient", "one has it, and the other has none")
    if supports(selected, "gradient"):
        _check_gradient(selected, weights_ND)


def _check_refit(regressor: Abilities, trials: CheckedTrials) -> None:
    before_NM = np.asarray(regressor.predict(trials.weights_ND))
    half = slice(0, None, 2)
    regressor.tuned().fit(trials.rows[half], trials.losses_NM[half])
    after_NM = np.asarray(regressor.predict(trials.weights_ND))
    promise(np.array_equal(before_NM, after_NM), "tuned returns a copy", "fitting it moved the fit")
    again = regressor.tuned().fit(trials.rows, trials.losses_NM)
    again_NM = np.asarray(again.predict(trials.weights_ND))
    promise(again_NM.shape == before_NM.shape, "tuned fits all targets", f"{again_NM.shape}")
    apart_M = np.abs(again_NM - before_NM).max(axis=0) / before_NM.std(axis=0)
    said = "tuned, fitted on the same trials, predicts alike"
    promise(bool((apart_M < ALIKE).all()), said, f"it is {apart_M.max():.3g} spreads of a loss off")
    if supports(again, "select"):
        one_N1 = np.asarray(again.select([1]).predict(trials.weights_ND))
        close = np.allclose(one_N1, again_NM[:, [1]], rtol=CLOSE, atol=CLOSE)
        promise(close, "a refit can be cut down to some targets", "it predicts otherwise then")


def _check_cross_fit(make: Callable[[], Any], trials: CheckedTrials) -> None:
    losses_NM = trials.losses_NM
    regressor: Abilities = make()
    means_NM, stds_NM = _cross_fitted(regressor, losses_NM, trials)
    said = "cross_fit fits on all rows"
    try:
        fitted_NM = np.asarray(regressor.predict(trials.rows))
    except Exception as error:
        detail = f"predict raises {type(error).__name__}: {error}"
        raise AssertionError(f"a regressor promises: {said}. Broken: {detail}") from error
    promise(fitted_NM.shape == losses_NM.shape, said, f"it predicts shape {fitted_NM.shape}")
    if supports(regressor, "held_out_members"):
        _check_members(regressor.held_out_members, losses_NM)
    if supports(regressor, "explain"):
        _check_explanation(regressor)
    fine = bool(np.isfinite(stds_NM).all() and (stds_NM >= 0).all())
    promise(fine, "deviations of cross_fit are finite and >= 0", f"the least is {stds_NM.min()}")
    out_N = trials.fold_N == 0
    moved_NM = losses_NM + np.where(out_N, 1.0, 0.0)[:, None]
    blind_NM, _ = _cross_fitted(make(), moved_NM, trials)
    apart = float(np.abs(blind_NM - means_NM)[out_N].max())
    said = "cross_fit predicts a fold without its losses"
    promise(
        apart < SEEN, said, f"with losses of a fold 1 higher, it predicts up to {apart:.3g} more"
    )


def _cross_fitted(
    regressor: Abilities, losses_NM: Array, trials: CheckedTrials
) -> tuple[Array, Array]:
    answer = regressor.cross_fit(trials.rows, losses_NM.copy(), trials.fold_N)
    said = "cross_fit returns means and deviations, shape (N, M) each"
    pair = isinstance(answer, tuple) and len(answer) == 2
    promise(pair, said, f"it returned {type(answer).__name__}")
    means_NM, stds_NM = (np.asarray(part) for part in answer)
    for part in (means_NM, stds_NM):
        promise(part.shape == losses_NM.shape, said, f"{part.shape}, not {losses_NM.shape}")
    promise(bool(np.isfinite(means_NM).all()), "means of cross_fit are finite", f"{means_NM}")
    return means_NM, stds_NM


def _check_members(members: Mapping[str, Array], losses_NM: Array) -> None:
    said = "held_out_members has finite losses of shape (N, M) by name"
    for name, member_NM in members.items():
        shape = np.shape(member_NM)
        promise(isinstance(name, str), said, f"a name is {name!r}")
        promise(shape == losses_NM.shape, said, f"{name!r} has {shape}, not {losses_NM.shape}")
        promise(bool(np.isfinite(member_NM).all()), said, f"{name!r} has one that is not")


def _check_explanation(regressor: Abilities) -> None:
    lines: Sequence[object] = regressor.explain(NAMES)
    listed = not isinstance(lines, str) and all(isinstance(line, str) for line in lines)
    promise(listed, "explain returns lines of text", f"it returned {lines!r}")


def _check_sizes(regressor: Abilities, trials: CheckedTrials) -> Predictor:
    """Return the predictor at one size of the trials."""
    size_2 = SIZES[1]
    predictor = regressor.at(*size_2)
    rows = np.hstack([trials.weights_ND, np.tile(size_2, (TRIALS, 1))])
    said = "at predicts from mixtures what the fit predicts for rows of that size"
    shape = np.shape(predictor.predict(trials.weights_ND))
    promise(shape == trials.losses_NM.shape, said, f"{shape}, not {trials.losses_NM.shape}")
    ours, theirs = predict_with_std(predictor, trials.weights_ND), predict_with_std(regressor, rows)
    for at_NM, whole_NM in zip(ours, theirs, strict=True):
        apart = float(np.abs(at_NM - whole_NM).max())
        promise(apart <= CLOSE * np.abs(whole_NM).max(), said, f"up to {apart:.3g} apart")
    return predictor


def _check_repetition(make: Callable[[], Any], trials: CheckedTrials) -> None:
    facts = {"inventory": [2e6, 1e6, 5e5, 25e4], "tokens": 1e6}
    regressor: Abilities = make()
    places = {
        key: value for name, value in facts.items() for key in parameters_called(regressor, name)
    }
    regressor.set_params(**places)
    said = "it fits where inventory and tokens are given"
    try:
        predicted_NM = np.asarray(regressor.fit(trials.rows, trials.losses_NM).predict(trials.rows))
    except Exception as error:
        detail = f"{type(error).__name__}: {error}"
        raise AssertionError(f"a regressor promises: {said}. Broken: {detail}") from error
    promise(predicted_NM.shape == trials.losses_NM.shape, said, f"predicts {predicted_NM.shape}")
    now = {key: regressor.get_params()[key] for key in places}
    promise(now == places, "it keeps the inventory and tokens that it is given", f"{now}")
    if supports_saving(regressor):
        _check_saving(regressor, trials.rows)


def _check_saving(regressor: Abilities, rows: Array) -> None:
    before = predict_with_std(regressor, rows)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "regressor"
        path.mkdir()
        regressor.save(path)
        after = predict_with_std(type(regressor).load(path), rows)
    for what, saved_NM, loaded_NM in zip(("", " deviations"), before, after, strict=True):
        apart = float(np.abs(saved_NM - loaded_NM).max())
        said = f"what load reads predicts{what} as what was saved"
        promise(apart <= CLOSE, said, f"they are up to {apart:.3g} apart")


def check_regressor(factory: Callable[[], Any]) -> None:
    """Check that a regressor keeps its promises."""
    trials, make = CheckedTrials(supports_sizes(factory())), partial(_made, factory)
    rows, losses_NM = trials.rows, trials.losses_NM
    _check_clone(factory())
    _check_not_fitted(make(), rows)
    regressor = _check_fit(make(), rows, losses_NM)
    _check_shapes(regressor, rows)
    _check_single_target(make(), rows, losses_NM)
    _check_deterministic(make, rows, losses_NM)
    check_abilities(make, regressor, trials)


def _made(factory: Callable[[], Any]) -> Any:
    regressor = factory()
    names = parameters_called(regressor, "random_state")
    return regressor.set_params(**dict.fromkeys(names, 0)) if names else regressor


def _check_clone(regressor: Any) -> None:
    from sklearn.base import clone

    said = "sklearn.base.clone copies it, parameters and all"
    try:
        copy = clone(regressor)
    except (TypeError, RuntimeError) as error:
        raise AssertionError(f"a regressor promises: {said}. Broken: {error}") from error
    same = repr(copy.get_params()) == repr(regressor.get_params())
    promise(same, said, f"{copy.get_params()}, not {regressor.get_params()}")


def _check_not_fitted(regressor: Any, weights_ND: Array) -> None:
    from sklearn.exceptions import NotFittedError

    said = "predict before fit raises sklearn.exceptions.NotFittedError"
    try:
        regressor.predict(weights_ND)
    except NotFittedError:
        return
    except Exception as error:
        detail = f"{type(error).__name__}: {error}"
        raise AssertionError(f"a regressor promises: {said}. Broken: {detail}") from error
    promise(False, said, "it predicted")


def _check_fit(regressor: Any, weights_ND: Array, losses_NM: Array) -> Any:
    given, losses = weights_ND.copy(), losses_NM.copy()
    parameters = repr(regressor.get_params())
    fitted = regressor.fit(given, losses)
    promise(fitted is regressor, "fit returns the regressor", f"it returned {fitted!r}")
    now = repr(regressor.get_params())
    promise(now == parameters, "fit changes no parameter", f"{now}, not {parameters}")
    regressor.predict(given)
    same = np.array_equal(given, weights_ND) and np.array_equal(losses, losses_NM)
    promise(same, "fit and predict do not change their inputs", "the arrays differ")
    return regressor


def _check_shapes(regressor: Any, weights_ND: Array) -> None:
    predicted_NM = np.asarray(regressor.predict(weights_ND))
    shape = (len(weights_ND), TARGETS)
    said = "predict returns shape (N, M)"
    promise(predicted_NM.shape == shape, said, f"{predicted_NM.shape}, not {shape}")
    promise(bool(np.isfinite(predicted_NM).all()), "predictions are finite", f"{predicted_NM}")
    one_1M = np.asarray(regressor.predict(weights_ND[:1]))
    promise(one_1M.shape == (1, TARGETS), said, f"{one_1M.shape} for one mixture")
    same = np.allclose(one_1M, predicted_NM[:1], rtol=1e-9, atol=1e-12)
    said = "a prediction does not depend on the other rows"
    promise(same, said, f"{one_1M[0]} alone, {predicted_NM[0]} among others")


def _check_single_target(regressor: Any, weights_ND: Array, losses_NM: Array) -> None:
    rows = len(weights_ND)
    fitted = fit_regressor(type(regressor).__name__, regressor, weights_ND, losses_NM[:, :1])
    predicted = np.asarray(fitted.predict(weights_ND))
    said = "losses of shape (N, 1) give predictions of shape (N, 1), or (N,) as scikit-learn's do"
    promise(predicted.shape in ((rows, 1), (rows,)), said, f"{predicted.shape}")


def _check_deterministic(make: Callable[[], Any], weights_ND: Array, losses_NM: Array) -> None:
    first, second = (
        np.asarray(make().fit(weights_ND, losses_NM).predict(weights_ND)) for _ in range(2)
    )
    apart = float(np.abs(first - second).max())
    said = "two fits with one random_state predict the same"
    promise(np.array_equal(first, second), said, f"they are up to {apart:.3g} apart")
