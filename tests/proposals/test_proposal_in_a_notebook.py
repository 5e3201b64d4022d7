"""How a notebook shows a proposal: a table of its domains, and a list of what to know."""

from __future__ import annotations

from made_proposal import DOMAINS, made_proposal


def test_a_notebook_lists_what_holds_a_proposal_and_its_warnings():
    shown = made_proposal(binding=("code <= 0.6",), warnings=("too far",))._repr_html_()
    assert shown.endswith(
        "</tbody></table><ul><li>active constraint: code &lt;= 0.6</li><li>too far</li></ul>"
    )


def test_a_notebook_has_no_list_where_there_is_nothing_to_note():
    shown = made_proposal(binding=(), warnings=())._repr_html_()
    assert shown.endswith("</tbody></table>")


def test_a_notebook_has_a_column_of_epochs_only_where_they_are_known():
    head = "<th>domain</th><th>natural</th><th>proposed</th><th>change</th>"
    assert f"{head}<th>epochs</th></tr>" in made_proposal()._repr_html_()
    bare = made_proposal(epochs=None)._repr_html_()
    assert f"{head}</tr>" in bare
    assert bare.count("<td") == 4 * len(DOMAINS)


def test_a_notebook_shows_the_largest_share_first_with_its_change():
    shown = made_proposal(epochs=None)._repr_html_()
    places = [shown.index(f"<td>{name}</td>") for name in ("prose", "law", "code", "mail")]
    assert places == sorted(places)
    cells = ("30.0%", "50.0%", "+20.0")
    right = "".join(f'<td style="text-align:right">{cell}</td>' for cell in cells)
    assert f"<td>prose</td>{right}</tr>" in shown
