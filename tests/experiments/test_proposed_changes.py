"""What diagnoses would change in the mixture, which experiments train: the arithmetic of it."""

from __future__ import annotations

import numpy as np
import pytest
from experiment_modules import experiment
from made_experts import counted

from mixopt.routing import Thresholds, diagnose

changes = experiment("real_text", "proposed_changes")
MOST = Thresholds(effective=0.99, dead=1)
OFF = Thresholds(effective=0, dead=1, overflow=1, occupied=0.1)


def proposed(counts_DE, limits=MOST):
    """Return the change that the one diagnosis of these counts, in thousands, would propose."""
    train = counted([(np.asarray(counts_DE, float) * 1000).round().astype(int)])
    (one,) = diagnose(train, limits)
    return changes.proposed_change(one, train)


def load_at(counts_DE, share, expert):
    """Return an expert's load were the first domain's share another, the others in proportion."""
    counts_DE = np.asarray(counts_DE, float)
    profile_DE = counts_DE / counts_DE.sum(1, keepdims=True)
    others_E = counts_DE[1:].sum(0) / counts_DE[1:].sum()
    return share * profile_DE[0, expert] + (1 - share) * others_E[expert]


def test_half_of_the_excess_is_gone_at_the_share_that_is_proposed():
    counts_DE = [[60, 20, 10, 10], [12, 28, 30, 30]]
    change = proposed(counts_DE)
    before, after = (load_at(counts_DE, share, 0) for share in (0.5, change.proposed))
    assert (change.domain, change.share) == ("d0", 0.5)
    assert 0.25 < change.proposed < 0.5
    assert after - 0.25 == pytest.approx((before - 0.25) / 2)


def test_not_more_than_half_of_a_share_is_taken_away_at_once():
    counts_DE = [[90, 4, 3, 3], [40, 20, 20, 20]]
    change = proposed(counts_DE)
    assert (change.share, change.proposed) == (0.5, 0.25)
    assert str(change) == "lower 'd0' from 50.0% to 25.0%"
    assert load_at(counts_DE, 0.25, 0) - 0.25 > (load_at(counts_DE, 0.5, 0) - 0.25) / 2


def test_where_no_domain_is_to_blame_nothing_is_proposed():
    assert proposed([[90, 10, 10, 10]]) is None


def test_of_a_degradation_the_share_goes_half_the_way_to_an_even_one():
    assert proposed([[8, 8, 8, 1], [2, 2, 2, 9]], OFF).proposed == pytest.approx(0.5625)


def test_of_underfitting_the_share_is_half_of_an_even_one():
    apart = np.kron(np.eye(3), np.ones((1, 2)))
    change = proposed([*(40 * apart), np.ones(6)], Thresholds(effective=0, dead=1, overflow=1))
    assert (change.domain, change.proposed) == ("d3", 0.125)
