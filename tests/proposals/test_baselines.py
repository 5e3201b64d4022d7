"""Baselines are what people would train on without a fit."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, strategies as st
from made_fit import table

from mixopt.baselines import FullRun, unimax
from mixopt.config import ValidateConfig
from mixopt.errors import MixtureError, TrialsError
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals import baseline_mixture

SIZES = {"web": 800, "code": 150, "books": 50}
NATURAL = Mixture.natural(SIZES)
DOMAINS = NATURAL.domains
OBJECTIVE = Objective(DOMAINS, "target", {"web": 1.0})
PLAIN = table([NATURAL.array, [0.2, 0.5, 0.3]], [[2.0] * 3, [1.0] * 3], DOMAINS, DOMAINS)
ROLES = pl.Series(["control", "sampled"])
CONTROLLED = replace(PLAIN, table=PLAIN.table.with_columns(role=ROLES))


def mixture_of(name, weights=None, trials=CONTROLLED):
    return baseline_mixture(name, weights, FullRun(SIZES, 1000), trials, OBJECTIVE)


def test_known_baselines_are_what_they_are_called_and_a_user_s_own_needs_all_domains():
    assert mixture_of(name="natural") == NATURAL
    assert mixture_of(name="uniform") == Mixture.uniform(NATURAL.domains)
    assert mixture_of(name="best_trial")["code"] == 0.5
    assert mixture_of(name="unimax") == unimax(FullRun(SIZES, 1000))
    assert mixture_of(name="control") == NATURAL
    assert unimax(FullRun(SIZES)) == Mixture.uniform(NATURAL.domains)
    weights = {"code": 0.5, "books": 0.25, "web": 0.25}
    assert mixture_of(name="ours", weights=weights).domains == NATURAL.domains
    with pytest.raises(MixtureError, match="domain 'books' has no weight"):
        mixture_of(name="ours", weights={"code": 0.5, "web": 0.5})


def test_best_trial_3_stands_for_three_baselines_and_one_that_is_not_there_is_named():
    assert mixture_of(name="best_trial_2") == NATURAL
    with pytest.raises(TrialsError, match="best_trial: 3: the trials have 2 different mixtures"):
        mixture_of(name="best_trial_3")
    with pytest.raises(TrialsError, match="control: no trial is a control of microanneals"):
        mixture_of("control", trials=PLAIN)
    config = ValidateConfig(baselines=["natural", {"best_trial": 3}])
    assert list(config.baselines) == ["natural", "best_trial", "best_trial_2", "best_trial_3"]
    assert ValidateConfig(**config.model_dump()) == config


def test_unimax_caps_small_domains():
    # 1,200 tokens: 400 each, but books has 2 x 50 and code 2 x 150; web takes what is left.
    found = unimax(FullRun(SIZES, 1200, max_epochs=2))
    assert found.array == pytest.approx(np.array([800, 300, 100]) / 1200)
    # Where nothing is said of epochs, of four passes: books has 200, and 500 are for each other.
    assert unimax(FullRun(SIZES, 1200)).array == pytest.approx(np.array([500, 500, 200]) / 1200)
    assert unimax(FullRun(SIZES, 10**6, max_epochs=1)).array == pytest.approx(NATURAL.array)


@given(
    sizes=st.lists(st.integers(1, 10**9), min_size=2, max_size=6),
    target=st.integers(1, 10**10),
    passes=st.floats(0.5, 20),
)
def test_unimax_keeps_to_its_passes_where_there_is_text_enough(sizes, target, passes):
    inventory = {f"d{k}": size for k, size in enumerate(sizes)}
    found = unimax(FullRun(inventory, target, passes))
    assert found.array.sum() == pytest.approx(1.0)
    if passes * sum(sizes) >= target:
        epochs = found.array * target / np.array(sizes)
        assert (epochs <= passes * (1 + 1e-9)).all()
