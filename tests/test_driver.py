"""The driver in one process: what holds from when, exact sums, resume, freezing, wrong input."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mixopt import MixtureDataset, MixtureLoader, MixtureSampler
from mixopt.errors import EstimatorError, RunError
from mixopt.online import Driver, Plan
from mixopt.online.alignment import gradient_alignment
from mixopt.online.domain_losses import UNIT, DomainLosses
from mixopt.online.rounding import rounded_shares

NAMES = ("a", "b", "c")
ROWS = 1000
TOKENS = 16
START = [0.5, 0.3, 0.2]
DOMAIN_OF_ROW = np.repeat(np.arange(3), ROWS)


class Turning:
    """Plans of `steps` steps in turn, each from all that was seen; every second perturbs."""

    def __init__(self, steps=5, *, held_out=False, first_look=False, needs=("training_loss",)):
        self.needs = frozenset(needs)
        self.plan_steps, self.held_out, self.first_look = steps, held_out, first_look
        self.told = []

    def start(self, setting):
        self.setting, self.count, self.heat = setting, 0, np.zeros(len(setting.domains))
        self.pace = 0 if self.first_look else self.plan_steps

    def plan(self):
        if self.first_look and not self.count:
            return Plan(self.setting.reference_D, 0, "a look", held_out=True)
        weights = np.roll([0.7, 0.2, 0.1][: len(self.heat)], self.count) + 0.01 * np.tanh(self.heat)
        tag = f"turn {self.count}"
        perturbs = self.count % 2 == 0
        return Plan(weights / weights.sum(), self.plan_steps, tag, self.held_out, perturbs)

    def observe(self, observation):
        self.told.append(observation)
        if observation.held_out is not None:
            self.heat = self.heat + observation.held_out.losses_M
        self.heat = self.heat + observation.loss_sum_D / 100 + observation.tokens_D / 1000
        if observation.step >= self.pace:
            self.count += 1
            self.pace = observation.step + self.plan_steps

    def state_dict(self):
        heat = dict(zip(self.setting.domains, self.heat.tolist(), strict=True))
        return {"count": self.count, "pace": self.pace, "heat": heat}

    def load_state_dict(self, state):
        self.count, self.pace = state["count"], state["pace"]
        self.heat = np.array([state["heat"].get(name, 0.0) for name in self.setting.domains])


def sampler(**options):
    return MixtureSampler(dict.fromkeys(NAMES, ROWS), START, **{"batch_size": 8} | options)


def driver_over(mixture, estimator, **options):
    options = {"steps": 40, "tokens_per_sample": TOKENS} | options
    return Driver(estimator, mixture, **options)


def held_out_of(losses=(3.0, 2.0, 1.0), tokens=100):
    return lambda: {name: (loss * tokens, tokens) for name, loss in zip(NAMES, losses, strict=True)}


def losses_of(rows, step):
    """Losses of a batch, which any split of it over ranks gives to the last bit."""
    rows = torch.as_tensor(rows)
    token = torch.arange(TOKENS)
    return 1 + (((rows[:, None] * 31 + token * 17) % 97).float() / 97) * 0.99**step


def train(driver, order, *, until, record=None):
    """Go on to a step; `record(step, losses)` may change the losses."""
    driver.start()
    while driver.steps_done < until:
        rows = np.array(next(iter(order)))
        losses = losses_of(rows, driver.steps_done)
        if record is not None:
            losses = record(driver.steps_done + 1, losses)
        driver.record(losses, torch.from_numpy(DOMAIN_OF_ROW[rows]))
        driver.step(learning_rate=0.1)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def held_from(path):
    return [line["batch"] for line in lines(path)[1:]]


# --- sums ---------------------------------------------------------------------------------------


def test_the_contract_is_there_without_torch():
    code = "import sys, mixopt.online; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 7))
def test_sums_are_exact_in_any_order_and_any_parts(seed, parts):
    random = np.random.default_rng(seed)
    losses = torch.from_numpy(random.exponential(4, (12, 9)).astype(np.float32))
    domain = torch.from_numpy(random.integers(0, 3, 12))
    whole, split = DomainLosses([9.0] * 3), DomainLosses([9.0] * 3)
    whole.add(losses, domain, None, None)
    order = random.permutation(12)
    for part in np.array_split(order, parts):
        split.add(losses[part], domain[part], None, None)
    assert torch.equal(whole.peek(), split.peek())
    units = sum(
        round(Fraction(loss) * UNIT) for row in losses[domain == 0].tolist() for loss in row
    )
    assert whole.peek()[0, 0] == units


def test_losses_that_are_not_finite_are_counted_and_not_summed():
    sums = DomainLosses([3.0, 3.0])
    losses = torch.tensor([[1.0, torch.nan, 2.0], [torch.inf, 4.0, torch.nan]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    sums.add(losses, torch.tensor([0, 1]), mask, None)
    loss, count, broken, _ = sums.take().tolist()
    assert loss == [3 * UNIT, 4 * UNIT]
    assert (count, broken) == ([2, 1], [1, 1])
    assert not sums.peek().any()


def test_means_of_sequences_count_for_their_tokens():
    sums = DomainLosses([16.0, 8.0])
    sums.add(torch.tensor([2.0, 3.0]), torch.tensor([0, 1]), None, None)
    assert sums.take()[:2].tolist() == [[32 * UNIT, 24 * UNIT], [16, 8]]
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    sums.add(torch.tensor([2.0, 3.0]), torch.tensor([0, 1]), mask, None)
    assert sums.take()[:2].tolist() == [[4 * UNIT, 3 * UNIT], [2, 1]]


def test_the_excess_over_a_reference_is_clipped_at_each_token():
    sums = DomainLosses([2.0])
    losses, reference = torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 2.0]])
    sums.add(losses, torch.tensor([0]), None, reference)
    assert sums.take()[3].tolist() == [2 * UNIT]


@pytest.mark.parametrize(
    ("losses", "domain", "mask", "said"),
    [
        ((2, 3), (3,), None, r"losses of shape \(2, 3\) and domains of shape \(3,\)"),
        ((2, 3, 4), (2,), None, r"they are \(B, T\) or \(B,\)"),
        ((2, 3), (2,), (2,), r"a mask of shape \(2,\)"),
        ((2,), (2,), (2,), r"\(B, T\) for means"),
    ],
)
def test_shapes_that_do_not_fit_are_named(losses, domain, mask, said):
    sums = DomainLosses([3.0])
    mask = None if mask is None else torch.ones(mask, dtype=torch.bool)
    with pytest.raises(EstimatorError, match=said):
        sums.add(torch.ones(losses), torch.zeros(domain, dtype=torch.long), mask, None)


@settings(max_examples=50)
@given(st.integers(2, 40), st.integers(0, 2**32 - 1), st.booleans())
def test_rounded_shares_are_a_mixture_within_the_bounds_and_near(domains, seed, bounded):
    random = np.random.default_rng(seed)
    weights = random.dirichlet(np.ones(domains))
    room = random.uniform(0, 0.5, domains) if bounded else np.ones(domains)
    lower, upper = np.maximum(weights - room, 0), np.minimum(weights + room, 1)
    shares = rounded_shares(weights, np.full(domains, 1 / domains), lower, upper)
    assert shares.sum() == pytest.approx(1, abs=1e-12)
    assert (shares >= lower - 1e-9).all()
    assert (shares <= upper + 1e-9).all()
    assert np.abs(shares - weights).max() < 1e-4 + 1e-9


def test_rounding_hides_the_last_digits_and_keeps_small_domains():
    even, noise = np.full(3, 1 / 3), np.array([-1e-8, 2e-8, -1e-8])
    none, all_ = np.zeros(3), np.ones(3)
    assert rounded_shares(even, even, none, all_).tolist() == [0.3334, 0.3333, 0.3333]
    assert rounded_shares(even + noise, even, none, all_).tolist() == [0.3334, 0.3333, 0.3333]
    small = np.array([2e-5, 0.5, 0.5 - 2e-5])
    assert rounded_shares(small, small, none, all_)[0] == pytest.approx(2e-5)
    third = rounded_shares(even, even, even, even)  # no multiple is within such bounds
    assert np.abs(third - 1 / 3).max() <= 1e-9


# --- when a plan holds ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lead", "batches"), [(0, [0, 5, 10, 15]), (1, [0, 6, 11, 16]), (3, [0, 8, 13, 18])]
)
def test_plans_keep_their_pace_and_hold_lead_steps_after_what_they_are_made_of(
    tmp_path, lead, batches
):
    order, log = sampler(), tmp_path / "log.jsonl"
    train(driver_over(order, Turning(5), lead=lead, log=log), order, until=19)
    assert held_from(log) == batches
    assert [entry.batch for entry in order.log] == batches
    assert lines(log)[0] == {
        "batch": 0,
        "step": 1,
        "weights": {"a": 0.5, "b": 0.3, "c": 0.2},
        "why": "start",
    }
    assert [line["why"] for line in lines(log)[1:]] == [f"turn {k}" for k in range(4)]


def test_a_plan_a_step_changes_the_mixture_at_each_step(tmp_path):
    order, log = sampler(), tmp_path / "log.jsonl"
    train(driver_over(order, Turning(1), log=log), order, until=6)
    assert held_from(log) == [0, 2, 3, 4, 5, 6]


def test_without_start_the_first_plan_holds_after_the_first_step(tmp_path):
    order, log = sampler(), tmp_path / "log.jsonl"
    driver = driver_over(order, Turning(5), log=log)
    rows = next(iter(order))
    driver.record(losses_of(rows, 0), torch.from_numpy(DOMAIN_OF_ROW[rows]))
    driver.step()
    assert held_from(log) == [1]


def test_an_evaluation_is_after_as_many_steps_on_the_weights_as_were_planned(tmp_path):
    order, log = sampler(), tmp_path / "log.jsonl"
    estimator = Turning(3, held_out=True, first_look=True)
    train(driver_over(order, estimator, log=log, evaluate=held_out_of()), order, until=12)
    assert held_from(log) == [0, 3, 6, 9, 12]
    assert [o.step for o in estimator.told if o.held_out] == [0, 3, 6, 9, 12]
    assert estimator.told[0].held_out.losses_M.tolist() == [3, 2, 1]
    assert estimator.told[0].held_out.tokens == 300


def loader_over_rows(order, workers):
    rows = {name: [{"row_id": k * ROWS + r} for r in range(ROWS)] for k, name in enumerate(NAMES)}
    return MixtureLoader(MixtureDataset(rows), order, workers=workers)


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
    assert [o.step for o in estimator.told] == [1, 2, 3, 4, 5, 10, 11]


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
    assert held_from(log) == [0, 9, 13]  # after step 4, lead 1, and 4 batches ahead


def test_nothing_is_told_while_the_next_plan_is_decided():
    order, estimator = sampler(), Turning(5)
    train(driver_over(order, estimator, lead=3, observe_every=1), order, until=16)
    # Plans end at 5 and 10; what is seen meanwhile is told once the next is there.
    assert [o.step for o in estimator.told] == [1, 2, 3, 4, 5, 8, 9, 10, 13]
    assert estimator.told[5].tokens_D.sum() == 3 * 8 * TOKENS


def test_a_step_of_several_batches_holds_from_the_first_of_them(tmp_path):
    order, log = sampler(batch_size=4), tmp_path / "log.jsonl"
    driver = driver_over(order, Turning(5), log=log, accumulation=2)
    driver.start()
    batches = iter(order)
    for _ in range(11):
        for _ in range(2):
            rows = next(batches)
            driver.record(losses_of(rows, 0), torch.from_numpy(DOMAIN_OF_ROW[rows]))
        driver.step()
    assert held_from(log) == [0, 12, 22]


def test_the_estimator_is_told_what_was_consumed_and_all_of_it():
    order, estimator = sampler(), Turning(7)
    train(driver_over(order, estimator, observe_every=4, lead=0), order, until=28)
    consumed = np.array(list(order.counts(28 * 8).values())) * TOKENS
    assert sum(o.tokens_D for o in estimator.told).tolist() == consumed.tolist()
    assert sum(o.loss_count_D for o in estimator.told).tolist() == consumed.tolist()
    assert {o.step for o in estimator.told} == {4, 7, 8, 12, 14, 16, 20, 21, 24, 28}
    assert estimator.told[0].learning_rate == 0.1


def test_weights_that_stay_are_neither_set_nor_written_again(tmp_path):
    class Same(Turning):
        def plan(self):
            return Plan(np.array(START), 2, "the same")

    order, log = sampler(), tmp_path / "log.jsonl"
    train(driver_over(order, Same(), log=log), order, until=10)
    assert len(order.log) == len(lines(log)) == 1


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
    assert held_from(log) == [0, 6, 11]
    assert all(line["shadow"] for line in lines(log))
    assert driver.cost.perturbed_steps == 0


# --- resume ---------------------------------------------------------------------------------------


def run(log, until, *, state=None, estimator=None, **options):
    order = sampler()
    estimator = estimator or Turning(3, held_out=True, first_look=True)
    options = {"evaluate": held_out_of(), "observe_every": 2} | options
    driver = driver_over(order, estimator, log=log, **options)
    if state is not None:
        order.load_state_dict(state["order"])
        driver.load_state_dict(state["driver"])
    train(driver, order, until=until)
    state = {"order": order.state_dict(), "driver": driver.state_dict()}
    return driver, order, json.loads(json.dumps(state))


@pytest.mark.parametrize(
    ("held_out", "lead", "steps"), [(True, 1, 3), (False, 1, 3), (False, 3, 4), (False, 2, 1)]
)
def test_a_run_goes_on_from_any_step_to_the_same_log_and_state(tmp_path, held_out, lead, steps):
    def go(log, until, state=None):
        estimator = Turning(steps, held_out=held_out, first_look=held_out)
        return run(log, until, state=state, estimator=estimator, lead=lead)

    driver, order, _ = go(tmp_path / "whole.jsonl", 22)
    for step in range(21):
        log = tmp_path / f"{step}.jsonl"
        _, _, state = go(log, step)
        with log.open("a") as stream:  # what a killed run wrote after its checkpoint
            stream.write('{"batch": 99, "half a li')
        again, order_again, _ = go(log, 22, state)
        assert log.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
        assert order_again.state_dict() == order.state_dict()
        states = [one.state_dict() | {"cost": None} for one in (driver, again)]
        assert states[0] == states[1]


def test_asking_for_the_state_changes_nothing(tmp_path):
    logs = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for log, asks in zip(logs, (False, True), strict=True):
        order = sampler()
        driver = driver_over(order, Turning(3), log=log, lead=2, observe_every=2)
        for step in range(1, 20):
            train(driver, order, until=step)
            if asks:
                driver.state_dict()
    assert logs[0].read_bytes() == logs[1].read_bytes()


def test_a_fresh_run_begins_its_log_anew(tmp_path):
    log = tmp_path / "log.jsonl"
    run(log, 9)
    run(log, 1)
    assert [line["batch"] for line in lines(log)] == [0, 0]


def test_other_domains_go_on_by_name_and_ask_for_a_plan(tmp_path):
    log = tmp_path / "log.jsonl"
    _, _, state = run(log, 10)
    sizes = {"c": ROWS, "a": ROWS, "new": ROWS}
    order = MixtureSampler(sizes, [0.4, 0.4, 0.2], batch_size=8)
    estimator = Turning(3)
    driver = driver_over(order, estimator, log=log)
    order.load_state_dict(state["order"], map_domains={"b": None})
    driver.load_state_dict(state["driver"])
    before = lines(log)
    driver.start()
    assert estimator.heat[2] == 0
    assert (estimator.heat[:2] > 0).all()
    assert lines(log)[: len(before)] == before
    added = lines(log)[len(before) :]
    assert [line["batch"] for line in added] == [10, 10]
    assert added[0]["weights"] == {"c": 0.4, "a": 0.4, "new": 0.2}
    rows = np.array(next(iter(order)))
    driver.record(losses_of(rows, 0), torch.from_numpy(rows // ROWS))
    driver.step()
    state = driver.state_dict()
    assert (state["step"], state["stream"]["base"]) == (11, 0)


def test_what_was_consumed_of_other_domains_counts_from_the_resume(tmp_path):
    _, _, state = run(tmp_path / "log.jsonl", 11)  # a step after it was last counted
    order = MixtureSampler({"a": ROWS, "b": ROWS}, [0.5, 0.5], batch_size=8)
    estimator = Turning(2)
    driver = driver_over(order, estimator, lead=0, observe_every=2)
    driver.load_state_dict(state["driver"])  # in any order
    order.load_state_dict(state["order"], map_domains={"c": None})
    driver.start()
    batches = iter(order)
    for _ in range(3):
        rows = np.array(next(batches))
        driver.record(losses_of(rows, 0), torch.from_numpy(rows // ROWS))
        driver.step()
    assert driver.frozen is None
    assert sum(o.tokens_D.sum() for o in estimator.told) == 3 * 8 * TOKENS


def test_a_driver_that_is_made_after_the_loader_went_on_knows_the_reference_still(tmp_path):
    _, order, state = run(tmp_path / "log.jsonl", 10)
    assert order.mixture_at(10).array.tolist() != START
    estimator = Turning()
    driver = driver_over(order, estimator)
    driver.load_state_dict(state["driver"])
    assert estimator.setting.reference_D.tolist() == START


def test_a_state_that_does_not_fit_is_refused(tmp_path):
    log = tmp_path / "log.jsonl"
    _, _, state = run(log, 10)
    with pytest.raises(EstimatorError, match=r"not a state of format 'mixopt-driver/1': None"):
        driver_over(sampler(), Turning()).load_state_dict({})
    with pytest.raises(EstimatorError, match=r"a step had 8 samples, here it has 16: keep"):
        driver_over(sampler(), Turning(), accumulation=2).load_state_dict(state["driver"])
    log.write_text("")
    with pytest.raises(RunError, match=r"log\.jsonl: has 0 bytes, and had \d+ when the state"):
        driver_over(sampler(), Turning(), log=log).load_state_dict(state["driver"])


def test_a_driver_without_the_loaders_state_says_so(tmp_path):
    _, _, state = run(tmp_path / "log.jsonl", 10)
    order = sampler()
    driver = driver_over(order, Turning())
    driver.load_state_dict(state["driver"])
    with pytest.raises(EstimatorError, match=r"after step 11 the loop is at batch 1, .* at 11"):
        train(driver, order, until=11)


# --- freezing -------------------------------------------------------------------------------------


class Broken(Turning):
    """Plans well twice, then as it is told to."""

    def __init__(self, plan=None, **options):
        super().__init__(5, **options)
        self.then = plan

    def plan(self):
        if self.count < 2 or self.then is None:
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
    assert driver.frozen is not None
    last = lines(log)[-1]
    assert "losses up to step 10 are not finite" in last["why"]
    assert last["why"] == f"frozen: {driver.frozen}"
    assert [f"the mixture is {last['why']}"] == caplog.messages
    assert last["batch"] == 11
    assert last["weights"] == lines(log)[2]["weights"]  # turn 1 is no perturbation, and stays
    assert [entry.batch for entry in order.log] == [0, 6]
    assert driver.steps_done == 30


def test_a_freeze_in_a_perturbation_goes_back_to_the_weights_before_it(tmp_path):
    def record(step, losses):
        return losses + 5 * (step > 13)  # turn 2, which perturbs, holds from step 12

    order, log = sampler(), tmp_path / "log.jsonl"
    driver = driver_over(order, Turning(5), log=log)
    train(driver, order, until=20, record=record)
    *_, steady, perturbing, frozen = lines(log)
    assert (steady["why"], perturbing["why"]) == ("turn 1", "turn 2")
    assert re.match(r"frozen: losses rose by \S+ nats up to step \d+; spike is 1", frozen["why"])
    assert frozen["weights"] == steady["weights"]
    assert dict(order.mixture_at(frozen["batch"])) == pytest.approx(steady["weights"])


def test_losses_that_differ_between_domains_are_no_spike():
    order = sampler()
    driver = driver_over(order, Turning(5), spike=0.5)
    driver.start()
    batches = iter(order)
    for _ in range(30):
        rows = next(batches)
        domain = torch.from_numpy(DOMAIN_OF_ROW[rows])
        driver.record(losses_of(rows, 0) * 0.1 + 4 * domain[:, None], domain)
        driver.step()
    assert driver.frozen is None


@pytest.mark.parametrize(
    ("plan", "options", "why"),
    [
        (no_plan, {}, r"ZeroDivisionError in plan: no share"),
        (
            Plan(np.array([0.8, 0.1, 0.1]), 5, "all in"),
            {"bounds": {"a": (0.0, 0.75)}},
            r"plan 'all in': domain 'a': a share of 0.8 is outside its bounds 0 to 0.75",
        ),
        (
            Plan(np.array([0.5, 0.5]), 5, "two"),
            {},
            r"plan 'two': 2 weights for 3 domains",
        ),
        (
            Plan(np.array([0.5, 0.3, 0.2]), 5, "look", held_out=True),
            {},
            r"it asks for held-out losses, and there is no Driver\(evaluate=\)",
        ),
        (
            Plan(np.array([0.5, 0.3, 0.2]), 0, "look", held_out=True),
            {"evaluate": held_out_of()},
            r"plan 'look': held-out losses are asked for twice in a row",
        ),
        (
            Plan(np.array([0.5, 0.3, 0.2]), 0, "look", held_out=True),
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


def test_what_observe_raises_freezes_at_the_end_of_the_plan():
    class Deaf(Turning):
        def observe(self, observation):
            if observation.step > 5:
                raise KeyError("web")
            super().observe(observation)

    order = sampler()
    driver = driver_over(order, Deaf(5))
    train(driver, order, until=20)
    assert driver.frozen == "KeyError in observe: 'web'"


def test_a_plan_beyond_what_a_domain_may_be_drawn_freezes(tmp_path):
    order, log = sampler(max_epochs={"a": 0.04}), tmp_path / "log.jsonl"  # 40 samples of a
    driver = driver_over(order, Turning(8), log=log)
    train(driver, order, until=20)
    assert driver.frozen == (
        "plan 'turn 0': domain 'a': it takes 45 samples, and 40 are left (max_epochs)"
    )
    assert lines(log)[-1]["weights"] == dict(zip(NAMES, START, strict=True))


def test_a_thawed_mixture_goes_on_with_the_next_plan(tmp_path):
    order, log = sampler(), tmp_path / "log.jsonl"
    estimator = Broken(no_plan)
    driver = driver_over(order, estimator, log=log)
    train(driver, order, until=20)
    assert driver.frozen == "ZeroDivisionError in plan: no share"
    estimator.then = None
    driver.thaw()
    train(driver, order, until=40)
    assert driver.frozen is None
    assert held_from(log)[-5:] == [20, 22, 27, 32, 37]  # told again at once


def test_a_frozen_run_stays_frozen_when_it_goes_on(tmp_path):
    def go(until, state=None):
        return run(tmp_path / "log.jsonl", until, state=state, estimator=Broken(no_plan))

    driver, _, state = go(20)
    again, order, _ = go(30, state)
    assert again.frozen == driver.frozen == "ZeroDivisionError in plan: no share"
    assert len(order.log) == 2


def test_a_frozen_run_stays_frozen_with_other_domains(tmp_path):
    _, _, state = run(tmp_path / "log.jsonl", 20, estimator=Broken(no_plan))
    order = MixtureSampler({"a": ROWS, "b": ROWS}, [0.5, 0.5], batch_size=8)
    order.load_state_dict(state["order"], map_domains={"c": None})
    driver = driver_over(order, Turning(3))
    driver.load_state_dict(state["driver"])
    driver.start()
    assert driver.frozen == "ZeroDivisionError in plan: no share"
    assert driver.weights == {"a": 0.5, "b": 0.5}


# --- wrong input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("needs", "options", "said"),
    [
        ("held_out", {}, r"Turning needs held-out losses: Driver\(evaluate=\)"),
        ("excess_loss", {}, r"reference model: record\(\.\.\., reference_losses=\)"),
        ("alignment", {}, r"gradients: record_alignment\(values_D\), and say so"),
        ("magic", {}, r"'magic', which this driver does not know"),
        ("training_loss", {"gives": ["exces_loss"]}, r"did you mean 'excess_loss'"),
        ("training_loss", {"objective": {"d": 1.0}}, r"objective: 'd' is no evaluation"),
        ("training_loss", {"bounds": {"d": (0, 1)}}, r"bounds: 'd' is no domain of the sampler"),
        ("training_loss", {"inventory": {"a": 1}}, r"inventory: domain 'b' is left out"),
        ("training_loss", {"natural": {"a": -1}}, r"natural: \{'a': -1\}; weights are >= 0"),
        ("training_loss", {"bounds": {"a": (0.6, 1)}}, r"domain 'a': the reference mixture has"),
        ("training_loss", {"tokens_per_sample": 0}, r"tokens_per_sample: 0; they are > 0"),
        ("training_loss", {"lead": -1}, r"lead: -1 is not a whole number >= 0"),
        ("training_loss", {"observe_every": 0}, r"observe_every: 0 is not a whole number >= 1"),
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


# --- alignment -----------------------------------------------------------------------------------


def test_alignment_is_the_inner_product_over_the_mean_norm():
    weight = torch.tensor([1.0, 2.0], requires_grad=True)
    fixed = torch.tensor([1.0])
    one, other = (
        (weight * torch.tensor([3.0, 4.0])).sum(),
        (weight * torch.tensor([0.0, 5.0])).sum(),
    )
    goal = one + other
    values = gradient_alignment([one, other, None], goal, [weight, fixed])
    assert values.tolist() == [(9 + 36) / 5, 45 / 5, 0]
    goal.backward()  # the graph is still there
    order, estimator = sampler(), Turning(2, needs=("alignment",))
    driver = driver_over(order, estimator, gives=["alignment"], lead=0)
    driver.start()
    for factor in (1, 3):
        rows = next(iter(order))
        driver.record(losses_of(rows, 0), torch.from_numpy(DOMAIN_OF_ROW[rows]))
        driver.record_alignment(values * factor)
        driver.step()
    assert estimator.told[-1].alignment_D.tolist() == [18, 18, 0]
    with pytest.raises(EstimatorError, match=r"record_alignment: shape \(2,\); it takes \(3,\)"):
        driver.record_alignment([1.0, 2.0])


def test_plans_of_a_run_never_go_back(tmp_path):
    log = tmp_path / "log.jsonl"
    run(log, 30)
    assert all(a["batch"] <= b["batch"] for a, b in pairwise(lines(log)))
