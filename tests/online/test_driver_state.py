"""A driver's state that is damaged is refused in one line; the plan that a driver holds."""

import json

import numpy as np
import pytest
from changed_state import replaced
from driver_parts import Turning, driver_over, held_out_of, run, sampler, train
from hypothesis import given, settings, strategies as st

from mixopt.errors import EstimatorError, MixoptError, RunError
from mixopt.online import DriverOptions, MixtureLog, Plan, make_estimator
from mixopt.online.standing_plan import StreamSteps, rounded_shares, why_impossible

ABSURD = [..., 2**63, -1, float("nan"), float("inf"), "x", None, True, [], {}, [[[]]], 1.5]
HELD_OUT = {"evaluate": held_out_of(), "observe_every": 3}


def places(content, path=()):
    inner = content.items() if isinstance(content, dict) else enumerate(content)
    for name, value in inner:
        yield (*path, name)
        if isinstance(value, (dict, list)):
            yield from places(value, (*path, name))


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """The state of a run in the middle of a plan that perturbs."""
    log = tmp_path_factory.mktemp("log") / "log.jsonl"
    _, _, state = run(log, 8, estimator=Turning(5, held_out=True), **HELD_OUT)
    assert state["driver"]["windows"]["sums"][0][0]
    return state["driver"]


def test_the_users_own_estimator_is_the_one_that_resumes(state):
    mine = Turning(5, held_out=True)
    driver_over(sampler(), mine, **HELD_OUT).load_state_dict(state)
    assert mine.state_dict() == state["estimator"]


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("step",), 2**63, "the driver's state: step: 9223372036854775808 is not a whole number"),
        (("plans", "steady", "weights"), [0.5, 0.1, 0.1], "steady: weights: add up"),
        (("windows", "sums"), [[0] * 3] * 4, r"sums: has shape \(4, 3\), not \(3, 3\)"),
        (("estimator",), 7, "estimator: 7 is not a mapping"),
    ],
)
def test_the_field_and_the_value_are_in_the_message(place, value, message, state):
    driver = driver_over(sampler(), Turning(5, held_out=True), **HELD_OUT)
    with pytest.raises(EstimatorError, match=message):
        driver.load_state_dict(replaced(state, place, value))


@pytest.mark.parametrize(("shift", "name"), [*enumerate(["", "odm", "aioli", "robust"])])
def test_an_absurd_value_anywhere_changes_nothing_or_the_driver_goes_on_from_it(shift, name):
    def driver_and_order():
        order, estimator = sampler(), make_estimator(name) if name else Turning(5, held_out=True)
        return driver_over(order, estimator, **HELD_OUT), order

    driver, order = driver_and_order()
    train(driver, order, until=12)
    state = json.loads(json.dumps(driver.state_dict()))
    for k, place in enumerate(places(state)):
        other, stream = driver_and_order()
        before = json.dumps(other.state_dict())
        try:
            other.load_state_dict(replaced(state, place, ABSURD[(k + 4 * shift) % len(ABSURD)]))
        except MixoptError as error:
            assert "\n" not in str(error)  # noqa: PT017
            assert json.dumps(other.state_dict()) == before, place
        else:
            if place[0] == "estimator":
                stream.load_state_dict(order.state_dict())
                train(other, stream, until=16)


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(RunError, match=rf"{tmp_path}: cannot be written: Is a directory"):
        MixtureLog(tmp_path).write(6, 4, {"web": 1.0}, "start", shadow=False)


WEIGHTS = np.array([0.25, 0.25, 0.5])


def why_not(weights=WEIGHTS, steps=5, first=1, *, order=None, **options):
    order = sampler() if order is None else order
    setting = DriverOptions(steps=40, tokens_per_sample=16, **options).setting(order)
    plan, stream = Plan(np.array(weights), steps, "tag"), StreamSteps(order, 1, 16)
    return why_impossible(plan, setting, stream, first, evaluates=False)


def test_a_plan_outside_the_bounds_is_not():
    assert why_not(bounds={"a": (0.2500005, 1.0), "c": (0.0, 0.4999995)}) is None
    said = "domain 'b': a share of 0.25 is outside its bounds 0.3 to 1"
    assert why_not(bounds={"b": (0.3, 1.0)}) == said


def limited(allowed, **options):
    """A sampler of batches of 100 that has so many rows of the first domain."""
    return sampler(batch_size=100, max_epochs={"a": allowed / 1000}, **options)


def test_a_domain_may_be_drawn_two_samples_beyond_what_is_left_and_a_stream_must_reach_the_step():
    def said(share, first, allowed):
        weights = [share, 0.5, 0.5 - share]
        return why_not(weights, steps=1, first=first, order=limited(allowed))

    few = "domain 'a': it takes 42 samples, but only 40 are left (max_epochs)"
    assert (said(0.419, 1, 40), said(0.421, 1, 40)) == (None, few)
    assert (said(0.419, 2, 90), said(0.421, 2, 90)) == (None, few)  # 50 are drawn by a step
    order = limited(40, exhausted="stop")
    assert len(order) == 0
    assert why_not(steps=1, first=2, order=order) == "the stream ends before batch 1"


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
    assert np.abs(shares - weights).max() < 2e-4
    noise = 1e-12 * np.where(np.arange(domains) % 2, 1, -1)
    shifted = rounded_shares(
        weights + noise - noise.mean(), np.full(domains, 1 / domains), lower, upper
    )
    assert shifted.tolist() == shares.tolist(), "other ranks, other last digits"


def test_rounding_hides_the_last_digits_and_keeps_small_domains():
    even, noise = np.full(3, 1 / 3), np.array([-1e-8, 2e-8, -1e-8])
    none, all_ = np.zeros(3), np.ones(3)
    assert rounded_shares(even, even, none, all_).tolist() == [0.3334, 0.3333, 0.3333]
    assert rounded_shares(even + noise, even, none, all_).tolist() == [0.3334, 0.3333, 0.3333]
    small = np.array([2e-5, 0.5, 0.5 - 2e-5])
    assert rounded_shares(small, small, none, all_)[0] == pytest.approx(2e-5)
    half = np.array([0.5, 0.5, 0.0])  # a share of 0 asks for no finer unit
    thirds = np.array([1 / 3, 2 / 3, 0])
    assert rounded_shares(thirds, half, none, all_).tolist() == [0.3333, 0.6667, 0]
    third = rounded_shares(even, even, even, even)  # no multiple is within such bounds
    assert np.abs(third - 1 / 3).max() <= 1e-9
