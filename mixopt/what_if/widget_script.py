"""The widget's JavaScript as one module, with its style inside: what anywidget calls `_esm`."""

from __future__ import annotations

import json

from mixopt.what_if.scripts import script, style
from mixopt.what_if.section import view_script

PARTS = ("proposal_form.js", "widget.js")


def widget_script() -> str:
    """Return a module whose default export has `render({model, el})`."""
    given = f"const WIDGET_STYLE = {json.dumps(widget_style())};\n"
    return f"{view_script()}\n{given}{script(*PARTS)}\nexport default {{ render: renderWidget }};\n"


def widget_style() -> str:
    """Return the style of the view for a cell, which may be narrow in a wide window."""
    narrow = style().replace("@media (max-width", "@container (max-width")
    return f"{narrow}\n{style('widget.css')}"
