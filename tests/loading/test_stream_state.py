"""A stream's state that is damaged is refused in one line with its field."""

from __future__ import annotations

import pytest
from changed_state import replaced

from mixopt import MixtureStream
from mixopt.errors import CorpusError, MixoptError

SIZES = {"web": 300, "code": 120}
ABSURD = [2**63, -1, float("nan"), "x", None, True, [], {}, [[[]]], 1.5]


def stream():
    sources = {name: [{"id": k} for k in range(size)] for name, size in SIZES.items()}
    return MixtureStream(sources, [0.5, 0.5], batch_size=8, buffer=16)


def advanced():
    one = stream()
    for _ in zip(range(7), one, strict=False):
        pass
    return one


def places(content, path=()):
    for name, value in content.items():
        yield (*path, name)
        if isinstance(value, dict):
            yield from places(value, (*path, name))


def test_every_missing_field_is_named_at_once():
    state = advanced().state_dict()
    for place in places(state):
        with pytest.raises(MixoptError, match=place[-1]):
            stream().load_state_dict(replaced(state, place, ...))


@pytest.mark.parametrize("value", ABSURD, ids=lambda value: f"{type(value).__name__}")
def test_an_absurd_value_is_one_line_at_the_latest_with_the_first_batch(value):
    state = advanced().state_dict()
    for place in places(state):
        one = stream()
        try:
            one.load_state_dict(replaced(state, place, value))
            next(iter(one))
        except MixoptError as error:
            assert "\n" not in str(error)  # noqa: PT017


def test_a_state_that_is_refused_changes_nothing():
    one, state = advanced(), advanced().state_dict()
    with pytest.raises(CorpusError, match="the state of domain 'web': epoch: -1 is no whole"):
        one.load_state_dict(replaced(state, ("domains", "web", "epoch"), -1))
    assert one.state_dict() == state


def test_more_documents_read_than_the_blocks_have_is_refused():
    state = advanced().state_dict()
    broken = replaced(state, ("domains", "web", "read"), 1 << 50)
    with pytest.raises(CorpusError, match="read: 1125899906842624 is more documents than 1 blocks"):
        stream().load_state_dict(broken)


def test_more_rows_taken_than_the_block_has_is_refused():
    one = stream()
    one.load_state_dict(replaced(advanced().state_dict(), ("domains", "web", "taken"), 99))
    with pytest.raises(CorpusError, match="taken: 99 is more than the 16 rows of the block"):
        next(iter(one))


def test_a_state_that_is_refused_at_the_first_batch_is_refused_each_time():
    one, state = stream(), advanced().state_dict()
    one.load_state_dict(replaced(state, ("domains", "code", "taken"), 2**31))
    for _ in range(2):
        with pytest.raises(CorpusError, match="taken: 2147483648 is more than the"):
            next(iter(one))
