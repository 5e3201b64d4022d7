"""The driver: a run that goes on from a state is the run that never stopped."""

from __future__ import annotations

import pytest
from driver_parts import (
    ROWS,
    START,
    Turning,
    driver_over,
    lines,
    run,
    sampler,
    train,
)

from mixopt import MixtureSampler
from mixopt.errors import EstimatorError, RunError


@pytest.mark.parametrize(("held_out", "steps"), [(True, 3), (False, 1)])
def test_a_run_goes_on_from_any_step_to_the_same_log_and_state(tmp_path, held_out, steps):
    def go(log, until, state=None):
        estimator = Turning(steps, held_out=held_out, first_look=held_out)
        return run(log, until, state=state, estimator=estimator)

    driver, order, _ = go(tmp_path / "whole.jsonl", 22)
    for step in range(0, 21, 2):
        log = tmp_path / f"{step}.jsonl"
        _, _, state = go(log, step)
        with log.open("a") as stream:  # what a killed run wrote after its checkpoint
            stream.write('{"batch": 99, "half a li')
        again, order_again, _ = go(log, 22, state)
        assert log.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
        assert order_again.state_dict() == order.state_dict()
        states = [one.state_dict() | {"cost": None} for one in (driver, again)]
        assert states[0] == states[1]


def test_a_fresh_run_begins_its_log_anew(tmp_path):
    log = tmp_path / "log.jsonl"
    run(log, 9)
    run(log, 1)
    assert [line["batch"] for line in lines(log)] == [0, 0]


def test_a_state_that_does_not_fit_is_refused(tmp_path):
    log = tmp_path / "log.jsonl"
    _, _, state = run(log, 10)
    with pytest.raises(
        EstimatorError, match=r"not a state of format 'mixopt-driver/3': it has no format"
    ):
        driver_over(sampler(), Turning()).load_state_dict({})
    other = MixtureSampler({"c": ROWS, "a": ROWS, "b": ROWS}, START, batch_size=8)
    with pytest.raises(EstimatorError, match=r"domains: .* not those of this run, c, a, b"):
        driver_over(other, Turning()).load_state_dict(state["driver"])
    with pytest.raises(EstimatorError, match=r"a step had 8 samples, here it has 16: keep"):
        driver_over(sampler(), Turning(), accumulation=2).load_state_dict(state["driver"])
    log.write_text("")
    with pytest.raises(RunError, match=r"log\.jsonl: has 0 bytes, but had \d+ when the state"):
        driver_over(sampler(), Turning(), log=log).load_state_dict(state["driver"])


def test_a_driver_without_the_loaders_state_says_so(tmp_path):
    _, _, state = run(tmp_path / "log.jsonl", 10)
    order = sampler()
    driver = driver_over(order, Turning())
    driver.load_state_dict(state["driver"])
    with pytest.raises(EstimatorError, match=r"after step 11 the loop is at batch 1, .* at 11"):
        train(driver, order, until=11)
