"""The weights of the answer in each exporter's format, kept in the page for its buttons."""

from __future__ import annotations

from html import escape

import yaml

from mixopt.errors import ConfigError
from mixopt.exports import EXPORT_TOOLS, export_mixture
from mixopt.mixture import Mixture
from mixopt.reporting.page_frame import data_block
from mixopt.run_directory import Run

PLAIN = "yaml"  # the weights as mixopt reads them


def copy_panel(run: Run, mixture: Mixture) -> str:
    """Return the panel of buttons, and the texts that they copy."""
    fragments = weight_fragments(run, mixture)
    titles = {PLAIN: "YAML", **{name: tool.title for name, tool in EXPORT_TOOLS.items()}}
    buttons = "".join(
        f'<li><button type="button" data-copy="{name}"{_state(fragments[name])}>'
        f"{escape(title)}</button></li>"
        for name, title in titles.items()
    )
    return (
        '<div class="panel copy" hidden><h2 id="copy-title">Copy the weights for</h2>'
        f'<ul class="chips" aria-labelledby="copy-title">{buttons}</ul>'
        '<p id="copied" role="status" aria-live="polite"></p>'
        '<pre id="copied-text" tabindex="0" aria-label="The copied text" hidden></pre>'
        f"{data_block('fragments', fragments)}</div>\n"
    )


def weight_fragments(run: Run, mixture: Mixture) -> dict[str, dict[str, str]]:
    """Return the text for each tool, as `mixopt export` writes it, or why there is none.

    Args:
        run: It knows the sizes of the domains, and the length of the full run.
        mixture: The weights.
    """
    weights = yaml.safe_dump({"weights": dict(mixture)}, sort_keys=False, allow_unicode=True)
    found = {PLAIN: {"text": weights}}
    for tool in EXPORT_TOOLS:
        try:
            text = export_mixture(
                mixture,
                tool,
                inventory=run.inventory,
                tokens=run.config.propose.target_tokens,
                sample_tokens=run.corpus.sample_tokens,
            )
            found[tool] = {"text": text}
        except ConfigError as error:
            found[tool] = {"why": str(error)}
    return found


def _state(fragment: dict[str, str]) -> str:
    return ' aria-disabled="true"' if "why" in fragment else ""
