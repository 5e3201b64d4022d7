from dataclasses import replace

import numpy as np
import pytest
from mixopt_proxies.ngram import NgramProxy
from ridge import Ridge
from sklearn.ensemble import ExtraTreesRegressor

from mixopt.testing import check_proxy, check_regressor
from mixopt.trials import Progress


class Quick(NgramProxy):
    """The real thing, at an order that is quick."""

    def __init__(self):
        super().__init__(order=2)


def with_losses(result, change):
    losses = result.losses
    nats, bits = (
        {name: change(value) for name, value in unit.items()}
        for unit in (losses.nats_per_token, losses.bits_per_byte)
    )
    return replace(result, losses=replace(losses, nats_per_token=nats, bits_per_byte=bits))


def without(result, target):
    losses = result.losses
    nats = {k: v for k, v in losses.nats_per_token.items() if k != target}
    return replace(result, losses=replace(losses, nats_per_token=nats))


class Reordered(Quick):
    def train(self, *arguments):
        return super().train(*arguments)[::-1]


class Failing(Quick):
    def train(self, *arguments):
        results = super().train(*arguments)
        return [replace(r, status="diverged", reason="loss 1e9", losses=None) for r in results]


class MissingTarget(Quick):
    def train(self, *arguments):
        return [without(r, "other_code") for r in super().train(*arguments)]


class WrongUnit(Quick):
    def train(self, *arguments):
        results = super().train(*arguments)
        same = [replace(r.losses, bits_per_byte=r.losses.nats_per_token) for r in results]
        return [replace(r, losses=losses) for r, losses in zip(results, same, strict=True)]


class SharedStream(Quick):
    """Gives a member the randomness of its place in the group."""

    def train(self, trials, *arguments):
        moved = [replace(trial, seed=place) for place, trial in enumerate(trials)]
        return super().train(moved, *arguments)


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


def with_tasks(result, **values):
    return replace(result, losses=replace(result.losses, tasks=values))


class NoTasks(Quick):
    """A proxy that scores none, as those of others may."""

    def train(self, *arguments):
        return [with_tasks(r) for r in super().train(*arguments)]


class ScoredInAGroup(Quick):
    """Says of a task how many trials there are."""

    def train(self, trials, *arguments):
        results = super().train(trials, *arguments)
        return [with_tasks(r, **dict.fromkeys(r.losses.tasks, len(trials))) for r in results]


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (ScoredInAGroup, "do not depend on its group. Broken: .*'task/next_line/bits_per_byte'"),
        (Reordered, "one result for each trial, in order"),
        (Failing, "a plain trial finishes. Broken: trial 'most' is diverged: loss 1e9"),
        (MissingTarget, r"every evaluation domain and no other. Broken: odd: \['other_code'\]"),
        (WrongUnit, "bits per byte = nats per token x tokens / bytes / ln 2"),
        (SharedStream, "a trial's losses do not depend on its group"),
        (Blind, "another mixture gives other losses"),
        (Backwards, "progress never goes back"),
    ],
)
def test_a_proxy_that_breaks_a_promise_is_told_which(broken, promise):
    with pytest.raises(AssertionError, match=promise):
        check_proxy(broken)


@pytest.mark.parametrize("kept", [Quick, NoTasks])
def test_a_proxy_that_keeps_its_promises_passes(kept):
    check_proxy(kept)


# Regressors -----------------------------------------------------------------------------------


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


def test_a_regressor_of_scikit_learn_passes_though_it_flattens_one_target():
    check_regressor(ExtraTreesRegressor)
