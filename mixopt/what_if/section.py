"""The what-if as a part of a page: its markup, its style, its script and its data.

The page puts them where they belong; without scripts the part says what it would be. The script is
the files of `assets` in one scope, so that it shares no name with a page's own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from mixopt.errors import PluginError
from mixopt.what_if.fitted_law import kinds_of
from mixopt.what_if.packing import packed_json
from mixopt.what_if.scripts import VIEW, law_script, script, style

MOST_BYTES = 2_500_000  # of data; a page with more is slow to open and to send
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
        PluginError: The data takes more than `MOST_BYTES`.
        ValueError: A number of it is not finite.
    """
    packed, kinds = packed_json(dict(data)), set(kinds_of(data["law"]["model"]))
    if len(packed) > MOST_BYTES:
        raise PluginError(
            f"the what-if is left out: the fitted law ({', '.join(sorted(kinds))}) takes"
            f" {len(packed) / 1e6:.1f} MB, more than the {MOST_BYTES / 1e6:.1f} MB that a page may"
            " carry; regressor power has a small one"
        )
    body = (
        f'<div id="{ROOT}"><noscript><p>Sliders need JavaScript.</p></noscript></div>\n'
        f'<script type="application/json" id="{DATA}">{packed}</script>\n'
    )
    return WhatIfSection(body, style(), f"(() => {{\n{view_script(kinds)}{START}}})();\n")


def view_script(kinds: Collection[str] | None = None) -> str:
    """Return what defines `readWhatIf(text)` and `renderWhatIf(root, data, options)`.

    Args:
        kinds: Of laws that are to be read; None reads all.
    """
    return f'"use strict";\n{law_script(kinds)}\n{script(*VIEW)}'
