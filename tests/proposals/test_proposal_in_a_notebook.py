"""How a notebook shows a proposal: a table of its domains, and a list of what to know."""

from __future__ import annotations

import re

from made_proposal import DOMAINS, made_proposal


def rows(shown):
    """Return the cells of each row, its heading first."""
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in shown.split("<tr>")[1:]]


def test_a_notebook_lists_what_holds_a_proposal_and_its_warnings():
    shown = made_proposal(binding=("code <= 0.6",), warnings=("too far",))._repr_html_()
    assert shown.endswith(
        "</tbody></table><ul><li>active constraint: code &lt;= 0.6</li><li>too far</li></ul>"
    )


def test_a_notebook_has_no_list_where_there_is_nothing_to_note():
    shown = made_proposal(binding=(), warnings=())._repr_html_()
    assert shown.endswith("</tbody></table>")


def test_a_notebook_has_a_column_of_epochs_only_where_they_are_known():
    head = ["domain", "natural", "proposed", "change"]
    assert rows(made_proposal()._repr_html_())[0] == [*head, "epochs"]
    bare = made_proposal(epochs=None)._repr_html_()
    assert rows(bare)[0] == head
    assert bare.count("<td") == 4 * len(DOMAINS)


def test_a_notebook_shows_the_largest_share_first_with_its_change():
    found = rows(made_proposal(epochs=None)._repr_html_())
    assert [row[0] for row in found[1:]] == ["prose", "law", "code", "mail"]
    assert found[1] == ["prose", "30.0%", "50.0%", "+20.0"]


def test_a_proposal_says_its_largest_shares_and_its_prediction_in_a_line():
    assert repr(made_proposal()) == (
        "Proposal(prose 50.0%, law 30.0%, code 20.0% and 1 more;"
        " predicted 1.0000 (0.9000 to 1.1000) bits per byte)"
    )
