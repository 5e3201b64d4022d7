"""The what-if as a part of a page: its markup, its style, its script and its data.

The page puts them where they belong; without scripts the part says what it would be. The script is
the files of `assets` in one scope, so that it shares no name with a page's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mixopt.what_if.packing import packed_json
from mixopt.what_if.scripts import VIEW, law_script, script, style

ROOT, DATA = "what-if-view", "what-if-data"
START = f"""
const text = document.getElementById("{DATA}").textContent;
renderWhatIf(document.getElementById("{ROOT}"), readWhatIf(text), {{ useHash: true }});
"""


@dataclass(frozen=True)
class WhatIfSection:
    """What a page needs for the what-if.

    Attributes:
        body: Markup, with the data inside as JSON that no name can end.
        style: Rules that use the page's colours (`--paper`, `--ink`, `--accent` and so on).
        script: What runs once the markup is there.
    """

    body: str
    style: str
    script: str


def what_if_section(data: Mapping[str, Any]) -> WhatIfSection:
    """Return the what-if of a run.

    Args:
        data: What `what_if_data` gives.

    Raises:
        ValueError: A number of it is not finite.
    """
    body = (
        f'<div id="{ROOT}"><noscript><p>Sliders need JavaScript.</p></noscript></div>\n'
        f'<script type="application/json" id="{DATA}">{packed_json(dict(data))}</script>\n'
    )
    return WhatIfSection(body, style(), f"(() => {{\n{view_script()}{START}}})();\n")


def view_script() -> str:
    """Return what defines `readWhatIf(text)` and `renderWhatIf(root, data, options)`."""
    return f'"use strict";\n{law_script()}\n{script(*VIEW)}'
