"""The driver: what it says of itself, and what a loop may leave out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from driver_parts import (
    DOMAIN_OF_ROW,
    NAMES,
    START,
    Turning,
    driver_over,
    losses_of,
    sampler,
    train,
)

from mixopt.errors import EstimatorError


def test_a_driver_says_what_it_was_made_of():
    order = sampler()
    driver = driver_over(order, Turning(5), accumulation=2)
    assert driver.mixture is order
    assert driver.accumulation == 2
    assert driver.setting.domains == NAMES
    assert driver.steps_done == 0
    assert driver.weights == dict(zip(NAMES, START, strict=True))


def test_a_frozen_driver_takes_no_more_losses_or_alignments():
    class Broken(Turning):
        def plan(self):
            raise ZeroDivisionError

    order = sampler()
    driver = driver_over(order, Broken())
    train(driver, order, until=2)
    driver.record(torch.ones(2), torch.zeros(3))  # of shapes that do not fit
    driver.record_alignment([1.0])
    watch = driver.state_dict()["windows"]
    assert not np.any(watch["sums"])


def test_the_learning_rate_is_0_where_it_is_not_given():
    order, estimator = sampler(), Turning(1)
    driver = driver_over(order, estimator, lead=0)
    driver.start()
    for rate in ({}, {"learning_rate": np.float32(0.5)}):
        rows = np.array(next(iter(order)))
        driver.record(losses_of(rows, 0), torch.from_numpy(DOMAIN_OF_ROW[rows]))
        driver.step(**rate)
    assert [told.learning_rate for told in estimator.told] == [0, 0.5]
    assert isinstance(driver.state_dict()["learning_rate"], float)


def test_a_state_of_another_format_is_refused():
    driver = driver_over(sampler(), Turning(5))
    state = driver.state_dict()
    assert state["format"] == "mixopt-driver/2"
    with pytest.raises(EstimatorError, match=r"not a state of format .*: format 'mixopt-driver/3'"):
        driver.load_state_dict(state | {"format": "mixopt-driver/3"})
