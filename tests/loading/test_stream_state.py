"""A stream's state that is damaged, or of another stream, is refused in one line with its field."""

from __future__ import annotations

from itertools import islice

import pytest
from changed_state import replaced
from stream_sources import hub, numbered

from mixopt import CorpusError, MixtureStream, SamplerError
from mixopt.errors import MixoptError

ABSURD = [2**63, -1, float("nan"), "x", None, True, [], {}, [[[]]], 1.5]


def stream(**options):
    sources = {name: hub(numbered(name), 8) for name in ("web", "code")}
    return MixtureStream(sources, [0.5, 0.5], batch_size=8, buffer=16, **options)


def advanced(**options):
    one = stream(**options)
    list(islice(one, 7))
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


def test_an_absurd_value_is_one_line_at_the_latest_with_the_first_batch():
    state = advanced().state_dict()
    for k, place in enumerate(places(state)):
        one = stream()
        try:
            one.load_state_dict(replaced(state, place, ABSURD[k % len(ABSURD)]))
            next(iter(one))
        except MixoptError as error:
            assert "\n" not in str(error)  # noqa: PT017


def test_a_state_that_is_refused_changes_nothing():
    one, state = advanced(), advanced().state_dict()
    broken = replaced(state, ("domains", "web", "0"), [-1, 0, 0, 0, 0, None])
    with pytest.raises(SamplerError, match=r"domains: web: 0.0: -1 is not a whole number"):
        one.load_state_dict(broken)
    assert one.state_dict() == state


def test_a_state_of_other_settings_is_refused_with_both():
    for field, value, says in (
        ("block", 64, "block: it is 64, here 2"),
        ("format", "x", "not a state of format 'mixopt-stream/5'"),
    ):
        with pytest.raises(SamplerError, match=says):
            stream().load_state_dict(replaced(advanced().state_dict(), (field,), value))


def test_more_rows_taken_than_the_block_has_is_refused_each_time():
    one, state = stream(), advanced().state_dict()
    first = state["domains"]["web"]["0"]
    one.load_state_dict(replaced(state, ("domains", "web", "0"), [*first[:4], 99, first[5]]))
    for _ in range(2):
        with pytest.raises(CorpusError, match="has taken 99 rows of a block that has 2 here"):
            list(islice(one, 20))


def test_a_state_of_ranks_is_gathered_by_torch_distributed():
    with pytest.raises(SamplerError, match="torch.distributed is not initialised"):
        advanced(rank=0, world_size=2).state_dict()
