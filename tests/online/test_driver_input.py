"""The driver: what it cannot work with is said in one line."""

from __future__ import annotations

import pytest
import torch
from driver_parts import NAMES, Turning, driver_over, loader_over_rows, sampler, train

from mixopt.errors import EstimatorError


@pytest.mark.parametrize(
    ("needs", "options", "said"),
    [
        ("held_out", {}, r"Turning needs held-out losses: DriverOptions\(evaluate=\)"),
        ("excess_loss", {}, r"reference model: record\(\.\.\., reference_losses=\)"),
        ("alignment", {}, r"gradients: record_alignment\(values_D\), declared"),
        ("magic", {}, r"'magic', which this driver does not provide"),
        ("training_loss", {"gives": ["exces_loss"]}, r"did you mean 'excess_loss'"),
        ("training_loss", {"objective": {"d": 1.0}}, r"objective: 'd' is not an evaluation"),
        ("training_loss", {"bounds": {"d": (0, 1)}}, r"bounds: 'd' is not a domain of the sampler"),
        ("training_loss", {"inventory": {"a": 1}}, r"inventory: domain 'b' is left out"),
        ("training_loss", {"natural": {"a": -1}}, r"natural: \{'a': -1\}; weights must be >= 0"),
        ("training_loss", {"bounds": {"a": (0.6, 1)}}, r"domain 'a': the reference mixture has"),
        ("training_loss", {"tokens_per_sample": 0}, r"tokens_per_sample: 0; they are > 0"),
        ("training_loss", {"lead": -1}, r"lead: -1 is not a whole number >= 0"),
        ("training_loss", {"observe_every": 0}, r"observe_every: 0 is not a whole number >= 1"),
        ("training_loss", {"steps": 0}, r"steps: 0 is not a whole number >= 1"),
        ("training_loss", {"accumulation": True}, r"accumulation: True is not a whole number >= 1"),
    ],
)
def test_what_an_estimator_cannot_work_with_is_said_at_once(needs, options, said):
    with pytest.raises(EstimatorError, match=said):
        driver_over(sampler(), Turning(needs=(needs,)), **options)


def test_an_evaluation_that_misses_a_domain_is_an_error_that_names_it():
    order = sampler()
    driver = driver_over(
        order,
        Turning(3, held_out=True),
        evaluate=lambda: {"a": (1.0, 1), "b": (1.0, 0), "c": (1.0, 1)},
    )
    with pytest.raises(EstimatorError, match=r"'b' has no held-out tokens: evaluate\(\) returned"):
        train(driver, order, until=5)


def test_the_errors_of_held_out_losses_come_from_their_squares():
    order, estimator = sampler(), Turning(3, held_out=True)
    evaluate = lambda: dict.fromkeys(NAMES, (300.0, 100, 1300.0))  # noqa: E731
    train(driver_over(order, estimator, evaluate=evaluate), order, until=3)
    assert estimator.told[-1].held_out.errors_M.tolist() == [0.2] * 3  # sqrt((13 - 9) / 100)


def test_a_loop_that_records_nothing_is_told():
    order = sampler()
    driver = driver_over(order, Turning(5))
    batches = iter(order)
    driver.start()
    for _ in range(5):
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


def test_reference_losses_that_were_promised_are_asked_for():
    driver = driver_over(sampler(), Turning(needs=("excess_loss",)), gives=["excess_loss"])
    with pytest.raises(EstimatorError, match=r"record: reference_losses= is missing"):
        driver.record(torch.ones(2, 3), torch.zeros(2, dtype=torch.long))
