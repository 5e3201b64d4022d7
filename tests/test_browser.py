"""The browser that tests of pages use."""

import pytest

pytestmark = pytest.mark.nightly

STYLE = "<style>p{color:light-dark(black,white)}:root{color-scheme:light dark}</style>"
PAGE = f"<!doctype html><title>t</title>{STYLE}<p id=a>one</p>"


@pytest.mark.parametrize(("size", "width"), [("wide", 1280), ("narrow", 400), ((640, 480), 640)])
def test_a_page_has_the_width_that_is_asked_for(open_page, size, width):
    assert open_page(PAGE, size).evaluate("innerWidth") == width


def test_a_page_is_dark_where_its_reader_prefers_that(open_page):
    ask = "getComputedStyle(document.getElementById('a')).color"
    colours = [open_page(PAGE, scheme=one).evaluate(ask) for one in ("light", "dark")]
    assert colours == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]


@pytest.mark.parametrize(
    ("script", "problem"),
    [("console.error('no')", "error: no"), ("setTimeout(() => nothing.here)", "nothing is not")],
)
def test_what_a_page_complains_of_is_collected(open_page, page_problems, script, problem):
    page = open_page(f"<!doctype html><p>one</p><script>{script}</script>")
    page.wait_for_timeout(50)
    assert [problem in line for line in page_problems] == [True]
    page_problems.clear()


def test_a_file_is_opened(open_page, tmp_path):
    (tmp_path / "a page.html").write_text(PAGE)
    assert open_page(tmp_path / "a page.html").title() == "t"
