"""What a notebook's widget asks of the view: to hear of mixtures and locks, to be taken away."""

import pytest
from made_what_if import NATURAL, made_fit_of_gaussians, what_if_content

from mixopt.what_if import packed_json, view_script

SETUP = """
const heard = [];
const data = readWhatIf(document.getElementById("data").textContent);
const handle = renderWhatIf(document.getElementById("place"), data, {
  onChange: (weights) => heard.push(Array.from(weights)),
});
"""


@pytest.fixture
def page(open_page):
    data = packed_json(what_if_content(made_fit_of_gaussians()))
    return open_page(
        f'<body><div id="place"></div><script type="application/json" id="data">{data}</script>'
        f"<script>{view_script()}{SETUP}</script></body>"
    )


def test_it_tells_of_each_mixture_at_rest(page):
    page.get_by_role("button", name="Natural").click()
    page.wait_for_function("() => heard.length > 0")
    assert page.evaluate("() => heard.at(-1)") == NATURAL.tolist()
    assert page.evaluate("() => Array.from(handle.weights)") == NATURAL.tolist()


def test_it_tells_which_domains_are_locked(page):
    page.get_by_label("Lock law").check()
    assert page.evaluate("() => handle.locked") == ["law"]


def test_weights_are_set_from_outside(page):
    page.evaluate("() => handle.setWeights([0.2, 0.2, 0.6])")
    page.wait_for_function(
        "() => document.querySelector('[data-domain=law]').dataset.share === '0.6'"
    )


def test_the_address_is_left_alone(page):
    page.get_by_role("button", name="Natural").click()
    page.wait_for_function("() => heard.length > 0")
    page.wait_for_timeout(300)
    assert page.evaluate("() => location.hash") == ""
    assert page.get_by_role("button", name="Copy link").count() == 0


def test_it_can_be_taken_away(page):
    page.evaluate("() => handle.destroy()")
    assert page.locator("#place *").count() == 0
