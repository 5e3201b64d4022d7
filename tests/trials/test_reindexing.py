"""Trials carried over to other domains: what is kept and what is assumed; a fit still holds."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from made_fit import table as table_of
from refusals import refuses

from mixopt.errors import TrialsError

DOMAINS = ("web", "code", "books")
ROWS = [(0.5, 0.3, 0.2), (0.2, 0.2, 0.6), (0.0, 0.6, 0.4), (1.0, 0.0, 0.0)]


def table(rows=ROWS, domains=DOMAINS, targets=("exam",), name="t"):
    return table_of(rows, np.full((len(rows), len(targets)), 2.0), domains, targets, name=name)


def test_a_split_domain_gives_its_weight_to_its_parts_by_shares_or_by_the_inventory():
    found = table().reindex(split={"web": {"blogs": 0.75, "news": 0.25}})
    assert found.domains == ("blogs", "news", "code", "books")
    np.testing.assert_allclose(found.weights()[0], [0.375, 0.125, 0.3, 0.2])
    assert found.notes == ("split 'web': assumed to have been drawn as blogs 0.75, news 0.25",)
    found = table().reindex(split={"web": ["blogs", "news"]}, inventory={"blogs": 3e9, "news": 1e9})
    assert found == table().reindex(split={"web": {"blogs": 0.75, "news": 0.25}})
    with pytest.raises(TrialsError, match="'web': no shares are given, and the inventory lacks"):
        table().reindex(split={"web": ["blogs", "news"]}, inventory={"blogs": 3e9})


def test_merged_domains_add_up_and_a_removed_one_leaves_out_the_trials_that_used_it():
    found = table().reindex(merge={"prose": ["web", "books"]})
    assert found.domains == ("prose", "code")
    np.testing.assert_allclose(found.weights()[:, 0], [0.7, 0.8, 0.4, 1.0])
    # Mean inner shares 1.7 and 1.2 of 2.9; the trials are 0.0897, 0.269, 0.234 and 0.414 off them.
    assert "0.252 from the mean web 0.586, books 0.414 on average" in found.notes[0]
    found = table([(0.495, 0.495, 0.01), (0.4, 0.4, 0.2)]).reindex(remove=["books"])
    assert found.table["trial"].to_list() == ["t000"]
    np.testing.assert_allclose(found.weights(), [[0.5, 0.5]])
    assert found.notes == (
        "remove 'books': its weight goes to the others; 1 of 2 trials were more than 0.02 off it"
        " and are left out, the others at most 0.01",
    )


def test_a_frozen_group_keeps_the_trials_that_drew_it_in_its_shares():
    rows = [(0.3, 0.1, 0.6), (0.1, 0.3, 0.6), (0.0, 0.0, 1.0), (0.31, 0.1, 0.59)]
    found = table(rows).reindex(freeze={"mix": {"web": 0.75, "code": 0.25}})
    assert found.domains == ("mix", "books")
    assert found.table["trial"].to_list() == ["t000", "t002", "t003"]
    np.testing.assert_allclose(found.weights()[:, 0], [0.4, 0.0, 0.41])
    assert "1 of 4 trials were more than 0.02 off it" in found.notes[0]


@given(st.floats(0.01, 0.99))
def test_merging_the_parts_of_a_split_domain_gives_the_trials_back(share):
    split = table().reindex(split={"code": {"py": share, "js": 1 - share}})
    back = split.reindex(merge={"code": ["py", "js"]})
    assert back.domains == DOMAINS
    np.testing.assert_allclose(back.weights(), table().weights(), atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"remove": ["wed"]}, "no domain 'wed' to change; did you mean 'web'?"),
        ({"merge": {"code": ["web", "books"]}}, "domain 'code' would appear twice"),
        ({"merge": {"x": ["web"]}, "remove": ["web"]}, "domain 'web' is in two changes"),
        ({"split": {"web": {"a": 0.5, "b": 0.6}}}, "'web': shares a 0.5, b 0.6 must be >= 0 and"),
        ({"remove": list(DOMAINS)}, "no domain is left; keep one"),
        ({"freeze": {"x": {"web": 0.0, "books": 1.0}}, "tolerance": -1}, "no trial is left of 4"),
    ],
)
def test_a_change_that_cannot_be_made_is_named(changes, message):
    refuses(TrialsError, message.replace("?", r"\?"), table().reindex, **changes)


def test_tables_of_the_same_domains_are_joined_over_the_losses_of_both():
    old, new = table(targets=("exam", "old")), table(targets=("new", "exam"), name="u")
    both = old.joined(new)
    assert (len(both), both.targets) == (8, ("exam",))
    assert both.notes == ("left out 'old', 'new': losses of only one table",)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (table(), "more than one row for 't000', 't001', 't002', 't003'"),
        (table(targets=("quiz",), name="u"), "the tables have no evaluation domain in common"),
        (table(domains=("web", "code", "maths"), name="u"), "domain 'books' is in one table alone"),
    ],
)
def test_tables_that_do_not_go_together_are_refused(other, message):
    refuses(TrialsError, message, table().joined, other)
