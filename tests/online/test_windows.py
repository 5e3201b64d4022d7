"""Windows of losses: what the estimator is told of them, when, and what is wrong with them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from driver_parts import NAMES, TOKENS, sampler

from mixopt.errors import EstimatorError
from mixopt.online import UNIT, HeldOut, windows as module
from mixopt.online.stream_steps import StreamSteps
from mixopt.online.windows import LossWindow, LossWindows

NONE = [0, 0, 0]


def windows(order=None, *, spike=None, needs_losses=False):
    stream = StreamSteps(sampler() if order is None else order, 1, TOKENS)
    return LossWindows(stream, NAMES, spike=spike, needs_losses=needs_losses)


def window(step=1, *, losses=NONE, counts=NONE, broken=NONE, due=None, ends_plan=False, **fields):
    """A window of mean losses in nats."""
    sums = np.array([np.multiply(losses, counts) * UNIT, counts, broken, NONE], np.int64)
    due = step if due is None else due
    fields = {"tokens_D": np.ones(3), "learning_rate": 0.0} | fields
    return LossWindow(step, due, ends_plan, lambda: sums, **fields)


def opened(seen, step, **fields):
    fields = {"ends_plan": False, "learning_rate": 0.0} | fields
    return seen.open(step, fields.pop("due", step), **fields)


def recorded(seen, loss=2.0):
    """Record a sequence of each domain, of TOKENS tokens."""
    seen.record(torch.full((3, TOKENS), loss), torch.arange(3), None, None)


def trained(order, seen, batches):
    for _ in range(batches):
        next(iter(order))
    recorded(seen)


# What the estimator is told -------------------------------------------------------------------


def test_the_estimator_is_told_sums_in_nats_and_counts():
    sums = np.array([[UNIT, 3 * UNIT, 0], [1, 2, 0], NONE, [UNIT // 2, 0, 0]])
    held_out, alignment_D = HeldOut(np.ones(3), np.zeros(3), 5), np.array([0.1, 0.2, 0.3])
    tokens_D = np.array([8.0, 16.0, 0.0])
    told = LossWindow(4, 5, False, lambda: sums, tokens_D, 0.5, held_out, alignment_D).observation()
    assert (told.step, told.learning_rate) == (4, 0.5)
    assert told.loss_sum_D.tolist() == [1, 3, 0]
    assert told.loss_count_D.tolist() == [1, 2, 0]
    assert told.loss_count_D.dtype == np.float64
    assert told.excess_sum_D.tolist() == [0.5, 0, 0]
    assert told.held_out is held_out
    assert told.alignment_D is alignment_D
    assert told.tokens_D is tokens_D


@pytest.mark.parametrize("more", [False, True])
def test_a_window_is_the_same_after_json(more):
    held_out = HeldOut(np.array([1.5, 2.5]), np.array([0.1, 0.2]), 5) if more else None
    alignment_D = np.array([0.1, 0.2, 0.3]) if more else None
    sums = np.arange(12).reshape(4, 3) * UNIT * 1000
    tokens_D = np.array([8.0, 16.0, 0.5])
    one = LossWindow(4, 7, True, lambda: sums, tokens_D, 0.5, held_out, alignment_D)
    again = LossWindow.from_json(json.loads(json.dumps(one.to_json())))
    assert again.to_json() == one.to_json()
    assert (again.step, again.due, again.ends_plan, again.learning_rate) == (4, 7, True, 0.5)
    assert again.sums().tolist() == sums.tolist()
    assert again.sums().dtype == np.int64
    assert again.tokens_D.tolist() == tokens_D.tolist()
    if more:
        assert again.held_out.losses_M.tolist() == [1.5, 2.5]
        assert again.held_out.errors_M.tolist() == [0.1, 0.2]
        assert again.held_out.tokens == 5
        assert again.alignment_D.tolist() == alignment_D.tolist()
    else:
        assert again.held_out is None
        assert again.alignment_D is None


def test_whole_tokens_are_floats_after_json():
    again = LossWindow.from_json(window().to_json() | {"tokens": [1, 2, 3], "alignment": [1, 2, 3]})
    assert again.tokens_D.dtype == again.alignment_D.dtype == np.float64


def test_a_window_has_what_was_recorded_since_the_last():
    order = sampler()
    seen = windows(order)
    trained(order, seen, 2)
    one = opened(seen, 2, due=3, ends_plan=True, learning_rate=0.25)
    assert (one.step, one.due, one.ends_plan, one.learning_rate) == (2, 3, True, 0.25)
    assert one.tokens_D.sum() == 2 * 8 * TOKENS
    assert one.sums()[:2].tolist() == [[2 * UNIT * TOKENS] * 3, [TOKENS] * 3]
    assert not opened(seen, 2).sums().any()


def test_alignments_are_averaged_over_a_window_and_then_forgotten():
    seen = windows()
    seen.add_alignment([1, 2, 3])
    seen.add_alignment([3, 2, 1.5])
    assert opened(seen, 0).alignment_D.tolist() == [2, 2, 2.25]
    assert opened(seen, 0).alignment_D is None


@pytest.mark.parametrize("values", [[1, 2], [[1, 2, 3]], 1])
def test_alignments_of_another_shape_are_refused(values):
    seen = windows()
    with pytest.raises(EstimatorError, match=r"record_alignment: shape .*; it takes \(3,\)"):
        seen.add_alignment(values)
    assert opened(seen, 0).alignment_D is None


# When it is told ------------------------------------------------------------------------------


def test_a_window_is_handed_out_once_it_is_due():
    seen, one = windows(), window(3, due=5)
    seen.wait_for(one)
    assert seen.next_due(4) is None
    assert seen.next_due(5) is one
    assert seen.next_due(9) is None


def test_a_window_that_is_due_later_comes_before_those_that_began_after_it():
    seen, first, second = windows(), window(3, due=9), window(4, due=4)
    seen.wait_for(first)
    seen.wait_for(second)
    assert seen.next_due(4) is first
    assert seen.next_due(4) is second


def test_the_end_of_a_plan_is_under_way_until_its_window_is_handed_out():
    seen = windows()
    assert not seen.has_ended_plan
    seen.wait_for(window(1))
    assert not seen.has_ended_plan
    seen.wait_for(window(2, ends_plan=True))
    assert seen.has_ended_plan
    seen.next_due(2)
    seen.next_due(2)
    assert not seen.has_ended_plan


# What is wrong with it ------------------------------------------------------------------------


def test_a_window_without_losses_is_an_error_where_they_are_needed():
    order = sampler()
    seen = windows(order, needs_losses=True)
    trained(order, seen, 1)
    assert seen.trouble(opened(seen, 1)) is None
    next(iter(order))
    with pytest.raises(EstimatorError, match=r"no losses were recorded up to step 2: call record"):
        seen.trouble(opened(seen, 2))


def test_a_first_window_without_losses_is_an_error_where_they_are_needed():
    order = sampler()
    seen = windows(order, needs_losses=True)
    next(iter(order))
    with pytest.raises(EstimatorError, match=r"no losses were recorded up to step 1: call record"):
        seen.trouble(opened(seen, 1))


def test_a_window_without_losses_is_none_where_they_are_not_needed():
    order = sampler()
    seen = windows(order)
    next(iter(order))
    assert seen.trouble(opened(seen, 1)) is None


def test_a_window_without_tokens_needs_no_losses():
    seen = windows(needs_losses=True)
    assert seen.trouble(opened(seen, 0)) is None


def test_losses_that_are_not_finite_are_said_of_the_first_domain_that_has_most():
    trouble = windows().trouble(window(7, broken=[0, 2, 1]))
    assert trouble == "domain 'b': 2 losses up to step 7 are not finite"


def test_a_first_window_is_no_spike():
    assert windows(spike=0.5).trouble(window(losses=[9, 9, 9], counts=[4, 4, 4])) is None


def rise(*means, counts=(4, 4, 4)):
    """Return what is said of the last of several windows of mean losses, at a spike of 0.5."""
    seen = windows(spike=0.5)
    said = [
        seen.trouble(window(step, losses=losses, counts=counts))
        for step, losses in enumerate(means, 1)
    ]
    assert not any(said[:-1])
    return said[-1]


def test_a_rise_by_the_spike_is_allowed_and_more_is_not():
    assert rise([1, 1, 1], [1.5, 1.5, 1.5]) is None
    assert (
        rise([1, 1, 1], [1.75, 1.75, 1.75]) == "losses rose by 0.75 nats up to step 2; spike is 0.5"
    )


def test_without_a_spike_any_rise_is_allowed():
    seen = windows()
    for step, loss in enumerate([1, 100], 1):
        assert seen.trouble(window(step, losses=[loss] * 3, counts=[4, 4, 4])) is None


def test_a_rise_counts_each_domain_by_its_tokens():
    said = rise([1, 1, 1], [2, 1, 3], counts=(1, 6, 1))
    assert said is None  # (1 * 1 + 0 * 6 + 2 * 1) / 8
    assert "rose by 0.667 nats" in rise([1, 1, 1], [2, 1, 1], counts=(4, 2, 0))


def test_a_rise_of_one_token_is_its_own():
    assert "rose by 0.75 nats" in rise([1, 0, 0], [1.75, 0, 0], counts=(1, 0, 0))


def test_a_domain_is_compared_with_its_mean_over_earlier_windows():
    assert "rose by 0.7 nats" in rise([1, 1, 1], [0, 0, 0], [1.4, 1.4, 1.4])  # mean 0.7
    assert "rose by 0.91 nats" in rise(*([[x] * 3 for x in (1, 0, 0, 1.4)]))  # mean 0.49


def test_a_domain_that_was_not_seen_hides_no_other():
    seen = windows(spike=0.5)
    assert seen.trouble(window(1, losses=[0, 1, 1], counts=[0, 4, 4])) is None
    assert seen.trouble(window(2, losses=[9, 1, 1], counts=[4, 4, 4])) is None
    assert "rose by 1 nats" in seen.trouble(window(3, losses=[0, 2, 2], counts=[0, 4, 4]))


# State ----------------------------------------------------------------------------------------


def filled():
    order = sampler()
    seen = windows(order, needs_losses=True)
    seen.trouble(window(losses=[1, 2, 0], counts=[4, 4, 0]))
    trained(order, seen, 1)
    seen.wait_for(opened(seen, 1, due=3, ends_plan=True))
    recorded(seen, 3.0)
    seen.add_alignment([1, 2, 3])
    return seen


def test_a_state_has_all_that_was_seen():
    state = filled().state_dict()
    assert [one["due"] for one in state["windows"]] == [3]
    assert state["sums"][0] == [3 * UNIT * TOKENS] * 3
    assert state["alignments"] == [[1, 2, 3]]
    assert state["means"] == [1, 2, None]


def test_a_state_that_is_loaded_is_the_same():
    state = json.loads(json.dumps(filled().state_dict()))
    seen = filled()  # what it has seen is forgotten
    seen.load_state_dict(state)
    assert seen.state_dict() == state
    seen.trouble(window(losses=[5, 5, 5], counts=[1, 1, 1]))
    assert state["means"] == [1, 2, None]


def test_another_rank_goes_on_without_the_sums(monkeypatch):
    state = filled().state_dict()
    monkeypatch.setattr(module, "is_first", lambda: False)
    seen = windows()
    seen.load_state_dict(state)
    assert seen.state_dict() == state | {"sums": [NONE] * 4}


def test_what_was_seen_is_forgotten_when_it_is_cleared():
    seen = filled()
    seen.clear()
    state = seen.state_dict()
    assert state["windows"] == state["alignments"] == []
    assert not np.any(state["sums"])


def test_nothing_need_be_recorded_between_a_clear_and_the_next_window():
    order = sampler()
    seen = windows(order, needs_losses=True)
    seen.clear()
    next(iter(order))
    assert seen.trouble(opened(seen, 1)) is None
    next(iter(order))
    with pytest.raises(EstimatorError, match=r"no losses were recorded up to step 2"):
        seen.trouble(opened(seen, 2))
