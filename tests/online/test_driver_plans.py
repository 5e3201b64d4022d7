"""The driver: when a plan holds, what the estimator is told, what is logged."""

from __future__ import annotations

import numpy as np
import torch
from driver_parts import (
    TOKENS,
    Turning,
    driver_over,
    held_from,
    held_out_of,
    lines,
    loader_over_rows,
    losses_of,
    sampler,
    train,
)


def test_plans_keep_their_pace_and_hold_from_the_step_after_what_they_are_made_of(tmp_path):
    order, log = sampler(), tmp_path / "log.jsonl"
    train(driver_over(order, Turning(5), log=log), order, until=19)
    assert held_from(log) == [0, 5, 10, 15]
    assert [entry.batch for entry in order.log] == [0, 5, 10, 15]
    assert lines(log)[0] == {
        "batch": 0,
        "step": 1,
        "weights": {"a": 0.5, "b": 0.3, "c": 0.2},
        "why": "start",
    }
    assert [line["why"] for line in lines(log)[1:]] == [f"turn {k}" for k in range(4)]


def test_an_evaluation_is_after_as_many_steps_on_the_weights_as_were_planned(tmp_path):
    order, log = sampler(), tmp_path / "log.jsonl"
    estimator = Turning(3, held_out=True, first_look=True)
    train(driver_over(order, estimator, log=log, evaluate=held_out_of()), order, until=12)
    assert held_from(log) == [0, 3, 6, 9, 12]
    assert [o.step for o in estimator.told if o.held_out] == [0, 3, 6, 9, 12]
    assert estimator.told[0].held_out.losses_M.tolist() == [3, 2, 1]
    assert estimator.told[0].held_out.tokens == 300


def test_with_worker_processes_plans_wait_for_the_batches_that_were_handed_out(tmp_path):
    order, log = sampler(), tmp_path / "log.jsonl"
    loader = loader_over_rows(order, workers=2)
    estimator = Turning(3, held_out=True)
    driver = driver_over(loader, estimator, log=log, evaluate=held_out_of(), observe_every=1)
    driver.start()
    for batch in loader:
        driver.record(losses_of(batch["row"], 0), batch["domain"])
        driver.step()
        if driver.steps_done == 12:
            break
    assert driver.frozen is None
    assert held_from(log) == [0, 7, 14]  # 3 steps, 4 batches that are on their way
    assert [o.step for o in estimator.told if o.held_out] == [3, 10]
    # Between the step at which the estimator takes its plan to be over and the evaluation it is
    # told nothing, as it would miss the held-out losses.
    assert [o.step for o in estimator.told] == [1, 2, 3, 4, 5, 10, 11, 12]


def test_a_torch_dataloader_with_workers_is_seen_to_be_ahead(tmp_path):
    order, log = sampler(), tmp_path / "log.jsonl"
    rows = loader_over_rows(order, 0).dataset
    batches = torch.utils.data.DataLoader(rows, batch_sampler=order, num_workers=2)
    driver = driver_over(order, Turning(4), log=log)
    driver.start()
    for batch in batches:
        driver.record(losses_of(batch["row"], 0), batch["domain"])
        driver.step()
        if driver.steps_done == 9:
            break
    assert held_from(log) == [0, 8, 12]  # after step 4, and 4 batches ahead


def test_the_estimator_is_told_what_was_consumed_and_all_of_it():
    order, estimator = sampler(), Turning(7)
    train(driver_over(order, estimator, observe_every=4), order, until=28)
    consumed = np.array(list(order.counts(28).values())) * TOKENS
    assert sum(o.tokens_D for o in estimator.told).tolist() == consumed.tolist()
    assert sum(o.loss_count_D for o in estimator.told).tolist() == consumed.tolist()
    assert {o.step for o in estimator.told} == {4, 7, 8, 12, 14, 16, 20, 21, 24, 28}
    assert estimator.told[0].learning_rate == 0.1


def test_the_cost_counts_perturbations_and_evaluations():
    order = sampler()
    driver = driver_over(order, Turning(3, held_out=True), evaluate=held_out_of())
    train(driver, order, until=12)  # two of four plans perturb
    cost = driver.cost
    assert (cost.evaluations, cost.evaluation_tokens) == (4, 1200)
    assert (cost.perturbed_steps, cost.perturbed_tokens) == (6, 6 * 8 * TOKENS)
    assert cost.evaluation_seconds > 0
    assert cost.perturbed_seconds > 0


def test_shadow_says_what_it_would_do_and_changes_nothing(tmp_path):
    order, log = sampler(), tmp_path / "log.jsonl"
    driver = driver_over(order, Turning(5), log=log, shadow=True)
    train(driver, order, until=12)
    assert [entry.batch for entry in order.log] == [0]
    assert held_from(log) == [0, 5, 10]
    assert all(line["shadow"] for line in lines(log))
    assert driver.cost.perturbed_steps == 0
