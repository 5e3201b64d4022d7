"""A state that is damaged is refused in one line with its field, and changes nothing."""

from __future__ import annotations

import json
import pickle
from functools import cache
from itertools import islice

import pytest
from hypothesis import given, settings, strategies as st

from mixopt import MixtureSampler
from mixopt.errors import MixoptError, SamplerError
from mixopt.sampling.order import UNIT

SIZES = {"web": 100, "code": 50, "books": 20}
WEIGHTS = {"web": 0.5, "code": 0.3, "books": 0.2}


def sampler(**options) -> MixtureSampler:
    return MixtureSampler(SIZES, WEIGHTS, **{"batch_size": 8, "rank": 0, "world_size": 1} | options)


def advanced() -> MixtureSampler:
    """Return a sampler whose state has something in each of its fields."""
    return pickle.loads(pickled())


@cache
def pickled() -> bytes:
    ramp = (60, [0.5, 0.3, 0.2], 90, [0.1, 0.5, 0.4])
    lengths = dict.fromkeys(SIZES, 3)
    limits = {"web": 5, "code": 5, "books": 0.1}
    one = sampler(max_epochs=limits, unit="tokens", lengths=lengths, schedule=[ramp])
    for _ in zip(range(4), one, strict=False):
        pass
    one.set_weights([0.2, 0.3, 0.5])
    return pickle.dumps(one)


def test_the_field_and_the_value_are_in_the_message():
    one = advanced()
    message = "the sampler's state: counts.0: 9223372036854775808 is not a whole number from 0 to"
    with pytest.raises(SamplerError, match=message):
        one.load_state_dict({**one.state_dict(), "counts": [2**63, 0, 0]})
    with pytest.raises(SamplerError, match=r"position: .* from 0 to 9007199254740992$"):
        one.load_state_dict({**one.state_dict(), "position": 2**53 + 8})
    with pytest.raises(SamplerError, match="counts: .*more than the 32 samples before it"):
        one.load_state_dict({**one.state_dict(), "counts": [30, 3, 0]})
    for field in one.state_dict():
        state = one.state_dict()
        del state[field]
        with pytest.raises(SamplerError, match=field):
            one.load_state_dict(state)


def at(position, shares):
    return {"position": position, "shares": shares}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([at(0, [1, 2, 3])], r"changes.0: shares: a list is not a mixture"),
        ([at(8, [UNIT, 0, 0])], r"changes.0: position: 8 is not a whole number from 0 to 0"),
        ([at(0, [UNIT, 0, 0]), at(0, [UNIT, 0, 0])], r"changes.1: position: 0 is not a whole"),
        ([], r"changes: .*without a mixture"),
        ([at(0, [UNIT, 0, 0]), at(12, [UNIT, 0, 0])], r"position: 12 is in the middle of a window"),
    ],
)
def test_a_log_of_weights_that_cannot_be_is_named(changes, message):
    one = sampler()
    with pytest.raises(SamplerError, match=message):
        one.load_state_dict({**one.state_dict(), "changes": changes})


@st.composite
def damaged(draw):
    """A state with a value somewhere in it replaced."""
    state = json.loads(json.dumps(advanced().state_dict()))
    place, key = state, draw(st.sampled_from(sorted(state)))
    while isinstance(place[key], (list, dict)) and place[key] and draw(st.booleans()):
        place = place[key]
        key = draw(st.sampled_from(range(len(place)) if isinstance(place, list) else sorted(place)))
    scalars = st.one_of(st.integers(), st.floats(), st.text(max_size=3), st.none(), st.booleans())
    place[key] = draw(scalars | st.lists(scalars | st.just([]), max_size=3) | st.just({}))
    return state


@settings(max_examples=300, deadline=None)
@given(damaged())
def test_whatever_is_damaged_it_loads_and_goes_on_or_is_refused(state):
    one = advanced()
    before = one.state_dict()
    message = ""
    try:
        one.load_state_dict(state)
    except MixoptError as error:
        message = str(error)
    if message:
        assert "\n" not in message
        assert len(message) < 500
        assert one.state_dict() == before
    else:
        one.set_weights([0.4, 0.3, 0.3])
        assert one.state_dict()["domains"] == before["domains"]
        assert all(len(rows) == 8 for rows in islice(one, 3))
