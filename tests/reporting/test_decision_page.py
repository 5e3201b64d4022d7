"""The decision page of made runs in a real browser: legible at both widths, buttons that work."""

import re
from dataclasses import replace

import pytest
import yaml
from made_run import domain_names, made_config, make_run
from page_checks import cut_off, faint_text, nameless, skipped_headings

from mixopt.integrations import EXPORT_TOOLS
from mixopt.pipeline import export
from mixopt.reporting.answer import answer_of, first_screen
from mixopt.reporting.page import page_html

pytestmark = pytest.mark.nightly

LOOKS = [(size, scheme) for size in ("wide", "narrow") for scheme in ("light", "dark")]
CLIPBOARD = {"permissions": ["clipboard-read", "clipboard-write"]}


@pytest.fixture(scope="module")
def ten(tmp_path_factory):
    """A run of ten domains in six groups, whose law the what-if has."""
    return make_run(tmp_path_factory.mktemp("ten"), 10, 24)


@pytest.fixture(scope="module")
def page_file(ten):
    return ten.path / "report.html"


@pytest.fixture
def shown(open_page, page_file):
    """The page on a wide screen."""
    return open_page(page_file, options=CLIPBOARD)


def column(shown, place):
    """Return the texts of a column, as rows are shown."""
    script = f"(rows) => rows.map((row) => row.cells[{place}].innerText.trim())"
    return shown.eval_on_selector_all("#by-domains table tbody tr", script)


def heading(shown, name):
    return shown.locator("#by-domains table thead th", has_text=name)


@pytest.mark.parametrize(("size", "scheme"), LOOKS)
def test_nothing_is_cut_and_all_text_can_be_read(open_page, page_file, size, scheme):
    page = open_page(page_file, size, scheme)
    assert cut_off(page) == []
    assert faint_text(page) == []
    assert page_file.stat().st_size <= 600_000


def test_a_laptop_s_first_screen_has_the_answer_and_the_buttons_and_headings_are_in_order(shown):
    for part in ("h1", ".verdict", "#check", ".mix h2", ".gains dd", ".pays tbody tr", ".chips"):
        box = shown.locator(part).first.bounding_box()
        assert box["y"] + box["height"] <= 800, part
    assert skipped_headings(shown) == []
    assert nameless(shown) == []
    parts = ("h1", "header", "nav", "main", "footer")
    assert [shown.locator(item).count() for item in parts] == [1] * 5


def test_nothing_has_to_be_scrolled_sideways_to_be_found_on_a_narrow_screen(open_page, page_file):
    page = open_page(page_file, "narrow")
    width = page.evaluate("() => innerWidth")
    links, buttons = page.locator("nav a"), page.locator(".chips button:visible")
    assert links.count() == 6
    assert buttons.last.inner_text() == f"All {page.locator('[data-copy]').count()} formats"
    buttons.last.click()
    assert buttons.count() == page.locator("[data-copy]").count() + 1
    for item in [*links.all(), *buttons.all()]:
        box = item.bounding_box()
        assert box["x"] >= 0, item.inner_text()
        assert box["x"] + box["width"] <= width, item.inner_text()
    buttons.last.click()
    assert buttons.count() == 4


def test_a_heading_sorts_by_mouse_and_keyboard_numbers_falling_and_words_rising_first(shown):
    natural, domain = (heading(shown, name) for name in ("natural", "domain"))
    for order in ("descending", "ascending"):
        natural.locator("button").click()
        shares = [float(text.rstrip("%")) for text in column(shown, 2)]
        assert shares == sorted(shares, reverse=order == "descending")
        assert natural.get_attribute("aria-sort") == order
    domain.locator("button").focus()
    shown.keyboard.press("Enter")
    assert column(shown, 0) == sorted(domain_names(10))
    shown.keyboard.press("Space")
    assert column(shown, 0) == sorted(domain_names(10), reverse=True)


@pytest.mark.parametrize("way", ["clipboard", "selection"])
def test_buttons_copy_exactly_what_export_writes(open_page, page_file, ten, way):
    page = open_page(page_file, options=CLIPBOARD)
    if way == "selection":
        page.evaluate("void (navigator.clipboard.writeText = () => Promise.reject(Error('no')))")
    names = page.eval_on_selector_all("[data-copy]", "(all) => all.map((one) => one.dataset.copy)")
    assert names == ["yaml", *EXPORT_TOOLS]
    for name in names:
        page.locator(f"[data-copy={name}]").click()
        page.wait_for_function(
            "(name) => document.querySelector(`[data-copy=${name}]`).classList.contains('done')",
            arg=name,
        )
        copied = page.evaluate("navigator.clipboard.readText()")
        if name == "yaml":
            assert yaml.safe_load(copied)["weights"] == dict(ten.recommendation.mixture)
        else:
            assert copied == export(ten.path, name, trust=True)[""]
            status = page.get_by_role("status").filter(has_text=f"Copied for {name}.")
            assert status.count() == 1
            assert page.locator("#copied-text").inner_text().strip() == copied.strip()


def test_a_format_that_needs_what_the_run_does_not_know_says_what(open_page, ten, tmp_path):
    propose = ten.config.propose.model_copy(update={"target_tokens": None})
    limits = ten.config.constraints.model_copy(update={"max_epochs": None})
    config = ten.config.model_copy(update={"propose": propose, "constraints": limits})
    unknown = replace(ten, config=config)
    file = tmp_path / "page.html"
    file.write_text(page_html("a", "a", first_screen(unknown, answer_of(ten)), []))
    opened = open_page(file)
    opened.locator("[aria-disabled=true]").first.press("Enter")
    assert "give --tokens" in opened.locator("#copied").inner_text()


def test_groups_unfold_and_add_up(shown, ten):
    shown.get_by_role("button", name="Groups").click()
    assert not shown.locator("#by-domains").is_visible()
    group = shown.get_by_role("button", name="code", exact=True)
    members = shown.locator("tbody", has=group).locator(".member")
    assert not members.first.is_visible()
    group.click()
    assert members.first.is_visible()
    shares = [w for name, w in ten.recommendation.mixture.items() if name.startswith("code_")]
    row = shown.locator("tr", has=group)
    assert row.locator("td.share").inner_text() == f"{100 * sum(shares):.1f}%"
    assert members.count() == len(shares)


def test_a_telephone_shows_five_domains_and_then_all_and_all_without_scripts(open_page, page_file):
    page = open_page(page_file, "narrow")
    rows = page.locator("#by-domains tbody tr:visible")
    assert rows.count() == 5
    page.get_by_role("button", name="Show all 10").click()
    assert rows.count() == 10
    page = open_page(page_file, "narrow", options={"java_script_enabled": False})
    assert page.locator("#by-domains tbody tr:visible").count() == 10
    assert not page.locator(".copy").is_visible()
    assert not page.locator("button:visible").count()


def test_a_print_has_all_rows_and_open_details(open_page, page_file):
    page = open_page(page_file, (700, 990))
    page.emulate_media(media="print")
    assert page.locator("#by-domains tbody tr:visible").count() == 10
    details = page.locator("details > :not(summary, script, style)")
    assert all(item.is_visible() for item in details.all())
    assert not page.locator("nav").is_visible()
    assert cut_off(page) == []


def test_a_policy_stops_every_script_that_is_not_the_pages_own(open_page, page_file, page_problems):
    page = open_page(page_file)
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'),"
        " {textContent: 'window.ran = true'}))"
    )
    assert page.evaluate("window.ran") is None
    assert any("Content Security Policy" in line for line in page_problems)
    page_problems.clear()


@pytest.fixture(scope="module")
def sixty(tmp_path_factory):
    """A run of sixty domains and 62 losses, with a large law."""
    fit = {"regressors": ["gaussian_process"], "folds": 3}
    propose = {"bootstrap": 2, "samples": 500, "target_tokens": 25_000_000_000}
    return make_run(tmp_path_factory.mktemp("sixty"), 60, 64, fit=fit, propose=propose)


def test_sixty_domains_fit_a_screen_and_unfold(open_page, sixty):
    file = sixty.path / "report.html"
    assert file.stat().st_size <= 1_500_000
    figures = re.findall(r"<svg .*?</svg>", file.read_text(), re.DOTALL)
    assert sum(len(figure.encode()) for figure in figures) <= 350_000
    for size, scheme in LOOKS:
        page = open_page(file, size, scheme)
        assert cut_off(page) == []
        assert faint_text(page) == []
        assert len(page.locator("h1").inner_text()) < 160
        if size == "wide":
            button = page.locator(".chips").bounding_box()
            assert button["y"] + button["height"] <= 800
    page = open_page(file)
    rows = page.locator("#by-domains tbody tr:visible")
    assert rows.count() == 10
    changes = [abs(float(text.replace("\N{MINUS SIGN}", "-"))) for text in column(page, 4)]
    assert changes == sorted(changes, reverse=True)
    page.get_by_role("button", name="Show all 60").first.click()
    assert rows.count() == 60


def test_the_what_if_of_phases_moves_a_cell_within_its_phase(open_page, tmp_path):
    config = made_config(tmp_path, 6)
    run = make_run(
        tmp_path,
        6,
        proxy=config["proxy"] | {"name": "made_run:PhasedProxy", "eval_every": None},
        design=config["design"] | {"trials": 30, "phases": [{"until": 0.8}, {}]},
        fit={"regressors": ["phases"], "folds": 3},
    )
    assert run.constraints.violations(run.proposal.mixture) == []
    page = open_page(run.path / "report.html")
    # One mixture is proposed for both phases: it is shown by domain, and any tool takes it.
    assert sorted(column(page, 0)) == sorted(domain_names(6))
    assert page.locator("[aria-disabled=true]").count() == 0
    page.locator("#what-if summary").click()
    assert "No limit is broken" in page.locator(".wi-limits").inner_text()
    page.get_by_label("2/code_news, percent").fill("15")
    page.get_by_label("2/code_news, percent").press("Enter")
    page.wait_for_timeout(500)
    script = "(rows) => rows.map((row) => [row.dataset.domain, Number(row.dataset.share)])"
    shares = dict(page.eval_on_selector_all("[data-domain]", script))
    assert shares["2/code_news"] == pytest.approx(0.15)
    assert sum(v for k, v in shares.items() if k.startswith("1/")) == pytest.approx(0.8)
