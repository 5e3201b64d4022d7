"""Mixtures are points on the simplex, and nothing else is a mixture."""

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mixopt import Mixture, MixtureError
from mixopt.mixture import pairwise_total_variation, total_variation, whole_counts

shares = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=20).map(
    lambda raw: Mixture.from_array([f"d{i}" for i in range(len(raw))], np.array(raw) / sum(raw))
)


@settings(max_examples=50)
@given(mixture=shares)
def test_weights_add_up_to_one_and_a_file_gives_the_same_mixture_back(mixture, tmp_path_factory):
    assert math.isclose(math.fsum(mixture.values()), 1.0, abs_tol=1e-12)
    path = tmp_path_factory.mktemp("mixture") / "mixture.yaml"
    mixture.to_file(path)
    assert Mixture.from_file(path) == mixture


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: Mixture({}), "at least one domain"),
        (lambda _: Mixture({"web": 1.2, "code": -0.2}), "domain 'code': weight -0.2 is negative"),
        (lambda _: Mixture({"web": math.nan, "code": 1}), "domain 'web': weight nan is not finite"),
        (lambda _: Mixture({"web": 10**400}), "domain 'web': weight inf is not finite"),
        (lambda _: Mixture({"web": 2e15}), r"'web': weight 2e\+15 is too large; give shares of 1"),
        (
            lambda _: Mixture({"web": 0.5}),
            "add up to 0.5, not 1: divide each by 0.5, or pass tolerance=0.5",
        ),
        (lambda _: Mixture({"web": 0.6, "code": 0.403}), r"1\.003"),
        (lambda _: Mixture({"web": True}), "domain 'web': weight True is not a number"),
        (lambda _: Mixture.from_array(["a", "b"], [1.0]), "1 weights for 2 domains"),
        (lambda _: Mixture.from_array(["b", "b"], [0.5, 0.5]), "domain 'b' is given twice"),
        (lambda _: Mixture.natural({"a": 0}), "needs domains with tokens; all have 0"),
        (lambda _: Mixture({"a": 0.5, "a/b": 0.5}), "'a' is a domain and the branch of 'a/b'; re"),
        (lambda _: Mixture({"a": 1.0}).over(["a", "b"]), "domain 'b' has no weight; add one"),
        (lambda _: Mixture({"wbe": 1.0}).over(["web"]), "unknown domain 'wbe'; did you mean 'web'"),
        (Mixture.from_file, "x.yaml: expected 'weights:' with a number for each domain"),
    ],
)
def test_invalid_weights_are_named(tmp_path, make, message):
    (tmp_path / "x.yaml").write_text("[0.5, 0.5]")
    with pytest.raises(MixtureError, match=message):
        make(tmp_path / "x.yaml")


def test_order_does_not_matter_and_rounding_is_rescaled_within_a_stated_tolerance():
    first, second = Mixture({"a": 0.25, "b": 0.75}), Mixture({"b": 0.75, "a": 0.25})
    assert first == second
    assert hash(first) == hash(second)
    assert first.fingerprint == second.fingerprint
    mixture = Mixture({"web": 0.6, "code": 0.403}, tolerance=0.005)
    assert mixture["web"] == pytest.approx(0.6 / 1.003)


def test_total_variation_is_the_share_that_changes_domain_over_the_last_axis():
    left_ND = np.array([[0.5, 0.5, 0.0], [0.25, 0.25, 0.5]])
    assert total_variation(left_ND[0], left_ND[1]) == 0.5
    assert total_variation(left_ND, [0.0, 0.0, 1.0]).tolist() == [1.0, 0.5]
    assert total_variation(left_ND, left_ND[::-1]).tolist() == [0.5, 0.5]
    assert total_variation(left_ND[:, None], left_ND[None]).tolist() == [[0.0, 0.5], [0.5, 0.0]]


@given(seed=st.integers(0, 2**32 - 1))
def test_pairwise_total_variation_has_a_row_for_each_left_mixture_and_a_column_for_each_right(seed):
    rng = np.random.default_rng(seed)
    left_ND, right_KD = rng.dirichlet(np.ones(5), 3), rng.dirichlet(np.ones(5), 2)
    apart_NK = pairwise_total_variation(left_ND, right_KD)
    np.testing.assert_allclose(apart_NK, total_variation(left_ND[:, None], right_KD), atol=1e-15)


def test_natural_is_each_domains_share_of_the_tokens():
    natural = Mixture.natural({"web": 300, "code": 100})
    assert dict(natural) == {"web": 0.75, "code": 0.25}
    assert "<td>web</td><td>75.0%</td>" in natural._repr_html_()
    assert natural.effective_domains == pytest.approx(4 / 3**0.75)


def test_of_many_domains_the_largest_five_are_shown_and_all_are_in_the_mixture():
    few, many = Mixture.uniform([f"d{n}" for n in range(8)]), {f"d{n}": n + 1.0 for n in range(60)}
    mixture = Mixture({name: share / 1830 for name, share in many.items()})
    assert repr(few).count("12.5%") == 8
    shares = "d59 3.28%, d58 3.22%, d57 3.17%, d56 3.11%, d55 3.06%"
    assert repr(mixture) == f"Mixture({shares} and 55 others)"
    assert len(dict(mixture)) == 60


@given(
    shares=st.lists(st.integers(0, 1000), min_size=1, max_size=12).filter(any),
    total=st.integers(0, 10_000),
)
def test_whole_counts_add_up_and_are_within_one_of_their_share(shares, total):
    weights = np.array(shares) / sum(shares)
    counts = whole_counts(weights, total)
    assert counts.sum() == total
    assert np.abs(counts - weights * total).max() < 1 + 1e-9
    assert (counts[weights == 0] == 0).all()
