"""The commands and the example of docs/export.md run as they are written."""

from __future__ import annotations

import re

from doc_pages import page_text, work_through

from mixopt.integrations import EXPORT_TOOLS


def test_the_page_works_from_its_first_block_to_its_last(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mixture.yaml").write_text("weights: {web: 0.6, code: 0.3, books: 0.1}")
    assert "web#" in str(work_through("export")["text"])


def test_the_page_has_a_row_and_a_command_for_every_tool_with_its_needs():
    page = page_text("export")
    rows = dict(re.findall(r"^\| `([a-z][\w-]*)` \|(.*)", page.partition("## Commands")[0], re.M))
    assert list(rows) == list(EXPORT_TOOLS)
    for name, tool in EXPORT_TOOLS.items():
        needs = re.findall(r"`(--(?:tokens|inventory|sample-tokens))`", rows[name].split("|")[2])
        assert tuple(needs) == tool.unit.needs
        assert re.search(rf"^mixopt export mixture.yaml --to {name}( |$)", page, re.M)
