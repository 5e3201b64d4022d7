"""Take the pictures of a run's page that README.md and docs/ show, in Debian's Chromium.

    python experiments/checks/page_pictures.py runs/quickstart

writes docs/images/report.png and docs/images/report_dark.png: the first screen of the page at
1280 x 800, light and dark, with few enough colours to stay below 200 KB.
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path

IMAGES = Path(__file__).parents[2] / "docs" / "images"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
MOST_BYTES = 200_000


def main() -> None:
    """Take both pictures of the run that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="a run directory with a report.html")
    parser.add_argument("--out", type=Path, default=IMAGES, help="where the pictures go")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for name, scheme in (("report.png", "light"), ("report_dark.png", "dark")):
        size = take(given.run / "report.html", given.out / name, scheme)
        print(f"{given.out / name}: {size:,} bytes")


def take(page: Path, out: Path, scheme: str) -> int:
    """Take one picture.

    Args:
        page: A page of HTML.
        out: The PNG to write.
        scheme: `light` or `dark`.

    Returns:
        Its size in bytes.

    Raises:
        SystemExit: There is no Chromium, or the picture is larger than a repository should carry.
    """
    from PIL import Image
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("no Chromium: sh experiments/checks/install_chromium.sh")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        context = browser.new_context(
            viewport={"width": 1280, "height": 800}, color_scheme=scheme, reduced_motion="reduce"
        )
        view = context.new_page()
        view.goto(page.resolve().as_uri())
        shot = view.screenshot()
        browser.close()
    with Image.open(io.BytesIO(shot)) as picture:
        picture.convert("RGB").quantize(128).save(out, optimize=True)
    size = out.stat().st_size
    if size > MOST_BYTES:
        raise SystemExit(f"{out}: {size:,} bytes; at most {MOST_BYTES:,}")
    return size


if __name__ == "__main__":
    main()
