"""Tables hold what was counted, windows add up, and diagnoses are of what was made wrong."""

import numpy as np
import pytest
from made_experts import made_layer

from mixopt.errors import RoutingError
from mixopt.routing import Assignments, Summary

NAMES = ("web", "code", "books", "wiki")
SHARES = (0.5, 0.25, 0.2, 0.05)
OWN = np.kron(np.eye(4), np.ones((1, 2))) / 2  # two experts for each domain


def assignments_of(profile_DE, *, shares=SHARES, tokens=100_000, layers=(3, 7), top_k=1):
    """Return assignments that fall exactly as profiles say, half on each half."""
    half_DE = np.rint(np.array(shares)[:, None] * profile_DE * tokens * top_k / 2)
    return Assignments(NAMES, tuple(made_layer(2 * half_DE, n, top_k) for n in layers))


def test_a_layer_is_described_by_its_load_and_a_domain_by_the_experts_of_its_own():
    row = Summary.of(assignments_of(OWN)).layers.row(0, named=True)
    load_E = np.repeat(SHARES, 2) / 2
    assert row["tokens"] == 100_000
    assert row["max_violation"] == pytest.approx(load_E.max() * 8 - 1)
    assert row["specialisation"] == pytest.approx(1)
    row = Summary.of(assignments_of(OWN)).by_domain().filter(domain="code").row(0, named=True)
    assert row["share"] == 0.25
    assert row["own"] == 1
    assert row["distance"] == pytest.approx(1)
    assert row["max_violation"] == 3
    assert row["starved"] == 2 * 6


def test_nothing_counted_is_nulls_and_no_error():
    nothing = assignments_of(OWN, tokens=0)
    summary = Summary.of(nothing)
    assert summary.layers["load_entropy"].null_count() == 2
    assert summary.domains["own"].null_count() == 8
    assert "too few tokens" in str(summary)


def test_assignments_of_other_experts_do_not_add_up():
    message = "other table is of other experts: layer 7 has 8 experts, 1 of a token; here it has no"
    with pytest.raises(RoutingError, match=message):
        assignments_of(OWN, layers=(3,)) + assignments_of(OWN)
    with pytest.raises(RoutingError, match="layer 5 has no router; layers with one: 3, 7"):
        assignments_of(OWN).layer(5)


def test_a_domain_in_a_layer_has_its_starved_leading_and_dropped_experts():
    counts_DE = np.array([[500, 400, 80, 5, 15], [100, 100, 100, 1000, 700]])
    layer = made_layer(counts_DE, 4, 2, dropped_D=[1000, 0])
    first, second = Summary.of(Assignments(("a", "b"), (layer,))).domains.to_dicts()
    assert first["starved"] == 2, "below a tenth of the even share; only one is below a hundredth"
    assert (first["dropped"], second["dropped"]) == (0.5, 0.0)
    assert first["own"] == pytest.approx(0.9)
    assert first["share"] == pytest.approx(0.5)
