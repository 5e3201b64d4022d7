"""A real browser for tests: Debian's Chromium, driven by playwright.

`open_page` opens a file, an address or markup, and gives playwright's `Page`. What the page
complains of (errors and warnings on its console, errors of its scripts, requests that leave the
file) is collected in `page_problems`, and a test ends red where there is any: a test that wants to
see one reads the list and clears it. Tests are skipped where playwright or Chromium is absent;
`sh experiments/checks/install_chromium.sh` brings Chromium.

The browser lives as long as a module of tests: playwright keeps an event loop of its own in this
thread, which would be in the way of tests that run theirs.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-color-profile=srgb")
SIZES = {"wide": (1280, 800), "narrow": (400, 800)}


def chromium_path() -> str | None:
    """Return where Chromium is, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window: playwright's `Browser`."""
    name = "playwright.sync_api"
    sync_api = pytest.importorskip(name, reason="playwright is not installed: uv sync")
    path = chromium_path()
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
def open_page(browser, page_problems) -> Iterator[Callable[..., Any]]:
    """A function that opens a page, and fails the test where that page had a problem.

    Its arguments:
        source: A file (`Path`), or an address or markup (`str`; markup begins with `<`).
        size: `wide` (1280 x 800), `narrow` (400 x 800), or width and height in pixels.
        scheme: `light` or `dark`, what the reader prefers.
        options: Further arguments of playwright's `Browser.new_context`, by name.
    """
    contexts = []

    def opened(
        source: Path | str,
        size: str | tuple[int, int] = "wide",
        scheme: str = "light",
        options: dict[str, Any] | None = None,
    ) -> Any:
        width, height = SIZES[size] if isinstance(size, str) else size
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, **(options or {})
        )
        contexts.append(context)
        page = context.new_page()
        _listen(page, page_problems)
        if isinstance(source, str) and source.lstrip().startswith("<"):
            page.set_content(source)
        else:
            page.goto(source.resolve().as_uri() if isinstance(source, Path) else source)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not page_problems, "\n".join(page_problems)


def _listen(page: Any, problems: list[str]) -> None:
    """Collect what the page complains of."""
    page.on("pageerror", lambda error: problems.append(f"error: {error}"))
    page.on("console", lambda said: _heard(said, problems))
    page.on("requestfailed", lambda request: problems.append(f"no answer: {request.url[:200]}"))


def _heard(said: Any, problems: list[str]) -> None:
    if said.type in ("error", "warning"):
        problems.append(f"{said.type}: {said.text}")
