"""How large the decision page of a run is, and by what: data, figures, scripts, the rest.

    python experiments/checks/page_sizes.py RUN/report.html ...

Sizes are in kB of 1,000 bytes, as the file has them. The limits are 600 kB for 10 domains and 1,500
for 60.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

PARTS = {
    "what-if data": r'<script type="application/json" id="what-if-data">.*?</script>',
    "weights to copy": r'<script type="application/json" id="fragments">.*?</script>',
    "scripts": r"<script>.*?</script>",
    "style": r"<style>.*?</style>",
    "figures": r"<svg .*?</svg>",
    "tables": r"<table.*?</table>",
}


def main() -> None:
    """Print a table of all files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="+", type=Path)
    files = parser.parse_args().files
    columns = [part_sizes(file.read_text(encoding="utf-8")) for file in files]
    print("| kB | " + " | ".join(file.parent.parent.name for file in files) + " |")
    print("|---|" + "---|" * len(files))
    for name in columns[0]:
        print(f"| {name} | " + " | ".join(f"{found[name] / 1e3:.0f}" for found in columns) + " |")


def part_sizes(page: str) -> dict[str, int]:
    """Return the bytes of each part, of what is left, and of all."""
    whole, found = len(page.encode()), {}
    for name, pattern in PARTS.items():
        found[name] = sum(len(part.encode()) for part in re.findall(pattern, page, re.DOTALL))
        page = re.sub(pattern, "", page, flags=re.DOTALL)
    return found | {"the rest": len(page.encode()), "whole": whole}


if __name__ == "__main__":
    main()
