"""Tables in notebooks: escaped, cut where they are long, and without colours of their own."""

from mixopt.system import html_table
from mixopt.system.notebook_tables import ROWS


def test_every_text_is_escaped():
    attack = "<script>alert(1)</script>"
    shown = html_table(attack, [attack], [[attack]], notes=[attack])
    assert "<script" not in shown
    assert shown.count("&lt;script&gt;") == 4


def test_a_long_table_is_cut_and_says_by_how_much():
    shown = html_table("all", ["domain"], [[f"d{n}"] for n in range(ROWS + 7)], what="domains")
    assert shown.count("<td") == ROWS
    assert "<li>and 7 more domains</li>" in shown


def test_numbers_stand_at_the_right_and_texts_at_the_left():
    shown = html_table("all", ["domain", "share", "why"], [["a", "1%", "b"]], texts=[2])
    sides = [part.split('"')[0] for part in shown.partition("<td")[2].split("text-align:")[1:]]
    assert sides == ["left", "right", "left"]


def test_no_colour_is_set_so_that_light_and_dark_hold():
    shown = html_table("all", ["domain", "share"], [["a", "1%"]], notes=["note"])
    assert "color" not in shown
    assert "background" not in shown
