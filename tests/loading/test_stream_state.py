"""A stream's state that is damaged is refused in one line with its field."""

from __future__ import annotations

from itertools import islice

import datasets
import pytest
from changed_state import replaced
from datasets.distributed import split_dataset_by_node

from mixopt import CorpusError, MixtureStream, SamplerError
from mixopt.errors import MixoptError
from mixopt.loading import join_stream_states

SIZES = {"web": 300, "code": 120}
ABSURD = [2**63, -1, float("nan"), "x", None, True, [], {}, [[[]]], 1.5]


def stream(**options):
    sources = {name: [{"id": k} for k in range(size)] for name, size in SIZES.items()}
    return MixtureStream(sources, [0.5, 0.5], batch_size=8, buffer=16, **options)


def advanced(**options):
    one = stream(**options)
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
    with pytest.raises(SamplerError, match=r"domains: web: lanes: 0.0: -1 is not a whole number"):
        one.load_state_dict(
            replaced(state, ("domains", "web", "lanes", "0"), [-1, 0, 0, 0, 0, 0, [0, 0, 0, None]])
        )
    assert one.state_dict() == state


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("lanes", 4, "lanes: it is 4, here 8"),
        ("block", 64, "block: it is 64, here 2"),
        ("length", 16, "length: it is 16, here None"),
        ("packing", "best_fit", "packing: it is 'best_fit', here 'cut'"),
    ],
)
def test_a_state_of_other_settings_is_refused_with_both(field, value, says):
    with pytest.raises(SamplerError, match=says):
        stream().load_state_dict(replaced(advanced().state_dict(), (field,), value))


def test_a_place_before_the_mark_of_its_part_is_refused():
    state = advanced().state_dict()
    lane = [*state["domains"]["web"]["lanes"]["0"][:6], [3, 0, 1, None]]
    broken = replaced(state, ("domains", "web", "lanes", "0"), lane)
    with pytest.raises(SamplerError, match="is no place of lane 0 after its mark"):
        stream().load_state_dict(broken)


def test_a_place_of_another_lane_is_refused():
    lane = [0, 2, 0, 0, 0, 1, [0, 0, 0, None]]
    broken = replaced(advanced().state_dict(), ("domains", "web", "lanes", "1"), lane)
    with pytest.raises(SamplerError, match="is no place of lane 1 after its mark"):
        stream().load_state_dict(broken)


def test_a_source_of_fewer_parts_is_refused():
    broken = replaced(advanced().state_dict(), ("domains", "web", "parts"), 4)
    with pytest.raises(SamplerError, match="was read in 4 parts, here it has shards for 1"):
        stream().load_state_dict(broken)


def test_more_rows_taken_than_the_block_has_is_refused_each_time():
    one = stream()
    state = advanced().state_dict()
    first = state["domains"]["web"]["lanes"]["0"]
    one.load_state_dict(
        replaced(state, ("domains", "web", "lanes", "0"), [*first[:5], 99, first[6]])
    )
    for _ in range(2):
        with pytest.raises(CorpusError, match="has taken 99 rows of a block that has 2 here"):
            list(islice(one, 20))


def test_a_state_in_which_the_lanes_of_a_rank_are_missing_is_refused():
    state = stream(rank=0, world_size=2).rank_state()
    with pytest.raises(SamplerError, match=r"lanes: 4: is missing.*join_stream_states"):
        stream().load_state_dict(state)


def test_a_state_of_one_rank_says_that_it_needs_the_others():
    with pytest.raises(SamplerError, match=r"save rank_state\(\) of each, and join them"):
        stream(rank=0, world_size=2).state_dict()


def test_states_that_are_not_of_all_ranks_are_not_joined():
    with pytest.raises(SamplerError, match="lane 4 of 8 is in none of them"):
        join_stream_states([stream(rank=0, world_size=2).rank_state()])


def test_states_of_other_batches_are_not_joined():
    first, second = (advanced(rank=k, world_size=2, batches=5 - k) for k in range(2))
    with pytest.raises(SamplerError, match="state 1 of 2: sampler: is not that of the first"):
        join_stream_states([first.rank_state(), second.rank_state()])


@pytest.mark.parametrize("sources", [{"a": iter([1]), "b": None}, {"a": iter([1]), "b": 3}])
def test_what_is_no_source_is_refused(sources):
    with pytest.raises(CorpusError, match="domain 'b': .* cannot be iterated over"):
        MixtureStream(sources, [0.5, 0.5], batch_size=8)


def test_several_splits_are_refused_with_one_to_name():
    splits = {"train": [1], "test": [2]}
    with pytest.raises(CorpusError, match=r"is several datasets; give one.*source\['train'\]"):
        MixtureStream({"a": splits}, [1.0], batch_size=8)


def test_a_source_that_was_given_to_ranks_is_refused():
    table = datasets.Dataset.from_list([{"id": k} for k in range(8)])
    half = split_dataset_by_node(table.to_iterable_dataset(num_shards=4), 0, 2)
    with pytest.raises(SamplerError, match="given to ranks by split_dataset_by_node"):
        MixtureStream({"a": half}, [1.0], batch_size=8)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"lanes": 3}, r"lanes 3: 1 ranks .* lanes= can be 1, 2, 4, 8"),
        ({"lanes": 0}, "lanes 0 is not a whole number >= 1"),
        ({"rank": 0, "world_size": 4, "lanes": 2}, r"lanes= can be 4, 8"),
        ({"workers": 9}, "a rank has 8 lanes to share"),
        ({"prefetch": 0}, "prefetch 0 is not a whole number >= 1"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(options, says):
    with pytest.raises(SamplerError, match=says):
        stream(**options)
