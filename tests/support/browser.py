"""A real browser for tests: Debian's Chromium, driven by playwright.

What a page complains of (errors and warnings on its console, errors of its scripts, requests that
leave the file) is collected in `page_problems`, and a test ends red where there is any: a test that
wants to see one reads the list and clears it.

The browser lives as long as a module of tests: playwright keeps an event loop of its own in this
thread, which would be in the way of tests that run theirs.
"""

import shutil
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-color-profile=srgb")
SIZES = {"wide": (1280, 800), "narrow": (400, 800)}


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window: playwright's `Browser`."""
    name = "playwright.sync_api"
    sync_api = pytest.importorskip(name, reason="playwright is not installed: uv sync")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no Chromium: sh experiments/checks/install_chromium.sh")
    with sync_api.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield chromium
        chromium.close()


@pytest.fixture
def page_problems() -> list[str]:
    """What the pages of a test complained of, in order."""
    return []


@pytest.fixture
def open_page(browser, page_problems):
    """Open a file (`Path`), an address, or markup (which begins with `<`); return the page.

    The size is `wide`, `narrow`, or width and height in pixels; the scheme `light` or `dark`, what
    the reader prefers; options are further ones of playwright's `Browser.new_context`.
    """
    contexts = []

    def opened(source, size="wide", scheme="light", options=None):
        viewport = dict(zip(("width", "height"), SIZES.get(size, size), strict=True))
        context = browser.new_context(viewport=viewport, color_scheme=scheme, **(options or {}))
        contexts.append(context)
        page = context.new_page()
        _listen(page, page_problems)
        if isinstance(source, Path):
            page.goto(source.resolve().as_uri())
        elif source.lstrip().startswith("<"):
            page.set_content(source)
        else:
            page.goto(source)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not page_problems, "\n".join(page_problems)


def _listen(page, problems):
    def hear(message):
        if message.type in ("error", "warning"):
            problems.append(f"{message.type}: {message.text}")

    page.on("pageerror", lambda error: problems.append(f"error: {error}"))
    page.on("console", hear)
    page.on("requestfailed", lambda request: problems.append(f"no answer: {request.url[:200]}"))
