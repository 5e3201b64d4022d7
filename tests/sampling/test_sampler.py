"""MixtureSampler: ranks, hot-swapped weights, exact resume, limits, and what it refuses."""

import json
import pickle
from functools import cache
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from refusals import refusal, refuses

from mixopt import MixtureError, MixtureSampler, SamplerError
from mixopt.sampling.shares import UNIT

SIZES = {"web": 1000, "code": 300, "books": 77}
WEIGHTS = {"web": 0.5, "code": 0.3, "books": 0.2}
LENGTHS = {"web": 2, "code": 2, "books": 2}
OTHER = {"web": 0.1, "code": 0.0, "books": 0.9}


def sampler_of(sizes=SIZES, weights=WEIGHTS, *, batch_size=24, **options):
    return MixtureSampler(sizes, weights, batch_size=batch_size, **options)


def take(sampler, batches):
    return list(islice(iter(sampler), batches))


def joined(lists):
    return [row for rows in lists for row in rows]


def test_the_state_is_small_and_forgets_old_changes():
    rng = np.random.default_rng(0)
    sampler = sampler_of()
    for k in range(1200):
        sampler.set_weights(rng.dirichlet([1.0] * 3), batch=k)
    take(sampler, 1150)
    state = sampler.state_dict()
    assert len(state["changes"]) == 64 + 49, "the last 64, and those to come"
    assert len(json.dumps(state)) < 1000 + 100 * len(state["changes"])
    other = sampler_of()
    other.load_state_dict(state)
    fingerprints = [[entry.mixture.fingerprint for entry in each.log] for each in (sampler, other)]
    assert fingerprints[0][-112:] == fingerprints[1][-112:]
    assert take(other, 100) == take(sampler, 100)


@pytest.mark.parametrize("batch_size", [48, 16])
def test_another_batch_size_goes_on_with_the_same_samples(batch_size):
    sampler = sampler_of(max_epochs=1)
    take(sampler, 8)
    other = sampler_of(batch_size=batch_size, max_epochs=1)
    other.load_state_dict(json.loads(json.dumps(sampler.state_dict())))
    third = sampler_of(batch_size=batch_size, max_epochs=1)
    rows = joined(take(other, 3))
    third.load_state_dict(json.loads(json.dumps(other.state_dict())))
    rows += joined(third)
    expected = joined(sampler)
    assert rows == expected[: len(rows)]
    assert len(expected) - len(rows) < batch_size


def test_weights_of_a_smaller_batch_change_where_a_window_begins():
    sampler, finer = sampler_of(), sampler_of(batch_size=16)
    take(sampler, 6)
    finer.load_state_dict(sampler.state_dict())
    assert finer.batch == 9
    with pytest.raises(SamplerError, match=r"a window of the stream \(24 samples\) begin; .* 12"):
        finer.set_weights(OTHER, batch=10)
    assert finer.set_weights(OTHER) == 9
    assert finer.log[-1].batch == 9
    take(finer, 1)
    finer.accumulate(3)
    with pytest.raises(SamplerError, match="steps of 3 batches from batch 10 on never begin with"):
        finer.set_weights(OTHER)


def test_weights_change_at_the_next_start_of_an_optimizer_step():
    sampler = sampler_of()
    take(sampler, 3)
    with pytest.raises(SamplerError, match="batch 2 comes too late: 3 is the next; .* change is 3"):
        sampler.set_weights(OTHER, batch=2)
    with pytest.raises(SamplerError, match="at sample 72, in the middle of a batch of 48"):
        sampler_of(batch_size=48).load_state_dict(sampler.state_dict())
    sampler = sampler_of()
    sampler.accumulate(4)
    said = r"batch 6: .* step \(accumulation=4\) and a window .*; the first batch .* is 8$"
    refuses(SamplerError, said, sampler.set_weights, WEIGHTS, batch=6)


def test_a_pass_that_ends_within_a_step_is_refused_and_changes_nothing():
    sampler = MixtureSampler(SIZES, WEIGHTS, batch_size=4, batches=10)
    message = r"batches=10\) with 4 batches in an optimizer step: .* give batches=12"
    refuses(SamplerError, message, sampler.accumulate, 4)
    assert sampler.set_weights({"web": 0.5, "code": 0.5, "books": 0.0}, batch=3) == 3


REFUSED_STATES = {
    "stream: it has 'books', which is not here; it does not have 'novels'$": {
        "sizes": {"web": 1000, "code": 300, "novels": 77},
        "weights": {"web": 0.5, "code": 0.3, "novels": 0.2},
    },
    "seed: 0, here 12345; rows of 'code': 300, here 4000$": {
        "seed": 12345,
        "sizes": {**SIZES, "code": 4000},
    },
    "rows allowed by max_epochs of 'web': no limit, here 2000": {"max_epochs": 2},
    "unit: 'samples', here 'tokens'": {"unit": "tokens", "lengths": dict.fromkeys(SIZES, 2)},
    "exhausted='stop': False, here True; .* of 'books': no limit, here 154; 3 more$": {
        "seed": 5,
        "sizes": dict.fromkeys(SIZES, 77),
        "max_epochs": 2,
        "exhausted": "stop",
        "unit": "tokens",
        "lengths": LENGTHS,
    },
}


@pytest.mark.parametrize("message", REFUSED_STATES)
def test_a_state_of_another_stream_is_refused_and_names_what_differs(message):
    options = dict(REFUSED_STATES[message])
    other = sampler_of(options.pop("sizes", SIZES), options.pop("weights", WEIGHTS), **options)
    refuses(SamplerError, message, other.load_state_dict, sampler_of().state_dict())


REFUSED_WEIGHTS = [
    ({"web": 0.5, "cod": 0.5}, "unknown domain 'cod'; did you mean 'code'"),
    ({"web": 1.0}, "domain 'code' has no weight; add one, 0 is allowed"),
    ({"web": 0, "code": 0, "books": 0}, "all weights are 0"),
    ([0.5, 0.5], "2 weights for 3 domains"),
]


@pytest.mark.parametrize(("weights", "message"), REFUSED_WEIGHTS)
def test_weights_that_are_no_mixture_are_refused(weights, message):
    refuses(MixtureError, message, sampler_of, weights=weights)
    refuses(MixtureError, message, sampler_of().set_weights, weights)
    empty = r"'books' has weight 0\.2 and no rows; set it to 0"
    refuses(MixtureError, empty, sampler_of, {**SIZES, "books": 0})


def of_web(lengths):
    return {"unit": "tokens", "lengths": {**LENGTHS, "web": lengths}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 13, "rank": 0, "world_size": 4}, "4 ranks do not divide it; use 12 or 16"),
        ({"batch_size": 3, "rank": 0, "world_size": 4}, "4 ranks do not divide it; use 4$"),
        ({"rank": 2, "world_size": 2}, "rank 2 of world_size 2; ranks go from 0"),
        ({"rank": 0}, "rank is given without the other"),
        ({"world_size": 2}, "world_size is given without the other"),
        ({"schedule": [(1, WEIGHTS, 5)]}, "schedule.0: .* is neither"),
        ({"schedule": [(3, WEIGHTS, 3, OTHER)]}, "end_batch: 3 is not a whole number from 4 to"),
        ({"exhausted": "redistibute"}, "did you mean 'redistribute'"),
        ({"max_epochs": {"bok": 2}}, "max_epochs: unknown domain 'bok'"),
        ({"max_epochs": {"web": 0}}, "max_epochs: domain 'web': 0 is not > 0"),
        ({"unit": "token"}, "unit='token'; did you mean 'tokens'"),
        ({"lengths": {"web": 1}}, "unit='samples' does not use them: set unit='tokens'"),
        ({"unit": "tokens", "lengths": {"web": 1}}, "lengths: domain 'code' is missing; unit="),
        (of_web([1.5] * 1000), "values of type float64 are not whole numbers"),
        (of_web([1] * 7), r"domain 'web': an array of shape \(7,\) for 1000 rows"),
        (of_web([0] * 1000), "no row has a token; leave"),
        (of_web([*[1] * 999, 2**40 + 1]), "domain 'web': row 999: 1099511627777 is not from 0 to"),
        (of_web([*[1] * 999, -1]), "domain 'web': row 999: -1 is not from 0 to 1099511627776"),
        ({"sizes": {}}, "0 domains; a sampler takes 1 to"),
        ({"sizes": [1] * 8193}, "8193 domains; a sampler takes 1 to 8192"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(options, message):
    refuses(SamplerError, message, sampler_of, **options)


def test_a_pass_has_its_batches_or_stops_with_the_first_domain_that_runs_out():
    sampler = sampler_of(batches=5)
    assert len(sampler) == 5
    assert list(sampler) + list(sampler) == take(sampler_of(), 10)
    refuses(TypeError, r"no end: give MixtureSampler\(batches=\)", len, sampler_of())
    sampler = sampler_of(exhausted="stop")
    batches = list(sampler)
    assert len(batches) == len(sampler) == 77 * 5 // 24
    assert 77 - 24 < sampler.counts()["books"] <= 77
    assert list(sampler) == []


WHOLE = {  # settings, their least and their most
    "batch_size": (lambda n: {"batch_size": n}, 1, 2**24),
    "batches": (lambda n: {"batches": n}, 1, 2**53),
    "schedule: batch": (lambda n: {"schedule": [(n, WEIGHTS)]}, 0, 2**53),
    "domain 'web'": (lambda n: {"sizes": {**SIZES, "web": n}}, 0, 2**53),
    "lengths: domain 'web'": (of_web, 1, 2**40),
}


@given(name=st.sampled_from(sorted(WHOLE)), case=st.integers(0, 3))
def test_a_whole_number_is_one_and_in_its_range(name, case):
    options, least, most = WHOLE[name]
    wrong = (least - 1, most + 1, 0.5, True)[case]
    with pytest.raises(SamplerError, match=f"{name}: {wrong} is not a whole .* {least} to {most}$"):
        sampler_of(**options(wrong))


# --- A state that is damaged is refused in one line with its field, and changes nothing ----------


def advanced():
    """Return a sampler whose state has something in each of its fields."""
    return pickle.loads(pickled())


@cache
def pickled():
    how = {"unit": "tokens", "lengths": LENGTHS, "schedule": [(60, WEIGHTS, 90, OTHER)]}
    sampler = sampler_of(batch_size=8, max_epochs={"web": 5, "code": 5, "books": 0.025}, **how)
    take(sampler, 4)
    sampler.set_weights([0.2, 0.3, 0.5])
    return pickle.dumps(sampler)


def test_the_field_and_the_value_are_in_the_message():
    sampler = advanced()
    load, state = sampler.load_state_dict, sampler.state_dict()
    message = "the sampler's state: counts.0: 9223372036854775808 is not a whole number from 0 to"
    refuses(SamplerError, message, load, state | {"counts": [2**63, 0, 0]})
    message = "position: .* from 0 to 9007199254740992$"
    refuses(SamplerError, message, load, state | {"position": 2**53 + 8})
    message = "counts: .*more than the 32 samples before it"
    refuses(SamplerError, message, load, state | {"counts": [30, 3, 0]})
    for field in state:
        refuses(SamplerError, field, load, {name: state[name] for name in state if name != field})


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
    sampler = sampler_of(batch_size=8)
    refuses(
        SamplerError, message, sampler.load_state_dict, {**sampler.state_dict(), "changes": changes}
    )


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


@settings(max_examples=300)
@given(damaged())
def test_whatever_is_damaged_it_loads_and_goes_on_or_is_refused(state):
    sampler = advanced()
    before = sampler.state_dict()
    if line := refusal(sampler.load_state_dict, state):
        assert len(line) < 500
        assert sampler.state_dict() == before
    else:
        sampler.set_weights([0.4, 0.3, 0.3])
        assert sampler.state_dict()["domains"] == before["domains"]
        assert all(len(rows) == 8 for rows in islice(sampler, 3))
