"""The promises of a regressor, and of each optional ability that it has.

Shapes: N trials, D domains, M evaluation domains.
"""

import tempfile
from collections.abc import Callable, Sequence
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

TRIALS, DOMAINS, TARGETS, FOLDS = 48, 4, 3, 2
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
        self.make, rng = make, np.random.default_rng(0)
        weights_ND = rng.dirichlet(np.ones(DOMAINS), size=TRIALS)
        slopes_DM = rng.uniform(-2.0, 0.0, size=(DOMAINS, TARGETS))
        noise_NM = 1e-3 * rng.standard_normal((TRIALS, TARGETS))
        law_NM = 2.0 + np.exp(weights_ND @ slopes_DM) + noise_NM
        self.weights_ND, self.losses_NM = weights_ND[:count], law_NM[:count]
        self.rows, self.fold_N = self.weights_ND, np.arange(count) % FOLDS
        if sized:
            sizes_N2 = np.array([SIZES[n % len(SIZES)] for n in range(count)])
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
        return regressor.set_params(**dict.fromkeys(names, 0)) if names else regressor

    sized = supports_sizes(factory())
    trials, small_table = (CheckedTrials(make, sized=sized, count=count) for count in (TRIALS, FEW))
    _check_before_a_fit(factory(), make(), trials)
    regressor = _check_fit(trials)
    _check_predictions(regressor, trials)
    if supports_deviations(regressor):
        _check_deviations(regressor, trials)
    if supports_saving(regressor):
        _check_saving(regressor, trials)
    if supports(regressor, "explain"):
        lines = regressor.explain(("web", "code", "exam"))
        listed = not isinstance(lines, str) and all(isinstance(line, str) for line in lines)
        promise(listed, "explain returns lines of text", f"it returned {lines!r}")
    predictor = _check_sizes(regressor, trials) if sized else regressor
    for name, check in _PREDICTOR_CHECKS.items():
        if supports(predictor, name):
            check(predictor, trials)
    if supports(make(), "cross_fit"):
        _check_cross_fit(small_table)
    if supports_repetition(make()):
        _check_repetition(small_table)


def _check_before_a_fit(regressor: Any, unfitted: Any, trials: CheckedTrials) -> None:
    from sklearn.base import clone
    from sklearn.exceptions import NotFittedError

    claim = "sklearn.base.clone copies it with its parameters"
    with promise.works(claim):
        copied = repr(clone(regressor).get_params())
    promise.same(copied, repr(regressor.get_params()), claim)
    claim = "predict before fit raises sklearn.exceptions.NotFittedError"
    promise.refuses(lambda: unfitted.predict(trials.rows), NotFittedError, claim)


def _check_fit(trials: CheckedTrials) -> Any:
    regressor, rows, losses_NM = trials.make(), trials.rows.copy(), trials.losses_NM.copy()
    parameters = repr(regressor.get_params())
    fitted = regressor.fit(rows, losses_NM)
    promise(fitted is regressor, "fit returns the regressor", f"it returned {fitted!r}")
    promise.same(repr(regressor.get_params()), parameters, "fit changes no parameter")
    regressor.predict(rows)
    same = np.array_equal(rows, trials.rows) and np.array_equal(losses_NM, trials.losses_NM)
    promise(same, "fit and predict do not change their inputs", "the arrays differ")
    return regressor


def _check_predictions(regressor: Any, trials: CheckedTrials) -> None:
    rows, claim = trials.rows, "predict returns shape (N, M)"
    predicted_NM = promise.shape(regressor.predict(rows), (len(rows), TARGETS), claim)
    promise(np.isfinite(predicted_NM).all(), "predictions are finite", predicted_NM)
    first_1M = promise.shape(regressor.predict(rows[:1]), (1, TARGETS), claim)
    alone = np.allclose(first_1M, predicted_NM[:1], rtol=1e-9, atol=1e-12)
    broken = f"{first_1M[0]} alone, {predicted_NM[0]} among others"
    promise(alone, "a prediction does not depend on the other rows", broken)
    name, losses_N1 = type(regressor).__name__, trials.losses_NM[:, :1]
    shape = np.shape(fit_regressor(name, trials.make(), rows, losses_N1).predict(rows))
    claim = "losses of shape (N, 1) give predictions of shape (N, 1), or (N,) as in scikit-learn"
    promise(shape in ((len(rows), 1), (len(rows),)), claim, shape)
    first, second = (np.asarray(trials.fitted().predict(rows)) for _ in range(2))
    promise.close(first, second, 0.0, "two fits with one random_state predict the same")


def _check_deviations(regressor: Any, trials: CheckedTrials) -> None:
    answer = regressor.predict(trials.rows, return_std=True)
    mean_NM, std_NM = map(np.asarray, promise.pair(answer, "return_std returns (mean, std)"))
    promise.shape(std_NM, mean_NM.shape, "mean and std have the same shape")
    plain_NM = np.asarray(regressor.predict(trials.rows))
    promise.close(mean_NM, plain_NM, 0.0, "return_std does not change the mean")
    promise.deviations(std_NM, "std is")


def _check_saving(regressor: Any, trials: CheckedTrials) -> None:
    before = predict_with_std(regressor, trials.rows)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "regressor"
        path.mkdir()
        regressor.save(path)
        after = predict_with_std(type(regressor).load(path), trials.rows)
    _check_same(after, before, "a loaded regressor predicts like the saved one")


def _check_same(predicted: Sequence[Array], expected: Sequence[Array], claim: str) -> None:
    """Check that losses and deviations are equal except for rounding."""
    for predicted_NM, expected_NM in zip(predicted, expected, strict=True):
        promise.close(predicted_NM, expected_NM, CLOSE * np.abs(expected_NM).max(), claim)


def _check_sizes(regressor: Any, trials: CheckedTrials) -> Any:
    """Return the predictor at one size of the trials."""
    predictor = regressor.at(*SIZES[1])
    rows = np.hstack([trials.weights_ND, np.tile(SIZES[1], (TRIALS, 1))])
    claim = "`at` predicts for mixtures what the fit predicts for rows of that size"
    promise.shape(predictor.predict(trials.weights_ND), trials.losses_NM.shape, claim)
    at_size = predict_with_std(predictor, trials.weights_ND)
    _check_same(at_size, predict_with_std(regressor, rows), claim)
    return predictor


def _check_gradient(regressor: Any, trials: CheckedTrials) -> None:
    """Compare along directions that keep the sum: from the first domain to each other domain."""
    weights_D = trials.weights_ND.mean(axis=0)
    shape = (np.shape(regressor.predict(trials.weights_ND))[1], DOMAINS)
    gradient_MD = promise.shape(
        regressor.gradient(weights_D), shape, "gradient returns shape (M, D)"
    )
    steps_KD = STEP * (np.eye(DOMAINS)[1:] - np.eye(DOMAINS)[0])
    ahead_KM, behind_KM = (
        np.asarray(regressor.predict(weights_D + sign * steps_KD)) for sign in (1, -1)
    )
    measured_KM = (ahead_KM - behind_KM) / (2 * STEP)
    claimed_KM = (gradient_MD[:, 1:] - gradient_MD[:, :1]).T
    close = np.allclose(claimed_KM, measured_KM, rtol=1e-3, atol=1e-4)
    broken = f"{np.round(claimed_KM, 4).tolist()}, not {np.round(measured_KM, 4).tolist()}"
    promise(close, "gradient is the derivative of predict", broken)


def _check_covariance(regressor: Any, trials: CheckedTrials) -> None:
    rows, count = trials.weights_ND, len(trials.weights_ND)
    loads_M = np.linspace(1.0, -0.5, np.shape(regressor.predict(rows))[1])
    covariance_NN = promise.shape(
        regressor.covariance(rows, loads_M), (count, count), "covariance returns shape (K, K)"
    )
    largest = max(float(np.abs(covariance_NN).max()), 1e-300)
    promise.close(
        covariance_NN / largest, covariance_NN.T / largest, CLOSE, "covariance is symmetric"
    )
    lowest = float(np.linalg.eigvalsh(covariance_NN + covariance_NN.T).min()) / (2.0 * largest)
    broken = f"the lowest eigenvalue is {lowest:.3g} of the largest entry"
    promise(lowest >= -ROUNDED, "covariance is positive semidefinite", broken)
    twice_NN = np.asarray(regressor.covariance(rows, 2.0 * loads_M))
    claim = "covariance is that of the weighted sum"
    promise.close(twice_NN / largest, 4.0 * covariance_NN / largest, ROUNDED, claim)


def _check_selection(regressor: Any, trials: CheckedTrials) -> None:
    rows, targets = trials.weights_ND, [2, 0]
    before, selected = predict_with_std(regressor, rows), regressor.select(targets)
    shape = np.shape(selected.predict(rows))
    claim = "select returns the requested targets"
    promise(shape == (len(rows), len(targets)), claim, f"shape {shape}")
    claim = "select keeps the predictions of the selected targets, in the requested order"
    expected = [values_NM[:, targets] for values_NM in before]
    _check_same(predict_with_std(selected, rows), expected, claim)
    promise.close(regressor.predict(rows), before[0], 0.0, "select returns a copy")
    has, had = supports(selected, "gradient"), supports(regressor, "gradient")
    promise(has == had, "select keeps the gradient", f"before: {had}, after: {has}")
    if has:
        _check_gradient(selected, trials)


def _check_refit(regressor: Any, trials: CheckedTrials) -> None:
    rows = trials.weights_ND
    before_NM = np.asarray(regressor.predict(rows))
    half = slice(0, None, 2)
    regressor.tuned().fit(trials.rows[half], trials.losses_NM[half])
    promise.close(regressor.predict(rows), before_NM, 0.0, "tuned returns a copy")
    refit = regressor.tuned().fit(trials.rows, trials.losses_NM)
    refit_NM = np.asarray(refit.predict(rows))
    promise(refit_NM.shape == before_NM.shape, "tuned fits all targets", refit_NM.shape)
    spread_M = before_NM.std(axis=0)
    claim = "tuned, fitted on the same trials, predicts nearly the same"
    promise.close(refit_NM / spread_M, before_NM / spread_M, REFIT, claim)
    if supports(refit, "select"):
        selected_N1 = np.asarray(refit.select([1]).predict(rows))
        close = np.allclose(selected_N1, refit_NM[:, [1]], rtol=CLOSE, atol=CLOSE)
        promise(close, "select works on a refit", "its predictions differ")


def _check_cross_fit(trials: CheckedTrials) -> None:
    regressor, losses_NM = trials.make(), trials.losses_NM
    means_NM, stds_NM = _cross_fit(regressor, losses_NM, trials)
    claim = "cross_fit fits on all rows"
    with promise.works(claim):
        predicted_NM = regressor.predict(trials.rows)
    promise.shape(predicted_NM, losses_NM.shape, claim)
    for name, member_NM in getattr(regressor, "held_out_members", {}).items():
        is_complete = np.shape(member_NM) == losses_NM.shape and np.isfinite(member_NM).all()
        promise(is_complete, "held_out_members has finite losses of shape (N, M) by name", name)
    promise.deviations(stds_NM, "deviations of cross_fit are")
    out_N = trials.fold_N == 0
    moved_NM = losses_NM + np.where(out_N, 1.0, 0.0)[:, None]
    blind_NM, _ = _cross_fit(trials.make(), moved_NM, trials)
    claim = "cross_fit predicts a fold without its losses (checked with losses raised by 1)"
    promise.close(blind_NM[out_N], means_NM[out_N], LEAK, claim)


def _cross_fit(regressor: Any, losses_NM: Array, trials: CheckedTrials) -> tuple[Array, Array]:
    answer = regressor.cross_fit(trials.rows, losses_NM.copy(), trials.fold_N, no_progress)
    claim = "cross_fit returns means and deviations, shape (N, M) each"
    pair = promise.pair(answer, claim)
    means_NM, stds_NM = (promise.shape(part, losses_NM.shape, claim) for part in pair)
    promise(np.isfinite(means_NM).all(), "means of cross_fit are finite", means_NM)
    return means_NM, stds_NM


def _check_repetition(trials: CheckedTrials) -> None:
    facts = {"inventory": [2e6, 1e6, 5e5, 25e4], "tokens": 1e6}
    regressor = trials.make()
    places = {
        key: value for name, value in facts.items() for key in parameters_called(regressor, name)
    }
    regressor.set_params(**places)
    claim = "it fits with inventory and tokens set"
    with promise.works(claim):
        predicted_NM = regressor.fit(trials.rows, trials.losses_NM).predict(trials.rows)
    promise.shape(predicted_NM, trials.losses_NM.shape, claim)
    now = {key: regressor.get_params()[key] for key in places}
    promise(now == places, "it keeps its inventory and tokens", now)
    if supports_saving(regressor):
        _check_saving(regressor, trials)


_PREDICTOR_CHECKS: dict[str, Callable[[Any, CheckedTrials], None]] = {
    "gradient": _check_gradient,
    "covariance": _check_covariance,
    "select": _check_selection,
    "tuned": _check_refit,
}
