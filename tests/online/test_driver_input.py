"""The driver: what it cannot work with is said in one line."""

from __future__ import annotations

import pytest
from driver_parts import Turning, driver_over, loader_over_rows, sampler

from mixopt.errors import EstimatorError


@pytest.mark.parametrize(
    ("needs", "options", "said"),
    [
        ("held_out", {}, r"Turning needs held-out losses: DriverOptions\(evaluate=\)"),
        ("magic", {}, r"'magic', which this driver does not provide"),
        ("training_loss", {"bounds": {"a": (0.6, 1)}}, r"domain 'a': the reference mixture has"),
    ],
)
def test_what_an_estimator_cannot_work_with_is_said_at_once(needs, options, said):
    with pytest.raises(EstimatorError, match=said):
        driver_over(sampler(), Turning(needs=(needs,)), **options)


def test_a_loop_that_records_nothing_is_told():
    order = sampler()
    driver = driver_over(order, Turning(5))
    batches = iter(order)
    driver.start()
    for _ in range(4):
        next(batches)
        driver.step()
    next(batches)
    with pytest.raises(EstimatorError, match=r"no losses were recorded up to step 5: call record"):
        driver.step()


def test_a_loop_with_another_accumulation_is_told():
    order = sampler()
    driver = driver_over(order, Turning(5), accumulation=2)
    driver.start()
    next(iter(order))
    with pytest.raises(EstimatorError, match=r"batch 1, with accumulation=2 it is at 2: call step"):
        driver.step()


def test_a_start_after_batches_were_handed_out_is_told():
    loader = loader_over_rows(sampler(), workers=2)
    driver = driver_over(loader, Turning(5))
    batches = iter(loader)
    next(batches)
    with pytest.raises(EstimatorError, match=r"comes too late.*call start\(\) before the first"):
        driver.start()
    batches.close()
