"""What is counted begins and ends with its batch, its window and its attachment."""

import copy

import numpy as np
import pytest
import torch
from counted_by_hand import by_hand, counted, hooks, run, same
from routing_job import DOMAINS, batches, tiny

from mixopt.errors import RoutingError
from mixopt.routing import RouterStats, RouterTap


def test_a_window_is_what_came_since_the_last():
    model, data = tiny(), batches(4)
    stats = RouterStats.attach(model, DOMAINS)
    run(model, stats, data[:1])
    first = stats.window()
    run(model, stats, data[1:])
    second = stats.window()
    assert same(first + second, stats.total())
    assert second.tokens_D.sum() == sum(int(mask.sum()) for _, _, mask in data[1:])
    assert stats.window().tokens_D.sum() == 0


def test_an_interrupted_batch_does_not_stop_the_count():
    model, data = tiny(), batches()
    stats = RouterStats.attach(model, DOMAINS)
    run(model, stats, data[:1])
    with pytest.raises(KeyError), stats.domains(data[1][1], data[1][2]):
        raise KeyError
    run(model, stats, data[1:])
    assert counted(stats) == by_hand(model, data)


def test_a_state_goes_on_where_it_was(tmp_path):
    data = batches(4)
    model = tiny()
    stats = RouterStats.attach(model, DOMAINS)
    run(model, stats, data[:1])
    stats.window()
    run(model, stats, data[1:2])
    torch.save(stats.state_dict(), tmp_path / "state.pt")
    stats.detach()

    again = RouterStats.attach(model, DOMAINS)
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    again.load_state_dict(loaded)
    run(model, again, data[2:])
    assert again.window().tokens_D.sum() == sum(int(mask.sum()) for _, _, mask in data[1:])
    assert counted(again) == by_hand(model, data)


def test_a_state_of_other_experts_or_domains_is_refused():
    taps = {e: RouterTap(experts=e, top_k=2) for e in (4, 8)}
    state = RouterStats.attach(taps[4], DOMAINS).state_dict()
    other = RouterStats.attach(taps[8], DOMAINS)
    with pytest.raises(RoutingError, match="total is of other experts: layer 0 has 4 experts"):
        other.load_state_dict(state)
    with pytest.raises(
        RoutingError, match="RouterStats: total: not counts of experts: no 'domains'"
    ):
        other.load_state_dict({"total": {}})
    renamed = RouterStats.attach(RouterTap(experts=4, top_k=2), ["a", "b", "c"])
    with pytest.raises(RoutingError, match="counts the domains web, code, books; here they are a"):
        renamed.load_state_dict(state)


def test_batches_do_not_overlap_and_a_detached_one_counts_no_more():
    model, (tokens, ids, mask) = tiny(), batches(1)[0]
    stats = RouterStats.attach(model, DOMAINS)
    with stats.domains(ids, mask):
        model(tokens)
        with pytest.raises(RoutingError, match="open already"), stats.domains(ids, mask):
            pass
    stats.detach()
    with pytest.raises(RoutingError, match="was detached"), stats.domains(ids, mask):
        pass


def halves(tap, stats, sequences, position=None):
    """Count one token of each sequence, each to an expert of its own; return those of each half."""
    ids = torch.zeros(sequences, 1, dtype=torch.long)
    with stats.domains(ids, position=position):
        tap(torch.arange(sequences)[:, None])
    counts_HE = stats.window().layers[0].counts_HDE[:, 0]
    return [np.flatnonzero(counts_E).tolist() for counts_E in counts_HE]


def test_sequences_alternate_between_the_halves_and_who_comes_first_changes_by_batch():
    tap = RouterTap(experts=4, top_k=1)
    stats = RouterStats.attach(tap, ["web"])
    assert halves(tap, stats, 4) == [[0, 2], [1, 3]]
    ids = torch.zeros(1, 1, dtype=torch.long)
    for expert in range(4):
        with stats.domains(ids):
            tap(torch.tensor([[expert]]))
    counts_HE = stats.window().layers[0].counts_HDE[:, 0]
    assert counts_HE.tolist() == [[1, 0, 1, 0], [0, 1, 0, 1]]


def test_by_its_position_a_sequence_is_of_the_half_that_the_parity_of_its_bits_says():
    tap = RouterTap(experts=6, top_k=1)
    stats = RouterStats.attach(tap, ["web"])
    assert halves(tap, stats, 6, position=range(6)) == [[0, 3, 5], [1, 2, 4]]
    assert halves(tap, stats, 6, position=[3, 8, 6, 1, 5, 7]) == [[0, 2, 4], [1, 3, 5]]
    with pytest.raises(RoutingError, match="5 positions for a batch of 6 sequences"):
        halves(tap, stats, 6, position=range(5))


def test_detaching_takes_every_hook_out_of_the_model_and_keeps_the_counts():
    model, data = tiny(), batches(1)
    stats = RouterStats.attach(model, DOMAINS)
    assert len(hooks(model)) == 2
    run(model, stats, data)
    stats.detach()
    assert hooks(model) == []
    model(data[0][0])
    assert counted(stats) == by_hand(model, data)


def _damaged(state, change):
    content = copy.deepcopy(state["total"])
    change(content, content["layers"][0])
    return {**state, "total": content}


@pytest.mark.parametrize(
    "change",
    [
        lambda content, layer: content.pop("domains"),
        lambda content, layer: layer.update(counts="1 2"),
        lambda content, layer: layer.update(dropped="-1 0 0 0 0 0"),
    ],
)
def test_a_damaged_state_is_one_line_and_changes_nothing(change):
    model, data = tiny(), batches(2)
    stats = RouterStats.attach(model, DOMAINS)
    run(model, stats, data[:1])
    before = counted(stats)
    damaged = _damaged(stats.state_dict(), change)
    with pytest.raises(RoutingError, match="the state of RouterStats: total") as caught:
        stats.load_state_dict(damaged)
    assert "\n" not in str(caught.value)
    assert counted(stats) == before
