"""A timeline holds what a sorted dictionary would, and nothing changes one that there is."""

from __future__ import annotations

import pickle
from typing import NamedTuple

from hypothesis import given, settings, strategies as st

from mixopt.sampling.order.timeline import _CHUNK, Timeline


class Note(NamedTuple):
    position: int
    text: str


@given(
    kept=st.sets(st.integers(0, 500), max_size=200),
    added=st.lists(st.integers(-5, 505), max_size=200),
    asked=st.integers(-10, 510),
)
@settings(max_examples=150, deadline=None)
def test_it_holds_what_a_sorted_dictionary_would(kept, added, asked):
    line = Timeline(Note(position, "old") for position in sorted(kept))
    expected = dict.fromkeys(kept, "old")
    earlier = line, sorted(expected.items())
    for position in added:
        line = line.changed(Note(position, "new"))
        expected[position] = "new"
    items = sorted(expected.items())
    before = [item for item in items if item[0] < asked]
    past = [item for item in items if item[0] <= asked]
    assert (len(line), list(line)) == (len(items), items)
    assert line.at(asked) == (past[-1] if past else None)
    assert list(line.latest(asked)) == past[::-1]
    assert list(line.after(asked)) == items[len(past) :]
    assert list(line.before(asked)) == before
    assert len(line.before(asked)) == len(before)
    assert list(earlier[0]) == earlier[1]


def test_a_long_one_is_in_chunks_of_which_none_grows_long():
    line = Timeline([Note(0, "")])
    for k in range(1, 1000):
        line = line.changed(Note(k, ""))
    assert len(line._chunks) == -(-1000 // _CHUNK)
    for k in range(1000):
        line = line.changed(Note(999 - k, "new")).changed(Note(-k, "new"))
    assert max(map(len, line._chunks)) <= _CHUNK
    assert list(pickle.loads(pickle.dumps(line))) == list(line)
