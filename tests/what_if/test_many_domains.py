"""The what-if of a run with many domains: what is shown, found, grouped and left for later."""

import numpy as np
import pytest
from made_what_if import many_domains, what_if_page

SHARES = """() => Object.fromEntries([...document.querySelectorAll("[data-domain]")]
  .map((row) => [row.dataset.domain, Number(row.dataset.share)]))"""


@pytest.fixture
def content():
    return many_domains()


@pytest.fixture
def page(open_page, content, tmp_path):
    opened = open_page(what_if_page(content, tmp_path / "page.html"))
    opened.wait_for_function("() => document.querySelector('.what-if').dataset.half > 0")
    return opened


def test_the_domains_that_change_most_come_first_and_the_others_on_request(page, content):
    change_D = np.abs(content["proposal"] - content["natural"])
    order = [content["domains"][place] for place in np.argsort(-change_D)]
    assert list(page.evaluate(SHARES)) == order[:12]
    page.get_by_role("button", name="Show all 20 domains").click()
    assert list(page.evaluate(SHARES)) == order


def test_a_filter_finds_domains_that_are_not_shown(page, content):
    hidden = next(name for name in content["domains"] if name not in page.evaluate(SHARES))
    page.get_by_label("Filter domains").fill(hidden.upper())
    assert list(page.evaluate(SHARES)) == [hidden]
    page.get_by_label("Filter targets").fill("task17")
    assert page.locator("[data-target]").count() == 1


def test_a_group_moves_its_domains_in_proportion(page, content):
    page.get_by_label("Order").select_option("group")
    page.get_by_label("Group first, percent").fill("60")
    page.get_by_label("Group first, percent").press("Enter")
    page.wait_for_timeout(300)
    own = [page.evaluate(SHARES)[f"source0{place}"] for place in range(3)]
    before = content["proposal"][:3]
    assert sum(own) == pytest.approx(0.6, abs=1e-12)
    assert np.abs(np.array(own) / 0.6 - before / before.sum()).max() < 1e-9


def test_rows_that_come_into_sight_are_up_to_date(page, content):
    page.get_by_role("button", name="Show all 20 domains").click()
    page.set_viewport_size({"width": 900, "height": 300})
    page.get_by_role("button", name="Natural").click()
    page.locator("[data-domain]").last.scroll_into_view_if_needed()
    page.wait_for_timeout(300)
    last = page.locator("[data-domain]").last
    place = content["domains"].index(last.get_attribute("data-domain"))
    assert float(last.get_attribute("data-share")) == content["natural"][place]


def test_corners_may_be_groups(page, content):
    page.get_by_label("Left").select_option("g0")
    page.locator(".wi-ternary").focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(300)
    assert "group first" in page.locator(".wi-corners").text_content()
    total = sum(page.evaluate(SHARES).values())
    assert 0 < total <= 1 + 1e-9
