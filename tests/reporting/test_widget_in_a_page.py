"""The widget of notebooks in a browser: its page and its Python change each other."""

import pytest
from made_what_if import made_fit_of_gaussians
from widget_page import show_widget, synced

import mixopt

pytestmark = pytest.mark.nightly

TOKENS = {"code": 3e9, "prose": 5e9, "law": 2e9}
CELL = '<!doctype html><title>t</title>{style}<body><p class="wi-big">text</p><div id="cell"></div>'
INSIDE = 'document.querySelector("#cell > div").shadowRoot'
SHARES = f"""() => Object.fromEntries([...{INSIDE}.querySelectorAll("[data-domain]")]
  .map((row) => [row.dataset.domain, Number(row.dataset.share)]))"""
INK = f"() => getComputedStyle({INSIDE}.querySelector('.wi-widget')).color"


@pytest.fixture(scope="module")
def fit():
    return made_fit_of_gaussians()


@pytest.fixture
def widget(fit):
    return mixopt.explore(fit, inventory=TOKENS, tokens=1e10)


@pytest.fixture
def shown(open_page, widget):
    """A function that shows the widget in a page with some style of its own."""

    def opened(style="", **settings):
        page = open_page(CELL.format(style=f"<style>{style}</style>"), **settings)
        show_widget(page, widget)
        page.locator("[data-domain]").first.wait_for()
        return page

    return opened


@pytest.fixture
def page(shown):
    return shown()


def until(page, true):
    """Wait until something is true of Python."""
    for _ in range(400):
        if true():
            return
        page.wait_for_timeout(50)
    raise AssertionError("not within 20 seconds")


def test_a_slider_changes_the_mixture_in_python(page, widget):
    before = widget.mixture["law"]
    page.locator("[data-domain=law] input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    until(page, lambda: widget.mixture["law"] > before)
    assert page.evaluate(SHARES)["law"] == pytest.approx(widget.mixture["law"])


def test_a_mixture_that_python_sets_moves_the_sliders(page, widget):
    widget.mixture = mixopt.Mixture({"code": 0.25, "prose": 0.15, "law": 0.6})
    page.evaluate("(found) => take(found)", synced(widget))
    until(page, lambda: page.evaluate(SHARES)["law"] == 0.6)


@pytest.mark.parametrize(
    ("style", "ink"),
    [
        ("body{background:#fff}", "rgb(27, 32, 39)"),
        ("body{background:oklch(0.2 0.02 250)}", "rgb(230, 233, 237)"),
    ],
)
def test_it_is_light_or_dark_as_what_is_behind_it(shown, style, ink):
    page = shown(style)
    until(page, lambda: page.evaluate(INK) == ink)


def test_it_follows_a_change_of_the_theme(shown):
    page = shown("body{background:#fff}body[data-dark]{background:#111}")
    until(page, lambda: page.evaluate(INK) == "rgb(27, 32, 39)")
    page.evaluate("() => document.body.setAttribute('data-dark', '')")
    until(page, lambda: page.evaluate(INK) == "rgb(230, 233, 237)")


def test_no_style_comes_in_or_leaves(shown):
    page = shown("button{display:none}")
    assert page.get_by_role("button", name="Natural").is_visible()
    assert (
        page.evaluate("() => getComputedStyle(document.querySelector('p.wi-big')).fontWeight")
        == "400"
    )


def test_keys_on_a_slider_are_no_commands_of_the_notebook(page):
    page.evaluate("() => { window.keys = 0; addEventListener('keydown', () => { keys += 1; }); }")
    page.locator("[data-domain=law] input[type=range]").focus()
    page.keyboard.press("d")
    assert page.evaluate("() => keys") == 0


def test_nothing_is_cut_in_a_cell(shown):
    page = shown(size="narrow")
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")


def test_it_can_be_taken_away(page):
    page.evaluate("() => forget()")
    assert page.locator(".wi-domain").count() == 0
