"""The driver on real gloo ranks: one decides, all do the same, and any number of them goes on."""

import json
import time

import numpy as np
import pytest
import torch
from driver_parts import DOMAIN_OF_ROW, NAMES, ROWS, Turning, driver_over, lines, losses_of, sampler
from ranks import kill, on_ranks, start_ranks

from mixopt.errors import EstimatorError, MixoptError
from mixopt.system import write_json


class Broken(Turning):
    """Raises where it is asked for a plan after a perturbation."""

    def plan(self):
        if self.count == 3:
            raise ZeroDivisionError("no share")
        return super().plan()


class Refused(Turning):
    """Refuses every setting."""

    def start(self, setting):
        raise EstimatorError("too few domains")


def steer(out, steps, estimator, pause=0.0):
    """Train to a step; go on where the state is."""
    order = sampler()

    def evaluate():
        mine = range(order.rank, 10, order.world_size)
        losses = {k: losses_of([ROWS * k + i for i in mine], driver.steps_done) for k in range(3)}
        sums = {NAMES[k]: (float(loss.double().sum()), loss.numel()) for k, loss in losses.items()}
        return sums if mine else {}

    options = {"steps": steps, "log": out / "log.jsonl", "observe_every": 4}
    driver = driver_over(order, estimator, evaluate=evaluate, **options)
    saved = out / "state.json"
    if saved.exists():
        state = json.loads(saved.read_text())
        order.load_state_dict(state["order"])
        driver.load_state_dict(state["driver"])
    driver.start()
    with (out / f"rows.{order.rank}").open("a") as log:
        for rows in order:
            log.write(json.dumps([driver.steps_done, rows]) + "\n")
            log.flush()
            domain = torch.from_numpy(DOMAIN_OF_ROW[np.array(rows)])
            driver.record(losses_of(rows, driver.steps_done), domain)
            driver.step(learning_rate=0.1)
            if driver.steps_done % 5 == 0:
                state = {"order": order.state_dict(), "driver": driver.state_dict()}
                if order.rank == 0:
                    write_json(saved, state)
            if driver.steps_done == steps:
                return driver
            time.sleep(pause)
    raise AssertionError("the stream ended")


def sweeping():
    return Turning(3, held_out=True, first_look=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The log and the batches of one process without torch.distributed."""
    out = tmp_path_factory.mktemp("undisturbed")
    steer(out, 45, sweeping())
    return (out / "log.jsonl").read_bytes(), batches_of(out, 1)


def batches_of(out, world_size):
    """Rows of each batch over all ranks; of one that was trained on twice the later ones."""
    parts = [dict(lines(out / f"rows.{rank}")) for rank in range(world_size)]
    return {step: [row for part in parts for row in part[step]] for step in parts[0]}


def test_a_killed_job_of_two_ranks_goes_on_with_one_to_the_same_mixtures(undisturbed, tmp_path):
    log, batches = undisturbed
    ranks = start_ranks(2, __file__, "steered", tmp_path)
    state = tmp_path / "state.json"
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and not (
        state.exists() and json.loads(state.read_text())["driver"]["step"] >= 20
    ):
        time.sleep(0.01)
    kill(ranks)
    step = json.loads(state.read_text())["driver"]["step"]
    assert 20 <= step < 45
    before = batches_of(tmp_path, 2)
    for rank in range(2):
        (tmp_path / f"rows.{rank}").unlink()
    on_ranks(1, __file__, "steered", tmp_path)
    after = batches_of(tmp_path, 1)
    assert min(after) == step
    assert {k: before[k] for k in range(step)} | after == batches
    assert (tmp_path / "log.jsonl").read_bytes() == log


def steered(out):
    """Steer a job, slowly enough to be killed in the middle."""
    steer(out, 45, sweeping(), 0.01)


def failing(out):
    """Return what this rank has of estimators that do not work."""
    frozen = steer(out, 20, Broken(3)).frozen
    with pytest.raises(MixoptError) as caught:
        steer(out, 20, Refused())
    return frozen, str(caught.value)


def test_what_an_estimator_raises_on_rank_0_freezes_all_ranks_or_is_an_error_on_all(tmp_path):
    frozen, refused = zip(*on_ranks(2, __file__, "failing", tmp_path), strict=True)
    assert frozen == ("ZeroDivisionError in plan: no share",) * 2
    *_, steady, perturbing, last = lines(tmp_path / "log.jsonl")
    assert last["why"] == "frozen: ZeroDivisionError in plan: no share"
    assert last["weights"] == steady["weights"] != perturbing["weights"]
    assert refused == ("too few domains", "EstimatorError on rank 0: too few domains")
