"""What is counted begins and ends with its batch, its window and its attachment."""

from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from changed_state import replaced
from counted_by_hand import by_hand, counted, run, same
from refusals import refuses
from routing_job import DOMAINS, batches, tiny

from mixopt.errors import RoutingError
from mixopt.routing import RouterStats, RouterTap


def attached(count=3):
    model = tiny()
    return model, batches(count), RouterStats.attach(model, DOMAINS)


def tokens_of(data):
    return sum(int(mask.sum()) for _, _, mask in data)


def test_counts_equal_a_count_by_hand_though_a_batch_is_interrupted():
    model, data, stats = attached()
    run(model, stats, data[:1])
    assert counted(stats) == by_hand(model, data[:1])
    tokens, ids, mask = data[1]
    model.head.register_forward_pre_hook(MagicMock(side_effect=[KeyError, None, None]))
    with pytest.raises(KeyError), stats.domains(ids, mask):
        model(tokens)
    with pytest.raises(KeyError), stats.domains(ids, mask):
        raise KeyError
    run(model, stats, data[1:])
    assert counted(stats) == by_hand(model, [*data, data[1]])


def test_a_window_is_what_came_since_the_last():
    model, data, stats = attached(4)
    run(model, stats, data[:1])
    first = stats.window()
    run(model, stats, data[1:])
    second = stats.window()
    assert same(first + second, stats.total())
    assert second.tokens_D.sum() == tokens_of(data[1:])
    assert stats.window().tokens_D.sum() == 0


def test_batches_do_not_overlap_and_a_detached_one_counts_no_more_and_keeps_its_counts():
    model, data, stats = attached(1)
    tokens, ids, mask = data[0]
    assert sum(len(module._forward_hooks) for module in model.modules()) == 2
    with stats.domains(ids, mask):
        model(tokens)
        with pytest.raises(RoutingError, match="open already"), stats.domains(ids, mask):
            pass
    stats.detach()
    assert sum(len(module._forward_hooks) for module in model.modules()) == 0
    model(tokens)
    assert counted(stats) == by_hand(model, data)
    with pytest.raises(RoutingError, match="was detached"), stats.domains(ids, mask):
        pass


def halves(sequences, positions=(None,)):
    """Count a token of each sequence, to an expert of its own; return the halves by batch."""
    tap = RouterTap(experts=sequences, top_k=1)
    stats = RouterStats.attach(tap, ["web"])
    found = []
    for position in positions:
        with stats.domains(torch.zeros(sequences, 1, dtype=torch.long), position=position):
            tap(torch.arange(sequences)[:, None])
        counts_HE = stats.window().layers[0].counts_HDE[:, 0]
        found.append([np.flatnonzero(counts_E).tolist() for counts_E in counts_HE])
    return found


def test_sequences_alternate_between_the_halves_and_who_comes_first_changes_by_batch():
    assert halves(4) == [[[0, 2], [1, 3]]]
    tap = RouterTap(experts=4, top_k=1)
    stats = RouterStats.attach(tap, ["web"])
    for expert in range(4):
        with stats.domains(torch.zeros(1, 1, dtype=torch.long)):
            tap(torch.tensor([[expert]]))
    counts_HE = stats.window().layers[0].counts_HDE[:, 0]
    assert counts_HE.tolist() == [[1, 0, 1, 0], [0, 1, 0, 1]]


def test_the_half_of_a_sequence_is_the_bit_parity_of_its_position():
    assert halves(6, [range(6), [3, 8, 6, 1, 5, 7]]) == [
        [[0, 3, 5], [1, 2, 4]],
        [[0, 2, 4], [1, 3, 5]],
    ]
    refuses(RoutingError, "5 positions for a batch of 6 sequences", halves, 6, [range(5)])


def test_a_state_goes_on_where_it_was(tmp_path):
    model, data, stats = attached(4)
    run(model, stats, data[:1])
    stats.window()
    run(model, stats, data[1:2])
    torch.save(stats.state_dict(), tmp_path / "state.pt")
    reattached = RouterStats.attach(other := tiny(), DOMAINS)
    run(other, reattached, data[:1])  # what was counted before is not of the state
    reattached.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    run(other, reattached, data[2:])
    assert reattached.window().tokens_D.sum() == tokens_of(data[1:])
    assert counted(reattached) == by_hand(model, data)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ((), ..., "not counts of experts: 'NoneType'"),
        (("domains",), ..., "experts: no 'domains'$"),
        (("domains",), ["a", "b", "c"], "counts the domains a, b, c; here they are web, code, boo"),
        (("layers",), [], "experts: no layers$"),
        (("layers", 0, "counts"), "1 2", "cannot reshape array of"),
        (("layers", 0, "dropped"), "-1 0 0 0 0 0", "layer 1: numbers below 0 or no experts"),
        (("layers", 0, "top_k"), 0, "layer 1: numbers below 0"),
        (
            ("layers", 0, "top_k"),
            1,
            "is of other experts: layer 1 has 4 experts, 1 of a token; here it has 4 experts, 2 of",
        ),
    ],
)
def test_a_state_that_is_damaged_or_of_others_is_one_line_and_changes_nothing(
    place, value, message
):
    model, data, stats = attached(1)
    run(model, stats, data)
    before = counted(stats)
    state = replaced(stats.state_dict(), ("total", *place), value)
    refuses(
        RoutingError, f"the state of RouterStats: total.* {message}", stats.load_state_dict, state
    )
    assert counted(stats) == before
