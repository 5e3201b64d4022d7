"""The driver: when plans hold, what is told and logged, what freezes it, and how it resumes."""

import re

import numpy as np
import pytest
import torch
from driver_parts import (
    DOMAIN_OF_ROW,
    ROWS,
    START,
    TOKENS,
    Turning,
    driver_over,
    held_from,
    held_out_of,
    lines,
    loader_over_rows,
    losses_of,
    run,
    sampler,
    train,
)
from refusals import refuses

from mixopt import MixtureSampler
from mixopt.errors import EstimatorError, RunError
from mixopt.online import Plan


def test_plans_keep_their_pace_and_take_effect_one_step_after_their_observations(tmp_path):
    order, log = sampler(), tmp_path / "log.jsonl"
    train(driver_over(order, Turning(5), log=log), order, until=19)
    assert held_from(log) == [0, 5, 10, 15]
    assert [entry.batch for entry in order.log] == [0, 5, 10, 15]
    weights = {"a": 0.5, "b": 0.3, "c": 0.2}
    assert lines(log)[0] == {"batch": 0, "step": 1, "weights": weights, "why": "start"}
    assert [line["why"] for line in lines(log)[1:]] == [f"turn {k}" for k in range(4)]


def test_an_evaluation_follows_the_planned_steps_on_its_weights(tmp_path):
    order, log = sampler(), tmp_path / "log.jsonl"
    estimator = Turning(3, held_out=True, first_look=True)
    train(driver_over(order, estimator, log=log, evaluate=held_out_of()), order, until=12)
    assert held_from(log) == [0, 3, 6, 9, 12]
    assert [o.step for o in estimator.observations if o.held_out] == [0, 3, 6, 9, 12]
    assert estimator.observations[0].held_out.losses_M.tolist() == [3, 2, 1]
    assert estimator.observations[0].held_out.tokens == 300


def driven(log, workers, until, state=None):
    """Go on from a state to a step, with worker processes; return the state and the estimator."""
    loader, estimator = loader_over_rows(sampler(), workers), Turning(3, held_out=True)
    options = {"log": log, "evaluate": held_out_of(), "observe_every": 1}
    driver = driver_over(loader, estimator, **options)
    for part_of_loop, part in zip((loader, driver), state or (), strict=False):
        part_of_loop.load_state_dict(part)
    driver.start()
    for batch in loader:
        driver.record(losses_of(batch["row"], 0), batch["domain"])
        driver.step()
        if driver.steps_done == until:
            return (loader.state_dict(), driver.state_dict()), estimator
    raise AssertionError("the stream ended")


def test_with_worker_processes_plans_wait_for_the_batches_that_were_handed_out(tmp_path):
    log = tmp_path / "log.jsonl"
    _, estimator = driven(log, 2, 12)
    assert held_from(log) == [0, 7, 14]  # 3 steps, 4 batches on their way
    assert [o.step for o in estimator.observations if o.held_out] == [3, 10]
    # Between the step at which the estimator takes its plan to be over and the evaluation it is
    # told nothing, as it would miss the held-out losses.
    assert [o.step for o in estimator.observations] == [1, 2, 3, 4, 5, 10, 11, 12]
    state, _ = driven(log, 2, 5)
    driven(log, 0, 12, state)  # goes on without workers, at the same pace
    assert held_from(log) == [0, 7, 14]


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


def test_a_plan_that_would_hold_after_the_run_is_not_asked_for():
    for steps, plans in ((20, 4), (21, 5)):
        order, estimator = sampler(), Turning(5)
        train(driver_over(order, estimator, steps=steps), order, until=20)
        assert estimator.plans == plans


def test_the_estimator_is_told_what_was_consumed_and_all_of_it():
    order, estimator = sampler(), Turning(7)
    train(driver_over(order, estimator, observe_every=4), order, until=28)
    consumed = np.array(list(order.counts(28).values())) * TOKENS
    assert sum(o.tokens_D for o in estimator.observations).tolist() == consumed.tolist()
    assert sum(o.loss_count_D for o in estimator.observations).tolist() == consumed.tolist()
    assert {o.step for o in estimator.observations} == {4, 7, 8, 12, 14, 16, 20, 21, 24, 28}
    assert estimator.observations[0].learning_rate == 0.1


def test_the_cost_counts_perturbations_and_evaluations():
    order = sampler()
    driver = driver_over(order, Turning(3, held_out=True), evaluate=held_out_of())
    train(driver, order, until=12)  # two of four plans perturb
    assert (driver.evaluated_tokens, driver.perturbed_steps) == (4 * 300, 6)


def test_shadow_says_what_it_would_do_and_changes_nothing(tmp_path):
    order, log = sampler(), tmp_path / "made" / "here" / "log.jsonl"
    driver = driver_over(order, Broken(no_plan), log=log, shadow=True)
    train(driver, order, until=12)
    assert [entry.batch for entry in order.log] == [0]
    assert held_from(log) == [0, 5, 10]
    assert all(line["shadow"] for line in lines(log))
    assert lines(log)[-1]["why"] == f"frozen: {driver.frozen}"
    assert driver.perturbed_steps == 0


class Still(Turning):
    """Stays with the reference mixture."""

    def plan(self):
        return Plan(self.setting.reference_D, self.plan_steps, "curves")


def test_an_estimator_that_did_nothing_in_a_whole_run_says_so_and_one_that_did_does_not(
    tmp_path, caplog
):
    def go(estimator, until, state=None, steps=12):
        options = {"estimator": estimator, "steps": steps, "state": state}
        return run(tmp_path / "log.jsonl", until, **options)[2]

    go(Still(5), 12, go(Still(5), 6))
    assert caplog.messages == [
        "Still never moved the mixture in 12 steps: it saw no difference between domains beyond"
        " noise; train longer, or leave it out"
    ]
    caplog.clear()
    moved = go(Turning(5), 6)
    go(Still(5), 12, moved)
    go(Still(5), 12, steps=13)  # not at its end
    assert caplog.messages == []


class Broken(Turning):
    """Plans well twice, then as it is told to."""

    def __init__(self, plan):
        super().__init__(5)
        self.then = plan

    def plan(self):
        if self.count < 2:
            return super().plan()
        return self.then() if callable(self.then) else self.then


def no_plan():
    raise ZeroDivisionError("no share")


def test_losses_that_are_not_finite_freeze_the_mixture_and_training_goes_on(tmp_path, caplog):
    def record(step, losses):
        losses = losses.clone()
        if step == 8:
            losses[0, 3] = torch.nan
        return losses

    order, log = sampler(), tmp_path / "log.jsonl"
    driver = driver_over(order, Turning(5), log=log)
    train(driver, order, until=30, record=record)
    last = lines(log)[-1]
    assert "losses up to step 10 are not finite" in last["why"]
    assert last["why"] == f"frozen: {driver.frozen}"
    assert [f"the mixture is {last['why']}"] == caplog.messages
    assert last["batch"] == 10
    assert last["weights"] == lines(log)[2]["weights"]  # turn 1 is no perturbation, and stays
    assert [entry.batch for entry in order.log] == [0, 5]
    assert driver.steps_done == 30


def test_a_freeze_in_a_perturbation_goes_back_to_the_weights_before_it(tmp_path):
    def record(step, losses):
        return losses + 5 * (step > 12)  # turn 2, which perturbs, holds from step 11

    order, log = sampler(), tmp_path / "log.jsonl"
    train(driver_over(order, Turning(5), log=log), order, until=20, record=record)
    *_, steady, perturbing, frozen = lines(log)
    assert (steady["why"], perturbing["why"]) == ("turn 1", "turn 2")
    assert re.match(r"frozen: losses rose by \S+ nats up to step \d+; spike is 1", frozen["why"])
    assert frozen["weights"] == steady["weights"]
    assert dict(order.mixture_at(frozen["batch"])) == pytest.approx(steady["weights"])
    order = sampler()  # at the last step no weights are set beyond the run
    driver = driver_over(order, Turning(5), steps=12, observe_every=1)
    train(driver, order, until=12, record=lambda step, losses: losses + 9 * (step == 12))
    assert "losses rose" in driver.frozen
    assert [entry.batch for entry in order.log] == [0, 5, 10]


LOOK = Plan(np.array([0.5, 0.3, 0.2]), 0, "look", held_out=True)


@pytest.mark.parametrize(
    ("plan", "options", "why"),
    [
        (no_plan, {}, r"ZeroDivisionError in plan: no share"),
        (
            Plan(np.array([0.8, 0.1, 0.1]), 5, "all in"),
            {"bounds": {"a": (0.0, 0.75)}},
            r"plan 'all in': domain 'a': a share of 0.8 is outside its bounds 0 to 0.75",
        ),
        (Plan(np.array([0.5, 0.5]), 5, "two"), {}, r"plan 'two': 2 weights for 3 domains"),
        (LOOK, {}, r"it requests held-out losses, but DriverOptions\(evaluate=\) is missing"),
        (LOOK, {"evaluate": held_out_of()}, r"held-out losses are requested twice in a row"),
        (
            LOOK,
            {"evaluate": held_out_of((1.0, float("nan"), 1.0))},
            r"held-out loss of 'b' is not finite",
        ),
    ],
)
def test_what_cannot_be_done_freezes_and_says_why(tmp_path, plan, options, why):
    order, log = sampler(), tmp_path / "log.jsonl"
    driver = driver_over(order, Broken(plan), log=log, **options)
    train(driver, order, until=20)
    assert re.search(why, driver.frozen or "")
    assert lines(log)[-1]["why"] == f"frozen: {driver.frozen}"
    assert lines(log)[-1]["weights"] == lines(log)[2]["weights"]
    assert len(order.log) == 2


def test_weights_that_the_sampler_cannot_draw_by_freeze(tmp_path):
    order = MixtureSampler({"a": ROWS, "b": ROWS, "c": 0}, [0.5, 0.5, 0.0], batch_size=8)
    log = tmp_path / "log.jsonl"
    driver = driver_over(order, Turning(5), log=log)
    driver.start()
    assert driver.frozen == "plan 'turn 0': domain 'c' has weight 0.1 and no rows; set it to 0"
    assert list(driver.weights.values()) == [0.5, 0.5, 0.0]
    assert [line["why"] for line in lines(log)] == ["start", f"frozen: {driver.frozen}"]


@pytest.mark.parametrize(("held_out", "steps"), [(True, 3), (False, 1)])
def test_a_run_goes_on_from_any_step_to_the_same_log_and_state(tmp_path, held_out, steps):
    def go(log, until, state=None):
        estimator = Turning(steps, held_out=held_out, first_look=held_out)
        return run(log, until, state=state, estimator=estimator)

    driver, order, _ = go(tmp_path / "whole.jsonl", 22)
    log = tmp_path / "again.jsonl"
    for step in range(0, 21, 2):
        log.write_text("a line of another run\n")  # a fresh run begins its log anew
        _, _, state = go(log, step)
        with log.open("a") as stream:  # what a killed run wrote after its checkpoint
            stream.write('{"batch": 99, "half a li')
        resumed, order_again, _ = go(log, 22, state)
        assert log.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
        assert order_again.state_dict() == order.state_dict()
        assert resumed.state_dict() == driver.state_dict()


def test_a_state_that_does_not_fit_is_refused(tmp_path):
    log = tmp_path / "log.jsonl"
    _, _, state = run(log, 10)
    order = sampler()
    driver = driver_over(order, Turning())
    with pytest.raises(EstimatorError, match=r"of format 'mixopt-driver/5': it has no format"):
        driver.load_state_dict({})
    other = MixtureSampler({"c": ROWS, "a": ROWS, "b": ROWS}, START, batch_size=8)
    with pytest.raises(EstimatorError, match=r"domains: .* not those of this run, c, a, b"):
        driver_over(other, Turning()).load_state_dict(state["driver"])
    with pytest.raises(EstimatorError, match=r"a step had 8 samples, here it has 16: keep"):
        driver_over(sampler(), Turning(), accumulation=2).load_state_dict(state["driver"])
    driver.load_state_dict(state["driver"])  # and not the loader's
    with pytest.raises(EstimatorError, match=r"after step 11 the loop is at batch 1, .* at 11"):
        train(driver, order, until=11)
    log.write_text("")
    with pytest.raises(RunError, match=r"log\.jsonl: has 0 bytes, but had \d+ when the state"):
        driver_over(sampler(), Turning(), log=log).load_state_dict(state["driver"])


def test_what_an_estimator_cannot_work_with_is_said_at_once():
    for need, message in {
        "held_out": r"^Turning needs held-out losses: DriverOptions\(evaluate=\), which returns",
        "magic": "^Turning needs 'magic', which this driver does not provide$",
    }.items():
        refuses(EstimatorError, message, driver_over, sampler(), Turning(needs=(need,)))


def test_a_loop_that_calls_the_driver_at_the_wrong_time_is_told_what_to_call():
    order = sampler()
    driver = driver_over(order, Turning(1))
    refuses(EstimatorError, r"has not started: call start\(\) before it", driver.step)
    driver.start()
    next(iter(order))
    refuses(EstimatorError, r"no losses were recorded up to step 1: call record", driver.step)
    order = sampler()
    driver = driver_over(order, Turning(5), accumulation=2)
    driver.start()
    rows = next(iter(order))
    driver.record(losses_of(rows, 0), torch.from_numpy(DOMAIN_OF_ROW[rows]))
    refuses(EstimatorError, r"batch 1, with accumulation=2 it is at 2: call step", driver.step)
    loader = loader_over_rows(sampler(), workers=2)
    driver = driver_over(loader, Turning(5))
    batches = iter(loader)
    next(batches)
    refuses(EstimatorError, r"comes too late.*call start\(\) before the first", driver.start)
    batches.close()


def test_an_estimator_error_is_in_the_state_until_it_is_broadcast(tmp_path):
    class Deaf(Turning):
        def observe(self, observation):
            raise KeyError("web")

    def go(until, state=None):
        options = {"estimator": Deaf(5), "observe_every": 1}
        return run(tmp_path / "log.jsonl", until, state=state, **options)

    driver, _, state = go(3)
    assert driver.frozen is None
    driver, _, state = go(8, state)
    assert driver.frozen == "KeyError in observe: 'web'"
    resumed, order, _ = go(12, state)  # and a frozen run stays frozen
    assert resumed.frozen == driver.frozen
    assert [entry.batch for entry in order.log] == [0, 5]
