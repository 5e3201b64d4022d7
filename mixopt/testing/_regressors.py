"""The promises of a regressor: a scikit-learn estimator of losses from mixtures.

Shapes: N trials, D domains, M evaluation domains.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mixopt.system import Array

TRIALS, DOMAINS, TARGETS = 48, 4, 3
STEP = 1e-5


def check_regressor(factory: Callable[[], Any]) -> None:
    """Check that a regressor keeps its promises.

    What is optional is checked where it is there: `random_state`, `return_std`, `gradient`,
    `save` and `load`.

    Args:
        factory: Makes the unfitted regressor.

    Raises:
        AssertionError: A promise is broken; the message says which.
    """
    weights_ND, losses_NM = _data()
    _check_clone(factory())
    _check_not_fitted(_seeded(factory()), weights_ND)
    regressor = _check_fit(_seeded(factory()), weights_ND, losses_NM)
    _check_shapes(regressor, weights_ND)
    _check_single_target(_seeded(factory()), weights_ND, losses_NM)
    _check_deterministic(factory, weights_ND, losses_NM)
    if "return_std" in inspect.signature(regressor.predict).parameters:
        _check_std(regressor, weights_ND)
    if hasattr(regressor, "gradient"):
        _check_gradient(regressor, weights_ND)
    if hasattr(regressor, "save"):
        _check_save(regressor, weights_ND)


def _data() -> tuple[Array, Array]:
    """Return losses that follow an exponential law of the mixture, with a little noise."""
    rng = np.random.default_rng(0)
    weights_ND = rng.dirichlet(np.ones(DOMAINS), size=TRIALS)
    slopes_DM = rng.uniform(-2.0, 0.0, size=(DOMAINS, TARGETS))
    noise_NM = 1e-3 * rng.standard_normal((TRIALS, TARGETS))
    return weights_ND, 2.0 + np.exp(weights_ND @ slopes_DM) + noise_NM


def _seeded(regressor: Any) -> Any:
    if "random_state" in regressor.get_params():
        regressor.set_params(random_state=0)
    return regressor


def _check_clone(regressor: Any) -> None:
    from sklearn.base import clone

    promise = "sklearn.base.clone copies it, parameters and all"
    try:
        copy = clone(regressor)
    except (TypeError, RuntimeError) as error:
        raise AssertionError(f"a regressor promises: {promise}. Broken: {error}") from error
    same = repr(copy.get_params()) == repr(regressor.get_params())
    _promise(same, promise, f"{copy.get_params()}, not {regressor.get_params()}")


def _check_not_fitted(regressor: Any, weights_ND: Array) -> None:
    from sklearn.exceptions import NotFittedError

    promise = "predict before fit raises sklearn.exceptions.NotFittedError"
    try:
        regressor.predict(weights_ND)
    except NotFittedError:
        return
    except Exception as error:
        detail = f"{type(error).__name__}: {error}"
        raise AssertionError(f"a regressor promises: {promise}. Broken: {detail}") from error
    _promise(False, promise, "it predicted")


def _check_fit(regressor: Any, weights_ND: Array, losses_NM: Array) -> Any:
    given, losses = weights_ND.copy(), losses_NM.copy()
    parameters = repr(regressor.get_params())
    fitted = regressor.fit(given, losses)
    _promise(fitted is regressor, "fit returns the regressor", f"it returned {fitted!r}")
    now = repr(regressor.get_params())
    _promise(now == parameters, "fit changes no parameter", f"{now}, not {parameters}")
    regressor.predict(given)
    same = np.array_equal(given, weights_ND) and np.array_equal(losses, losses_NM)
    _promise(same, "fit and predict do not change their inputs", "the arrays differ")
    return regressor


def _check_shapes(regressor: Any, weights_ND: Array) -> None:
    predicted_NM = np.asarray(regressor.predict(weights_ND))
    shape = (len(weights_ND), TARGETS)
    promise = "predict returns shape (N, M)"
    _promise(predicted_NM.shape == shape, promise, f"{predicted_NM.shape}, not {shape}")
    _promise(bool(np.isfinite(predicted_NM).all()), "predictions are finite", f"{predicted_NM}")
    one_1M = np.asarray(regressor.predict(weights_ND[:1]))
    _promise(one_1M.shape == (1, TARGETS), promise, f"{one_1M.shape} for one mixture")
    same = np.allclose(one_1M, predicted_NM[:1], rtol=1e-9, atol=1e-12)
    promise = "a prediction does not depend on the other rows"
    _promise(same, promise, f"{one_1M[0]} alone, {predicted_NM[0]} among others")


def _check_single_target(regressor: Any, weights_ND: Array, losses_NM: Array) -> None:
    predicted = np.asarray(regressor.fit(weights_ND, losses_NM[:, :1]).predict(weights_ND))
    promise = "losses of shape (N, 1) give predictions of shape (N, 1)"
    _promise(predicted.shape == (len(weights_ND), 1), promise, f"{predicted.shape}")


def _check_deterministic(factory: Callable[[], Any], weights_ND: Array, losses_NM: Array) -> None:
    first, second = (
        np.asarray(_seeded(factory()).fit(weights_ND, losses_NM).predict(weights_ND))
        for _ in range(2)
    )
    apart = float(np.abs(first - second).max())
    promise = "two fits with one random_state predict the same"
    _promise(np.array_equal(first, second), promise, f"they are up to {apart:.3g} apart")


def _check_std(regressor: Any, weights_ND: Array) -> None:
    answer = regressor.predict(weights_ND, return_std=True)
    pair = isinstance(answer, tuple) and len(answer) == 2
    _promise(pair, "return_std gives a pair (mean, std)", f"it gave {type(answer).__name__}")
    mean_NM, std_NM = (np.asarray(part) for part in answer)
    shapes = f"{mean_NM.shape} and {std_NM.shape}"
    _promise(mean_NM.shape == std_NM.shape, "mean and std have the same shape", shapes)
    same = np.array_equal(mean_NM, np.asarray(regressor.predict(weights_ND)))
    _promise(same, "return_std does not change the mean", "it did")
    fine = bool(np.isfinite(std_NM).all() and (std_NM >= 0).all())
    _promise(fine, "std is finite and >= 0", f"the least is {std_NM.min()}")


def _check_gradient(regressor: Any, weights_ND: Array) -> None:
    """Compare along directions that keep the sum: move weight from the first domain to another."""
    weights_D = weights_ND.mean(axis=0)
    gradient_MD = np.asarray(regressor.gradient(weights_D))
    promise = "gradient returns shape (M, D)"
    _promise(gradient_MD.shape == (TARGETS, DOMAINS), promise, f"{gradient_MD.shape}")
    steps_KD = STEP * (np.eye(DOMAINS)[1:] - np.eye(DOMAINS)[0])
    ahead_KM = np.asarray(regressor.predict(weights_D + steps_KD))
    behind_KM = np.asarray(regressor.predict(weights_D - steps_KD))
    measured_KM = (ahead_KM - behind_KM) / (2 * STEP)
    claimed_KM = (gradient_MD[:, 1:] - gradient_MD[:, :1]).T
    close = np.allclose(claimed_KM, measured_KM, rtol=1e-3, atol=1e-4)
    detail = f"{np.round(claimed_KM, 4).tolist()}, not {np.round(measured_KM, 4).tolist()}"
    _promise(close, "gradient is that of predict", detail)


def _check_save(regressor: Any, weights_ND: Array) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "regressor"
        path.mkdir()
        regressor.save(path)
        loaded = type(regressor).load(path)
        predicted_NM, loaded_NM = regressor.predict(weights_ND), loaded.predict(weights_ND)
    apart = float(np.abs(np.asarray(predicted_NM) - np.asarray(loaded_NM)).max())
    promise = "what load reads predicts as what was saved"
    _promise(apart <= 1e-9, promise, f"they are up to {apart:.3g} apart")


def _promise(kept: bool, promise: str, detail: str) -> None:
    if not kept:
        raise AssertionError(f"a regressor promises: {promise}. Broken: {detail}")
