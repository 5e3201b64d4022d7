import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mixopt.config import ConstraintsConfig
from mixopt.constraints import Constraints, cap
from mixopt.constraints.limits import token_text
from mixopt.errors import ConfigError, InfeasibleError
from mixopt.mixture import Mixture

INVENTORY = {"web": 20_000_000_000, "europarl": 980_000_000, "code": 2_000_000_000}
TARGET = 25_000_000_000


def constraints(inventory=INVENTORY, target_tokens=TARGET, **fields):
    return Constraints.from_config(ConstraintsConfig(**fields), inventory, target_tokens)


def message(**fields):
    with pytest.raises(InfeasibleError) as caught:
        constraints(**fields)
    return str(caught.value)


def test_without_constraints_every_mixture_is_allowed():
    free = constraints()
    assert free.lower_D.tolist() == [0, 0, 0]
    assert free.upper_D.tolist() == [1, 1, 1]
    assert free.violations(Mixture({"web": 1, "europarl": 0, "code": 0})) == []


def test_bounds_are_in_the_order_of_the_inventory():
    bounded = constraints(bounds={"code": (0.1, 0.2), "web": (0.3, 1.0)})
    assert bounded.lower_D.tolist() == [0.3, 0, 0.1]
    assert bounded.upper_D.tolist() == [1, 1, 0.2]


def test_max_epochs_allows_so_many_tokens_of_each_domain():
    np.testing.assert_allclose(constraints(max_epochs=4).upper_D, [1, 0.1568, 0.32])


def test_the_lower_of_two_caps_counts():
    both = constraints(max_epochs=4, bounds={"europarl": (0, 0.1), "code": (0, 0.9)})
    np.testing.assert_allclose(both.upper_D, [1, 0.1, 0.32])


def test_a_floor_above_max_epochs_says_the_epochs_and_both_ways_out():
    assert message(max_epochs=4, bounds={"europarl": (0.31, 1)}) == (
        "no mixture satisfies all of these limits, short by 0.153 (constraints.max_epochs: 4:"
        " europarl <= 0.157; constraints.bounds: europarl >= 0.31); allow max_epochs: 7.91 (or a"
        " run of 12.6B tokens), or lower the minimum of europarl to 0.1568 in constraints.bounds"
    )


def test_too_few_epochs_for_the_run_say_the_shortfall_and_the_epochs_that_are_enough():
    assert message(max_epochs=1) == (
        "no mixture satisfies all of these limits, short by 0.0808 (constraints.max_epochs: 1: web"
        " <= 0.8, europarl <= 0.0392, code <= 0.08); allow max_epochs: 1.09 (or a run of 22.9B"
        " tokens)"
    )


@settings(deadline=None)
@given(
    tokens=st.lists(st.integers(1, 10**12), min_size=1, max_size=6),
    target=st.integers(1, 10**13),
    short=st.floats(0.001, 0.98),
)
def test_the_epochs_that_an_error_offers_are_enough_and_hardly_more(tokens, target, short):
    inventory = {f"d{i}": count for i, count in enumerate(tokens)}
    epochs = short * target / sum(tokens)
    with pytest.raises(InfeasibleError) as caught:
        constraints(inventory, target, max_epochs=epochs)
    offered = float(str(caught.value).rpartition("max_epochs: ")[2].split()[0])
    constraints(inventory, target, max_epochs=offered)
    with pytest.raises(InfeasibleError):
        constraints(inventory, target, max_epochs=0.98 * offered)


def test_the_epochs_offered_reckon_with_other_caps():
    # min(0.3, 0.1 epochs) + 0.1 epochs = 1 at 7 epochs.
    with pytest.raises(InfeasibleError, match=r"allow max_epochs: 7 "):
        constraints({"a": 10, "b": 10}, 100, max_epochs=1, bounds={"a": (0, 0.3)})


def test_caps_that_no_single_change_mends_say_so():
    with pytest.raises(InfeasibleError, match=r"; change several of them"):
        constraints({"a": 10, "b": 10}, 100, max_epochs=1, bounds={"a": (0, 0.3), "b": (0, 0.3)})


def test_floors_that_add_up_to_more_than_1_are_named_with_the_excess():
    assert message(bounds={"web": (0.7, 1), "code": (0.5, 1)}) == (
        "no mixture satisfies all of these limits, short by 0.2 (constraints.bounds: web >= 0.7,"
        " code >= 0.5); lower the minimum of web to 0.5 in constraints.bounds, or lower the minimum"
        " of code to 0.3 in constraints.bounds"
    )


def test_caps_of_two_sources_are_named_with_what_mends_each():
    bounded = constraints(bounds={"web": (0, 0.3), "code": (0, 0.5)})
    with pytest.raises(InfeasibleError) as caught:
        bounded.with_limits([cap("europarl", 0.1, "design.max_usage", setting=2, rate=0.05)])
    assert str(caught.value) == (
        "no mixture satisfies all of these limits, short by 0.1 (constraints.bounds: web <= 0.3,"
        " code <= 0.5; design.max_usage: 2: europarl <= 0.1); raise the maximum of web to 0.4 in"
        " constraints.bounds, or raise the maximum of code to 0.6 in constraints.bounds, or allow"
        " max_usage: 4"
    )


def test_a_domain_without_tokens_cannot_be_asked_for():
    inventory = {"web": 100, "empty": 0}
    with pytest.raises(InfeasibleError, match="give empty training tokens: it has none"):
        constraints(inventory, 100, max_epochs=2, bounds={"empty": (0.1, 1)})


def test_max_epochs_without_the_length_of_the_run_is_a_mistake():
    with pytest.raises(ConfigError, match="max_epochs: needs .*propose.target_tokens"):
        constraints(target_tokens=None, max_epochs=4)


def test_an_unknown_domain_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="unknown domain 'europral'; did you mean 'europarl'"):
        constraints(bounds={"europral": (0, 0.5)})


def test_a_least_above_its_most_is_a_mistake():
    with pytest.raises(
        ConfigError, match=r"bounds.web: the minimum, 0.6, is above the maximum, 0.3"
    ):
        constraints(bounds={"web": (0.6, 0.3)})


def test_what_binds_is_named_with_its_reason():
    bounded = constraints(max_epochs=4, bounds={"code": (0.1, 0.3)})
    held = Mixture({"web": 0.7432, "europarl": 0.1568, "code": 0.1})
    assert bounded.binding(held) == [
        "europarl <= 0.157 (constraints.max_epochs: 4)",
        "code >= 0.1 (constraints.bounds)",
    ]


def test_nothing_binds_in_the_interior():
    bounded = constraints(max_epochs=4, bounds={"code": (0.1, 0.3)})
    assert bounded.binding(Mixture({"web": 0.7, "europarl": 0.1, "code": 0.2})) == []


def test_violations_say_what_mends_them():
    bounded = constraints(max_epochs=4, bounds={"code": (0.1, 0.3)})
    broken = bounded.violations(Mixture({"web": 0.3, "europarl": 0.65, "code": 0.05}))
    assert broken == [
        "domain 'europarl': a weight of 0.65 of 25B tokens needs 16.6 epochs of its 0.98B tokens;"
        " constraints.max_epochs is 4. Lower it to <= 0.1568, or allow max_epochs: 16.6.",
        "domain 'code': a weight of 0.05 is below 0.1, the minimum set by constraints.bounds. Raise"
        " it to >= 0.1, or allow 0.05 in constraints.bounds.",
    ]


def test_the_simplex_of_the_constraints_holds_what_they_allow():
    bounded = constraints(max_epochs=4, bounds={"code": (0.1, 0.3)})
    projected = bounded.simplex.project([0.0, 1.0, 0.0])
    mixture = Mixture.from_array(bounded.domains, projected)
    assert bounded.violations(mixture) == []


def test_constraints_are_frozen():
    with pytest.raises(ValueError, match="read-only"):
        constraints().upper_D[0] = 0.1


def test_a_cap_that_is_no_setting_says_which_field_to_widen():
    capped = cap("web", 0.2, "design.max_usage")
    with pytest.raises(InfeasibleError, match="maximum of web to 0.5 in design.max_usage"):
        constraints(bounds={"web": (0.5, 1)}).with_limits([capped])


@pytest.mark.parametrize(
    ("count", "text"), [(25e9, "25B"), (0.98e9, "0.98B"), (410e6, "410M"), (1200, "1.2k"), (7, "7")]
)
def test_tokens_are_written_for_reading(count, text):
    assert token_text(count) == text
