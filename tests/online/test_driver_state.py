"""A driver's state that is damaged is refused in one line with its field, and changes nothing."""

import json

import pytest
from changed_state import replaced
from driver_parts import Turning, driver_over, held_out_of, run, sampler, train

from mixopt.errors import EstimatorError, MixoptError, RunError
from mixopt.online import MixtureLog, make_estimator

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
