"""States of losses: by the ratio, by held-out folds alone, beside controls; noise is refused."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from made_fit import TARGETS, fitted, make_trials

from mixopt.config import FitConfig
from mixopt.errors import ConfigError
from mixopt.fitting import LossReadiness, fit_trials, readiness, spearman
from mixopt.objective import Objective
from mixopt.trials import Readiness, Trials, settled


def a_loss(spearman, mixtures=103, control=None, of=None):
    given = of or Readiness("loss", 1.0)
    ranked = None if control is None else ("own_share", control)
    return LossReadiness(given, 1.0, mixtures, spearman, None, ranked, {})


def test_the_lower_bound_holds_in_19_of_20_samples():
    rng = np.random.default_rng(0)
    below = 0
    for _ in range(400):
        x_N, e_N = rng.standard_normal((2, 60))
        low = a_loss(spearman(x_N, 0.8 * x_N + 0.6 * e_N), 60).spearman_low
        below += low <= 6 / math.pi * math.asin(0.8 / 2)  # Spearman of normal variables
    assert 0.92 <= below / 400 <= 0.98  # a standard error of 0.011


@pytest.mark.parametrize(
    ("spearman", "state"), [(0.95, "ready"), (0.75, "weak"), (0.1, "noise"), (None, "noise")]
)
def test_without_replicates_the_rank_correlation_decides(spearman, state):
    assert a_loss(spearman).state == state


SURE = Readiness("loss", 1.0, noise=0.1, ratio=9.0, low=5.0)


def test_a_loss_that_a_control_ranks_better_beyond_doubt_is_weak():
    assert a_loss(0.90, control=0.97, of=SURE).state == "weak"
    assert a_loss(0.90, control=0.91, of=SURE).state == "ready"
    assert a_loss(None, of=SURE).state == "weak"
    for ratio, state in ((0.5, "noise"), (1.5, "weak")):  # whatever folds say
        assert a_loss(0.99, of=Readiness("loss", 1.0, 1.0, ratio, 0.0)).state == state


def test_the_domain_whose_loss_goes_with_it_is_named():
    found = {one.name: one for one in readiness(fitted("linear")).losses}
    domain, rank = found["math"].nearest
    assert domain == "code"
    assert rank > 0.9
    assert set(found["code"].domains) == {"prose", "law"}


TASK_NAMES = ("task/good/bits_per_byte", "task/bad/bits_per_byte")


def with_tasks(replicates):
    """Trials whose third and fourth losses are tasks, of which the last is noise alone."""
    rng = np.random.default_rng(1)
    trials = make_trials(replicates=replicates, count=40)
    names = dict(zip(TARGETS[2:], TASK_NAMES, strict=True))
    bad_N = rng.standard_normal(len(trials))
    frame = trials.table.drop("loss/law", "loss/math").rename(
        {f"bpb/{old}": new for old, new in names.items()}
    )
    frame = frame.with_columns(pl.Series(TASK_NAMES[1], bad_N))
    return Trials(frame, trials.domains, (*TARGETS[:2], *TASK_NAMES))


def fit_with_tasks(names, replicates, **fields):
    losses = (*TARGETS[:2], *TASK_NAMES)
    weights = dict.fromkeys(names, 1 / len(names))
    aim = Objective(losses, "mean", weights, "bits_per_byte", **fields)
    return fit_trials(with_tasks(replicates), FitConfig(regressors=["linear"]), aim, 0)


@pytest.mark.parametrize(
    ("replicates", "said"),
    [
        (
            12,
            r"its signal is 0[.]\d\d times the noise between seeds; set objective.noise: "
            r"leave_out, or",
        ),
        (1, "no regressor ranks held-out trials on it .Spearman .*; set design.replicates and"),
    ],
)
def test_an_objective_that_measures_a_task_that_is_noise_is_refused(replicates, said):
    found = readiness(fit_with_tasks(TASK_NAMES, replicates))
    assert found.named("noise") == [TASK_NAMES[1]]
    with pytest.raises(ConfigError, match=f"objective: '{TASK_NAMES[1]}' is noise: {said}") as one:
        found.refuse_noise()
    assert "objective.noise: allow" in str(one.value)


def test_a_task_that_is_ready_or_left_out_is_not_refused():
    readiness(fit_with_tasks(TASK_NAMES[:1], 12)).refuse_noise()
    readiness(fit_with_tasks(TASK_NAMES, 12, leave_out="noise")).refuse_noise()


def test_the_weight_of_a_family_holds_when_one_of_it_is_left_out():
    families = {"tasks": TASK_NAMES, "code": ("code",)}
    losses = (*TARGETS[:2], *TASK_NAMES)
    weights = dict.fromkeys(TASK_NAMES, 0.35) | {"code": 0.3}
    aim = Objective(losses, "mean", weights, families=families, leave_out="noise")
    left = settled(aim, with_tasks(12))
    assert left.left_out == TASK_NAMES[1:]
    assert left.weights == pytest.approx({TASK_NAMES[0]: 0.7, "code": 0.3})
