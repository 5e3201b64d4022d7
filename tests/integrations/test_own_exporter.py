"""A plug-in exporter is found by its entry point and checked for conformance."""

import sys
from dataclasses import replace
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest
from command_line import mixopt
from refusals import refuses

from mixopt import ConfigError, Mixture
from mixopt.errors import PluginError
from mixopt.integrations import EXPORT_TOOLS, SEQUENCES, ExportTool, export_mixture, exporter_names
from mixopt.system import plugins
from mixopt.testing import check_exporter

MIXTURE = Mixture({"web": 0.75, "code": 0.25})
TOOL = ExportTool(
    name="ours",
    title="Our trainer",
    version="1.0",
    unit=SEQUENCES,
    place="YAML, `mix`",
    command="train --mix FILE",
    write=lambda entries, facts: {"mix": {e.domain: [e.amount, *e.paths] for e in entries}},
)


@pytest.fixture
def installed(monkeypatch):
    """Install an exporter as a package's entry point."""

    def install(tool):
        module = ModuleType("our_package")
        module.TOOL = tool
        monkeypatch.setitem(sys.modules, "our_package", module)
        entry = EntryPoint("ours", "our_package:TOOL", "mixopt.exporters")
        monkeypatch.setattr(plugins, "_entries", lambda kind: (entry,) * (kind == "exporter"))

    return install


def test_an_exporter_is_found_by_its_entry_point_and_by_its_path(installed, tmp_path):
    installed(TOOL)
    assert exporter_names() == [*EXPORT_TOOLS, "ours"]
    text = export_mixture(MIXTURE, "ours")
    assert "# Mixture for Our trainer (checked with 1.0): YAML, `mix`." in text
    assert export_mixture(MIXTURE, "our_package:TOOL") == text
    MIXTURE.to_file(tmp_path / "mixture.yaml")
    assert mixopt("export", tmp_path / "mixture.yaml", "--to", "ours").out.strip() == text.strip()
    assert "ours" in mixopt("export", "--list").out
    refuses(ConfigError, "unknown tool 'our'; did you mean 'ours'", export_mixture, MIXTURE, "our")
    check_exporter(TOOL)


@pytest.mark.parametrize(
    ("tool", "message"),
    [({"write": 1}, "has no 'write'"), (sys.stdout, "is a .*, not an ExportTool")],
)
def test_what_is_not_an_exporter_is_refused(installed, tool, message):
    installed(tool)
    refuses(PluginError, f"exporter 'ours': {message}", export_mixture, MIXTURE, "ours")


def crashes(entries, facts):
    return {e.domain: {}[e.domain] for e in entries}


def nothing(entries, facts):
    return {"mix": "?"}


def no_amounts(entries, facts):
    return {e.domain: list(e.paths) for e in entries}


def no_paths(entries, facts):
    return {e.domain: e.amount for e in entries}


def counts(entries, facts):
    return {"mix": [[e.domain, *e.paths, facts.length() * e.amount] for e in entries]}


def unquoted(entries, facts):
    return "\n".join(f"mix['{e.domain}'] = {e.amount}, {list(e.paths)}" for e in entries)


def crashes_on_stages(stages, facts, batch):
    return {stage.nothing for stage in stages}


def without_zeros(entries, facts):
    return TOOL.write([e for e in entries if e.amount], facts)


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({"suffix": ".ini"}, "suffix is one of .yaml, .json, .py"),
        ({"takes_zero": True, "write": without_zeros}, "a domain of weight 0 is written if"),
        ({"unit": replace(SEQUENCES, needs=("--tokens",))}, "without --tokens, which unit.needs"),
        ({"write_stages": crashes_on_stages}, "a schedule of constant stages is written"),
        ({"write": crashes}, "a mixture is written if all facts are known"),
        ({"write": nothing}, "each domain with a share is in"),
        ({"write": no_amounts}, "another mixture gives another fragment"),
        ({"write": no_paths}, "the fragment has all paths"),
        ({"title": ""}, "title is text"),
        ({"write": counts}, "--tokens is optional, since unit.needs does not name it"),
        ({"suffix": ".py", "write": unquoted}, "a name is written, or refused in one line"),
    ],
)
def test_a_promise_that_is_broken_is_named(changes, broken):
    with pytest.raises(AssertionError, match=r"an exporter promises: .*") as caught:
        check_exporter(replace(TOOL, **changes))
    assert broken in str(caught.value)
