"""The promises of a regressor, and of each optional ability that it has.

Shapes: N trials, D domains, M evaluation domains.
"""

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mixopt.fitting import (
    fit_regressor,
    parameters_called,
    predict_with_std,
    supports,
    supports_deviations,
    supports_repetition,
    supports_saving,
    supports_sizes,
)
from mixopt.system import Array, no_progress
from mixopt.testing._promises import Promises

TRIALS = 48
DOMAINS = 4
TARGETS = 3
FOLDS = 2
FEW = 24  # trials of checks with many fits
SIZES = ((1e7, 1e9), (4e7, 1e9), (4e7, 8e9))  # parameters and tokens
STEP = 1e-5
CLOSE = 1e-9  # relative tolerance of values that are equal except for rounding
ROUNDED = 1e-6  # rounding error, relative to the largest covariance
LEAK = 0.1  # share of a fold's change of losses that may reach its predictions by member weights
REFIT = 0.05  # difference of a refit on the same trials, relative to a loss's spread over trials

promise = Promises("a regressor")


class CheckedTrials:
    """Trials whose losses follow an exponential law of the mixture, with a little noise."""

    def __init__(self, make: Callable[[], Any], *, sized: bool, count: int = TRIALS) -> None:
        self.make = make
        rng = np.random.default_rng(0)
        weights_ND = rng.dirichlet(np.ones(DOMAINS), size=TRIALS)
        slopes_DM = rng.uniform(-2.0, 0.0, size=(DOMAINS, TARGETS))
        noise_NM = 1e-3 * rng.standard_normal((TRIALS, TARGETS))
        law_NM = 2.0 + np.exp(weights_ND @ slopes_DM) + noise_NM
        self.weights_ND = weights_ND[:count]
        self.losses_NM = law_NM[:count]
        self.rows = self.weights_ND
        self.fold_N = np.arange(count) % FOLDS
        if sized:
            sizes_N2 = np.resize(SIZES, (count, 2))
            self.rows = np.hstack([self.weights_ND, sizes_N2])
            self.losses_NM = self.losses_NM + 10.0 * sizes_N2.prod(axis=1)[:, None] ** -0.1

    def fitted(self) -> Any:
        """Return a regressor fitted on these trials."""
        return self.make().fit(self.rows, self.losses_NM)


def check_regressor(factory: Callable[[], Any]) -> None:
    """Check that a regressor keeps its promises.

    Args:
        factory: Returns a regressor, not fitted; called many times.

    Raises:
        AssertionError: A promise is broken; the message names it and the observed behaviour.
    """

    def make() -> Any:
        regressor = factory()
        names = parameters_called(regressor, "random_state")
        if names:
            regressor.set_params(**dict.fromkeys(names, 0))
        return regressor

    sized = supports_sizes(factory())
    trials = CheckedTrials(make, sized=sized)
    few = CheckedTrials(make, sized=sized, count=FEW)
    regressor = make()
    _check_fit(regressor, trials)
    _check_predictions(regressor, trials)
    if supports_saving(regressor):
        _check_saving(regressor, trials)
    if supports(regressor, "explain"):
        lines = regressor.explain(("web", "code", "exam"))
        listed = not isinstance(lines, str) and all(isinstance(line, str) for line in lines)
        promise(listed, "explain returns lines of text", f"it returned {lines!r}")
    predictor = regressor
    if sized:
        predictor = regressor.at(*SIZES[1])
        rows = np.hstack([trials.weights_ND, np.tile(SIZES[1], (TRIALS, 1))])
        claim = "`at` predicts for mixtures what the fit predicts for rows of that size"
        _check_same(predictor, trials.weights_ND, predict_with_std(regressor, rows), claim)
    checks = {
        "gradient": _check_gradient,
        "covariance": _check_covariance,
        "select": _check_selection,
        "tuned": _check_refit,
    }
    for ability, check in checks.items():
        if supports(predictor, ability):
            check(predictor, trials)
    if supports(make(), "cross_fit"):
        _check_cross_fit(few)
    if supports_repetition(make()):
        _check_repetition(few)


def _check_fit(regressor: Any, trials: CheckedTrials) -> None:
    from sklearn.base import clone
    from sklearn.exceptions import NotFittedError

    rows = trials.rows.copy()
    losses_NM = trials.losses_NM.copy()
    parameters = repr(regressor.get_params())
    claim = "sklearn.base.clone copies it with its parameters"
    with promise.works(claim):
        copied = clone(regressor).get_params()
    promise.same(repr(copied), parameters, claim)
    claim = "predict before fit raises sklearn.exceptions.NotFittedError"
    promise.refuses(lambda: regressor.predict(rows), NotFittedError, claim)
    fitted = regressor.fit(rows, losses_NM)
    promise(fitted is regressor, "fit returns the regressor", f"it returned {fitted!r}")
    promise.same(repr(regressor.get_params()), parameters, "fit changes no parameter")
    regressor.predict(rows)
    same = np.array_equal(rows, trials.rows) and np.array_equal(losses_NM, trials.losses_NM)
    promise(same, "fit and predict do not change their inputs", "the arrays differ")


def _check_predictions(regressor: Any, trials: CheckedTrials) -> None:
    rows = trials.rows
    shape: tuple[int, ...] = trials.losses_NM.shape
    predicted_NM = promise.array(regressor.predict(rows), shape, "predict returns shape (N, M)")
    if supports_deviations(regressor):
        answer = regressor.predict(rows, return_std=True)
        means_NM, _ = _means_and_deviations(answer, shape, "predict with return_std")
        promise.close(means_NM, predicted_NM, 0.0, "return_std does not change the mean")
    expected = [part_NM[:1] for part_NM in predict_with_std(regressor, rows)]
    _check_same(regressor, rows[:1], expected, "a prediction does not depend on the other rows")
    name = type(regressor).__name__
    single = fit_regressor(name, trials.make(), rows, trials.losses_NM[:, :1])
    shape = np.shape(single.predict(rows))
    claim = "losses of shape (N, 1) give predictions of shape (N, 1), or (N,) as in scikit-learn"
    promise(shape in ((len(rows), 1), (len(rows),)), claim, shape)
    first_NM = np.asarray(trials.fitted().predict(rows))
    second_NM = np.asarray(trials.fitted().predict(rows))
    promise.close(first_NM, second_NM, 0.0, "two fits with one random_state predict the same")


def _means_and_deviations(answer: Any, shape: tuple[int, ...], method: str) -> tuple[Array, Array]:
    claim = f"{method} returns means and deviations, shape (N, M) each"
    is_pair = isinstance(answer, tuple) and len(answer) == 2
    promise(is_pair, claim, f"it returned {type(answer).__name__}")
    means_NM, stds_NM = (promise.array(part, shape, claim) for part in answer)
    above_0 = f"deviations of {method} are above 0, since the trials have noise"
    promise((stds_NM > 0).all(), above_0, f"{stds_NM.min()}")
    return means_NM, stds_NM


def _check_same(regressor: Any, rows: Array, expected: Iterable[Array], claim: str) -> None:
    """Check that losses and deviations are the expected ones, except for rounding."""
    for part_NM, expected_NM in zip(predict_with_std(regressor, rows), expected, strict=True):
        promise.close(part_NM, expected_NM, CLOSE * np.abs(expected_NM).max(), claim)


def _check_saving(regressor: Any, trials: CheckedTrials) -> None:
    with tempfile.TemporaryDirectory() as folder:
        regressor.save(Path(folder))
        loaded = type(regressor).load(Path(folder))
    expected = predict_with_std(regressor, trials.rows)
    _check_same(loaded, trials.rows, expected, "a loaded regressor predicts like the saved one")


def _check_gradient(regressor: Any, trials: CheckedTrials) -> None:
    """Compare along directions that keep the sum: from the first domain to each other domain."""
    weights_D = trials.weights_ND.mean(axis=0)
    steps_KD = STEP * (np.eye(DOMAINS)[1:] - np.eye(DOMAINS)[0])
    ahead_KM = np.asarray(regressor.predict(weights_D + steps_KD))
    behind_KM = np.asarray(regressor.predict(weights_D - steps_KD))
    measured_KM = (ahead_KM - behind_KM) / (2 * STEP)
    shape = (measured_KM.shape[1], DOMAINS)
    gradient_MD = promise.array(
        regressor.gradient(weights_D), shape, "gradient returns shape (M, D)"
    )
    claimed_KM = (gradient_MD[:, 1:] - gradient_MD[:, :1]).T
    close = np.allclose(claimed_KM, measured_KM, rtol=1e-3, atol=1e-4)
    broken = f"{np.round(claimed_KM, 4).tolist()}, not {np.round(measured_KM, 4).tolist()}"
    promise(close, "gradient is the derivative of predict", broken)


def _check_covariance(regressor: Any, trials: CheckedTrials) -> None:
    rows = trials.weights_ND
    count = len(rows)
    loads_M = np.linspace(1.0, -0.5, np.shape(regressor.predict(rows))[1])
    covariance_NN = promise.array(
        regressor.covariance(rows, loads_M), (count, count), "covariance returns shape (K, K)"
    )
    largest = max(float(np.abs(covariance_NN).max()), 1e-300)
    claim = "covariance is symmetric"
    promise.close(covariance_NN, covariance_NN.T, CLOSE * largest, claim)
    lowest = float(np.linalg.eigvalsh(covariance_NN).min()) / largest
    broken = f"the lowest eigenvalue is {lowest:.3g} of the largest entry"
    promise(lowest >= -ROUNDED, "covariance is positive semidefinite", broken)
    twice_NN = regressor.covariance(rows, 2.0 * loads_M)
    claim = "covariance is of the weighted sum"
    promise.close(twice_NN, 4.0 * covariance_NN, ROUNDED * largest, claim)


def _check_selection(regressor: Any, trials: CheckedTrials) -> None:
    rows = trials.weights_ND
    targets = [2, 0]
    before = predict_with_std(regressor, rows)
    selected = regressor.select(targets)
    expected = [values_NM[:, targets] for values_NM in before]
    claim = "select keeps the predictions of the selected targets, in the requested order"
    _check_same(selected, rows, expected, claim)
    promise.close(regressor.predict(rows), before[0], 0.0, "select returns a copy")
    has = supports(selected, "gradient")
    had = supports(regressor, "gradient")
    promise(has == had, "select keeps the gradient", f"before: {had}, after: {has}")
    if has:
        _check_gradient(selected, trials)


def _check_refit(regressor: Any, trials: CheckedTrials) -> None:
    rows = trials.weights_ND
    before_NM = np.asarray(regressor.predict(rows))
    regressor.tuned().fit(trials.rows[::2], trials.losses_NM[::2])
    promise.close(regressor.predict(rows), before_NM, 0.0, "tuned returns a copy")
    refit = regressor.tuned().fit(trials.rows, trials.losses_NM)
    spread_M = before_NM.std(axis=0)
    refit_NM = promise.array(refit.predict(rows), before_NM.shape, "tuned fits all targets")
    claim = "tuned, fitted on the same trials, predicts nearly the same"
    promise.close(refit_NM / spread_M, before_NM / spread_M, REFIT, claim)
    if supports(refit, "select"):
        expected = [part_NM[:, [1]] for part_NM in predict_with_std(refit, rows)]
        _check_same(refit.select([1]), rows, expected, "select works on a refit")


def _check_cross_fit(trials: CheckedTrials) -> None:
    losses_NM = trials.losses_NM
    shape = losses_NM.shape

    def cross_fit(regressor: Any, losses_NM: Array) -> Array:
        answer = regressor.cross_fit(trials.rows, losses_NM.copy(), trials.fold_N, no_progress)
        return _means_and_deviations(answer, shape, "cross_fit")[0]

    regressor = trials.make()
    claim = "cross_fit fits on all rows"
    means_NM = cross_fit(regressor, losses_NM)
    with promise.works(claim):
        predicted_NM = regressor.predict(trials.rows)
    promise.array(predicted_NM, shape, claim)
    claim = "held_out_members has finite losses of shape (N, M) by name"
    for member_NM in getattr(regressor, "held_out_members", {}).values():
        promise.array(member_NM, shape, claim)
    out_N = trials.fold_N == 0
    blind_NM = cross_fit(trials.make(), losses_NM + out_N[:, None])
    claim = "cross_fit predicts a fold without its losses (checked with losses raised by 1)"
    promise.close(blind_NM[out_N], means_NM[out_N], LEAK, claim)


def _check_repetition(trials: CheckedTrials) -> None:
    regressor = trials.make()
    rows = trials.rows
    parameters: dict[str, Any] = dict.fromkeys(parameters_called(regressor, "tokens"), 1e6)
    for name in parameters_called(regressor, "inventory"):
        parameters[name] = [2e6, 1e6, 5e5, 25e4]
    claim = "it fits with inventory and tokens set"
    with promise.works(claim):
        predicted_NM = regressor.set_params(**parameters).fit(rows, trials.losses_NM).predict(rows)
    promise.array(predicted_NM, trials.losses_NM.shape, claim)
    now = {key: regressor.get_params()[key] for key in parameters}
    promise(now == parameters, "it keeps its inventory and tokens", now)
    if supports_saving(regressor):
        _check_saving(regressor, trials)
