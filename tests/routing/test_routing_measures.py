"""Formulas about experts are exact where the answer is known, and tables hold what was counted."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays
from made_experts import made_layer
from scipy import stats

from mixopt.errors import RoutingError
from mixopt.routing import Assignments, Summary, measures

counts = arrays(np.int64, (3, 5), elements=st.integers(0, 1000)).filter(
    lambda c: (c.sum(1) > 0).all()
)


def clustered(profile_DE, sequences, rng, spread=3.0, assignments=1024):
    """Draw sequences whose assignments resemble each other, as those of a text do."""
    domains, experts = profile_DE.shape
    counts_HDE = np.zeros((2, domains, experts), np.int64)
    for n in range(sequences):
        d = n % domains
        own_E = rng.dirichlet(spread * experts * profile_DE[d])
        counts_HDE[(n // domains) % 2, d] += rng.multinomial(assignments, own_E)
    return counts_HDE


@given(counts)
def test_information_is_the_divergence_of_the_joint_counts_and_0_of_domains_that_are_alike(
    counts_DE,
):
    joint = counts_DE / counts_DE.sum()
    apart = joint.sum(1, keepdims=True) * joint.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = np.nansum(joint * np.log(joint / apart))
    shares_D = measures.load_shares(counts_DE.sum(1))
    found = measures.mutual_information(measures.expert_profiles(counts_DE), shares_D)
    assert found == pytest.approx(expected, abs=1e-12)
    alike = measures.expert_profiles(np.broadcast_to(counts_DE[0], counts_DE.shape))
    assert measures.mutual_information(alike, np.ones(3) / 3) == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(measures.profile_distances(alike), 0, atol=1e-7)


def test_information_by_chance_is_subtracted():
    # 200 tables of 8 domains that are alike: the mean of what is measured must be 0.
    rng = np.random.default_rng(0)
    shares_D, profile_DE = np.ones(8) / 8, np.ones((8, 16)) / 16
    raw, corrected = [], []
    for _ in range(200):
        counts_HDE = clustered(profile_DE, 64, rng)
        whole_DE = measures.expert_profiles(counts_HDE.sum(0))
        raw.append(measures.mutual_information(whole_DE, shares_D))
        corrected.append(measures.corrected_information(counts_HDE, shares_D)[0])
    error = np.std(corrected) / np.sqrt(len(corrected))
    assert abs(np.mean(corrected)) < 4 * error
    assert np.mean(raw) > 20 * error


def test_true_information_is_kept():
    rng = np.random.default_rng(0)
    profile_DE = rng.dirichlet(np.ones(16) * 3, size=8)
    shares_D = np.ones(8) / 8
    true = measures.mutual_information(profile_DE, shares_D)
    found = [
        measures.corrected_information(clustered(profile_DE, 128, rng), shares_D)[0]
        for _ in range(40)
    ]
    assert np.mean(found) == pytest.approx(true, rel=0.03)  # some 3 standard errors


def test_a_domain_that_a_half_has_not_seen_is_left_out():
    counts_HDE = np.array([[[4, 0], [0, 4], [1, 1]], [[4, 0], [0, 4], [0, 0]]])
    information, most = measures.corrected_information(counts_HDE, np.array([0.4, 0.4, 0.2]))
    assert information == pytest.approx(np.log(2))
    assert most == pytest.approx(np.log(2))
    assert np.isnan(measures.corrected_information(counts_HDE[:, 2:], np.ones(1))[0])
    assert np.isnan(measures.corrected_information(counts_HDE[:, :1], np.ones(1))).all()


def test_a_hot_expert_is_beyond_a_normal_fit_to_the_lower_loads():
    load_E = np.random.default_rng(1).gamma(9, size=40)
    load_E[7] = 2.5 * load_E.max()
    shares_E, top = load_E / load_E.sum(), 5  # an eighth, which is not fitted
    root_E = np.sort(40 * shares_E) ** (1 / 6)
    low, cut = root_E[:-top], stats.truncnorm(-np.inf, stats.norm.ppf(1 - top / 40))
    spread = low.std(ddof=1) / cut.std()
    beyond = (root_E[-1] - low.mean()) / spread + cut.mean()
    chance = stats.binom.sf(0, 40, stats.t.sf(beyond, 40 - top - 1))
    found = [measures.hot(shares_E, 2.5, part * chance) for part in (0.999, 1.001)]
    assert [np.flatnonzero(hot_E).tolist() for hot_E in found] == [[], [7]]
    assert not measures.hot(shares_E, 40 * shares_E[7] + 0.001, 1.001 * chance).any()
    assert not measures.hot(np.array([0.7, 0.2, 0.1]), 0, 1).any(), "too few to fit"


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


def test_a_domain_in_a_layer_has_its_starved_leading_and_dropped_experts():
    counts_DE = np.array([[500, 400, 80, 5, 15], [100, 100, 100, 1000, 700]])
    layer = made_layer(counts_DE, 4, 2, dropped_D=[1000, 0])
    first, second = Summary.of(Assignments(("a", "b"), (layer,))).domains.to_dicts()
    assert first["starved"] == 2, "below a tenth of the even share; only one is below a hundredth"
    assert (first["dropped"], second["dropped"]) == (0.5, 0.0)
    assert first["own"] == pytest.approx(0.9)
    assert first["share"] == pytest.approx(0.5)
