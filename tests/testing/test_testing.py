from dataclasses import replace

import numpy as np
import pytest
from mixopt_proxies.ngram import NgramProxy
from ridge import Ridge
from sklearn.ensemble import ExtraTreesRegressor

from mixopt.testing import check_proxy, check_regressor
from mixopt.testing._regressors import CheckedTrials
from mixopt.trials import Progress


class Quick(NgramProxy):
    """The real thing, at an order that is quick."""

    def __init__(self):
        super().__init__(order=2)


def changing(change):
    """Make a proxy whose results are changed."""

    class Changing(Quick):
        def train(self, *arguments):
            return [change(result) for result in super().train(*arguments)]

    return Changing


def with_losses(result, **units):
    return replace(result, losses=replace(result.losses, **units))


def without_a_target(result):
    nats = {k: v for k, v in result.losses.nats_per_token.items() if k != "other_code"}
    return with_losses(result, nats_per_token=nats)


def diverged(result):
    return replace(result, status="diverged", reason="loss 1e9", losses=None)


class Reordered(Quick):
    def train(self, *arguments):
        return super().train(*arguments)[::-1]


class Blind(Quick):
    """Trains a whole group on one mixture from one seed."""

    def train(self, trials, *arguments):
        model = trials[min(1, len(trials) - 1)]
        same = [replace(t, mixture=model.mixture, seed=model.seed) for t in trials]
        return super().train(same, *arguments)


class Backwards(Quick):
    def train(self, trials, corpus, training, report):
        report(Progress(1, len(trials) * training.tokens))
        return super().train(trials, corpus, training, report)


class ScoredInAGroup(Quick):
    """Says of a task how many trials there are."""

    def train(self, trials, *arguments):
        results = super().train(trials, *arguments)
        scores = dict.fromkeys(results[0].losses.tasks, len(trials))
        return [with_losses(result, tasks=scores) for result in results]


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (ScoredInAGroup, "do not depend on its group. Broken: .*'task/next_line/bits_per_byte'"),
        (Reordered, "one result for each trial, in order"),
        (changing(diverged), "a plain trial finishes. Broken: trial 'most' is diverged: loss 1e9"),
        (
            changing(without_a_target),
            r"every evaluation domain and no other. Broken: odd: \['other_code'\]",
        ),
        (
            changing(lambda r: with_losses(r, bits_per_byte=r.losses.nats_per_token)),
            "bits per byte = nats per token x tokens / bytes / ln 2",
        ),
        (Blind, "another mixture gives other losses"),
        (Backwards, "progress never goes back"),
    ],
)
def test_a_proxy_that_breaks_a_promise_is_told_which(broken, promise):
    with pytest.raises(AssertionError, match=promise):
        check_proxy(broken)


@pytest.mark.parametrize("kept", [Quick, changing(lambda r: with_losses(r, tasks={}))])
def test_a_proxy_that_keeps_its_promises_passes_with_tasks_or_without(kept):
    check_proxy(kept)


# Regressors -----------------------------------------------------------------------------------


def test_the_trials_that_regressors_are_checked_on_follow_a_law_of_mixture_and_size():
    plain, sized = (CheckedTrials(None, sized=sized) for sized in (False, True))
    assert plain.losses_NM[0] == pytest.approx([2.477100435, 2.502395805, 2.236386865], abs=1e-8)
    more = 10.0 * (1e7 * 1e9) ** -0.1
    assert sized.losses_NM[0] == pytest.approx(plain.losses_NM[0] + more)
    assert sized.rows[:3, -2:].tolist() == [[1e7, 1e9], [4e7, 1e9], [4e7, 8e9]]
    assert (plain.rows.shape, sized.rows.shape) == ((48, 4), (48, 6))


class Unguarded(Ridge):
    def predict(self, weights_ND, return_std=False):
        if not hasattr(self, "coefficients_DM_"):
            raise AttributeError("no coefficients")
        return super().predict(weights_ND, return_std)


class Tuning(Ridge):
    def fit(self, weights_ND, losses_NM):
        self.penalty = 1.0
        return super().fit(weights_ND, losses_NM)


class Random(Ridge):
    def fit(self, weights_ND, losses_NM):
        rng = np.random.default_rng()
        return super().fit(weights_ND, losses_NM + rng.normal(size=losses_NM.shape))


class Uphill(Ridge):
    def gradient(self, weights_D):
        return -self.coefficients_DM_.T


class Forgetful(Ridge):
    @classmethod
    def load(cls, path):
        loaded = super().load(path)
        loaded.coefficients_DM_ = loaded.coefficients_DM_ + 1e-3
        return loaded


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (Unguarded, "raises sklearn.exceptions.NotFittedError. Broken: AttributeError"),
        (Tuning, "fit changes no parameter"),
        (Random, "two fits with one random_state predict the same"),
        (Uphill, "gradient is that of predict"),
        (Forgetful, "what load reads predicts as what was saved"),
    ],
)
def test_a_regressor_that_breaks_a_promise_is_told_which(broken, promise):
    with pytest.raises(AssertionError, match=promise):
        check_regressor(broken)


class Sure(Ridge):
    """Has deviations of 0, as where trials are without noise."""

    def predict(self, weights_ND, return_std=False):
        mean_NM = super().predict(weights_ND)
        return (mean_NM, np.zeros_like(mean_NM)) if return_std else mean_NM


@pytest.mark.parametrize("kept", [ExtraTreesRegressor, Sure])
def test_a_regressor_passes_that_flattens_one_target_or_is_sure(kept):
    check_regressor(kept)
