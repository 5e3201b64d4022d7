"""Each diagnosis at its threshold, with its numbers and what it means."""

from dataclasses import replace

import numpy as np
import pytest
from made_experts import counted

from mixopt.routing import diagnose, diagnoses

OFF = dict(effective=0, dead=1, overflow=1)  # no collapse but by the tokens that choose an expert


def found_in(counts_DE, top_k=1, **limits):
    counts_DE = np.asarray(counts_DE, float) * 1000
    with pytest.MonkeyPatch.context() as patch:
        for name, limit in limits.items():
            patch.setattr(diagnoses, name.upper(), limit)
        return diagnose(counted([counts_DE.round().astype(int)], top_k))


def quarters(least):
    """Return loads of half the experts and of the rest, of which three are as low as that."""
    return [*[0.2187] * 4, 0.1252 - 3 * least, *[least] * 3]


@pytest.mark.parametrize(
    ("name", "kept_E", "beyond_E", "number"),
    [
        ("effective", quarters(0.0075), quarters(0.0055), 0.6553),
        ("dead", [*[1 / 19] * 19, 0], [*[1 / 18] * 18, 0, 0], 0.1),
        ("overflow", [*[0.2187] * 4, *[0.0313] * 4], [*[0.2189] * 4, *[0.0311] * 4], 0.2506),
    ],
)
def test_each_number_alone_is_collapse_beyond_its_threshold(name, kept_E, beyond_E, number):
    assert found_in([np.multiply(kept_E, 100)]) == []
    (diagnosis,) = found_in([np.multiply(beyond_E, 100)])
    assert (diagnosis.kind, diagnosis.experts) == ("collapse", (0,))
    assert diagnosis.numbers[name] == pytest.approx(number, abs=1e-4)


def test_an_expert_that_most_tokens_choose_alone_is_collapse():
    wide = [0.15, 0.6, *np.array([0.2, 0.4, 0.8, 1, 1.2, 2.4]) / 24]
    (diagnosis,) = found_in([np.multiply(wide, 100)], **OFF)
    assert (diagnosis.experts, diagnosis.numbers["crowded"]) == ((1,), 1)
    assert found_in([np.multiply([0.2, 0.55, *wide[2:]], 100)], **OFF) == []


def test_with_more_than_eight_experts_a_crowded_one_also_has_four_times_the_even_load():
    def busy(experts):
        load_E = np.array([0.2, 0.4, 0.6, 1, 1.2, 1.4, 1.8, 0.8][: experts - 1])
        busiest = 0.32  # 64% of the tokens, of which each chooses two
        counts_DE = 100 * np.array([[busiest, *(1 - busiest) * load_E / load_E.sum()]])
        return [item.experts for item in found_in(counts_DE, top_k=2, **OFF)]

    assert busy(experts=8) == [(0,)]
    assert busy(experts=9) == []


def test_crowds_of_many_experts_are_found():
    def hot(experts, count, times):  # the even load, that some of them have
        rest = (experts - count * times) / (experts - count)
        return [np.array([times] * count + [rest] * (experts - count)) * 10]

    (alone,), (crowd,) = (
        found_in(counts_DE, top_k=8) for counts_DE in (hot(256, 1, 13.7), hot(128, 8, 4.8))
    )
    assert alone.kind == crowd.kind == "collapse"
    assert 0 in alone.experts
    assert 0 in crowd.experts


def test_the_busiest_of_many_experts_whose_loads_spread_is_not_hot():
    load_E = np.random.default_rng(0).gamma(4.0, size=512)
    assert load_E.max() / load_E.mean() > 2.5
    assert found_in([1000 * load_E / load_E.sum()], top_k=8) == []
    mean = load_E.mean()
    for times, experts in ((7.5, []), (8.2, [(7,)])):
        load_E[7] = times * mean
        assert [o.experts for o in found_in([1000 * load_E / load_E.sum()], 8)] == experts


@pytest.mark.parametrize(
    ("counts_DE", "blamed"),
    [
        # Above the mean load of 0.42, the first has 0.18 on 45 tokens, the second 0.58 on 5.
        ([[27, 6, 6, 6], [5, 0, 0, 0], [10, 14, 13, 13]], "d0"),
        ([[70, 10, 10, 10], [55, 15, 15, 15]], "d0"),
        ([[62, 13, 13, 12], [60, 14, 13, 13]], None),  # hardly any of the excess is of one
        ([[0, 0, 0, 0], [62, 13, 13, 12]], None),
    ],
)
def test_the_domain_that_brings_an_expert_most_tokens_is_to_blame(counts_DE, blamed):
    (diagnosis,) = found_in(counts_DE, effective=0.99, dead=1)
    assert diagnosis.domain == blamed


def test_an_expert_serves_the_domain_that_has_a_share_of_it_at_the_threshold():
    counts_DE = [[8, 8, 8, 1], [2, 2, 2, 9]]
    (diagnosis,) = found_in(counts_DE, **OFF, occupied=0.1)
    assert (diagnosis.kind, diagnosis.domain, diagnosis.experts) == ("degradation", "d0", (0, 1, 2))
    assert diagnosis.numbers == {"occupied": 0.75, "share": 0.625}
    assert "3 of 4 experts serve 'd0', which has 62.5% of the tokens" in diagnosis.what
    assert found_in(counts_DE, **OFF, occupied=0.125) == []


def test_a_domain_may_occupy_a_quarter_of_the_experts_more_than_its_share():
    def degraded(other):  # three of four experts, of 12 of 24 or 25 tokens
        found = found_in([[4, 4, 4, 0], [1, 1, 1, other]], **OFF)
        return [item.domain for item in found if item.kind == "degradation"]

    assert degraded(other=9) == []
    assert degraded(other=10) == ["d0"]


def test_one_of_six_domains_may_occupy_an_eighth_more_than_its_share():
    def occupying(experts, share):
        counts_DE = np.zeros((6, 8))
        counts_DE[0, :experts] = share / experts
        counts_DE[1:, experts:] = (1 - share) / 5 / (8 - experts)
        return [item.domain for item in found_in(100 * counts_DE, **OFF)]

    assert (occupying(2, 0.13), occupying(2, 0.12)) == ([], ["d0"])
    assert (occupying(4, 0.32), occupying(4, 0.31)) == ([], ["d0"])


APART = np.kron(np.eye(3), np.ones((1, 2)))  # three domains with two experts each


def test_a_rare_domain_is_reported_with_the_domain_whose_experts_it_uses():
    rare_E = [0.15, 0.15, 0.2, 0.2, 0.15, 0.15]
    (diagnosis,) = found_in([*(40 * APART), rare_E], **OFF)
    assert (diagnosis.kind, diagnosis.domain) == ("underfitting", "d3")
    assert "its experts are nearest to those of 'd1' (distance" in diagnosis.advice
    assert diagnosis.advice.endswith("experts tell no more about a domain than its share does")
    assert diagnosis.numbers["apart"] < 0.33 * diagnosis.numbers["others"]
    assert diagnosis.numbers["others"] > 0.95


def mixed(part):
    return part * APART + (1 - part) * APART.mean(0)


@pytest.mark.parametrize(
    ("reported", "left"),
    [
        # 34 of 274 tokens are less than half of an even share
        ((APART, 17 * mixed(0)[0]), (APART, 17.5 * mixed(0)[0])),
        # apart by less than a third of the others' distance
        ((APART, 2 * mixed(0.48)[0]), (APART, 2 * mixed(0.5)[0])),
        # which are apart by a quarter
        ((mixed(0.25), 2 * mixed(0)[0]), (mixed(0.24), 2 * mixed(0)[0])),
    ],
)
def test_a_rare_domain_is_compared_with_a_part_of_the_median_distance(reported, left):
    def kinds(others_DE, rare_E):
        return [item.kind for item in found_in([*(40 * others_DE), rare_E])]

    assert (kinds(*reported), kinds(*left)) == (["underfitting"], [])


def test_chance_gives_a_domain_of_few_tokens_no_experts_of_its_own():
    # Ten sequences of the rare domain, each with other experts than the others on the mean.
    rng = np.random.default_rng(0)
    found = []
    for _ in range(50):
        profile_DE = rng.dirichlet(np.ones(64), 4)
        halves = [
            np.vstack([1e6 * profile_DE, 1e3 * rng.dirichlet(64 * profile_DE.mean(0), 10).mean(0)])
            for _ in range(2)
        ]
        whole = counted([np.ones((5, 64), int)])
        layer = replace(whole.layers[0], counts_HDE=np.stack(halves).astype(int))
        found += diagnose(replace(whole, layers=(layer,)))
    found = [item for item in found if item.kind == "underfitting"]
    assert {item.domain for item in found} == {"d4"}
    assert len(found) > 45, "a profile of them as it is would be 0.2 apart"


def test_a_layer_needs_so_many_assignments_an_expert():
    collapsed_DE = np.array([[1.0, 0, 0, 0], [1.0, 0, 0, 0]])
    assert found_in(1.999 * collapsed_DE) == []
    assert [(found.kind, found.domain) for found in found_in(2.0 * collapsed_DE)] == [
        ("collapse", None)
    ]
