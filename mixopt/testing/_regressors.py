"""The promises of a regressor: a scikit-learn estimator of losses from mixtures.

Shapes: N trials, D domains, M evaluation domains.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from mixopt.fitting import fit_regressor, parameters_called, supports_sizes
from mixopt.system import Array
from mixopt.testing._regressor_abilities import check_abilities
from mixopt.testing._regressor_trials import TARGETS, CheckedTrials, promise


def check_regressor(factory: Callable[[], Any]) -> None:
    """Check that a regressor keeps its promises.

    What is optional is checked where it is there: `random_state`, and each ability of
    mixopt.fitting.capabilities. One that knows of sizes is given rows that end in them.

    Args:
        factory: Makes the unfitted regressor.

    Raises:
        AssertionError: A promise is broken; the message says which.
    """
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
