"""The promises of an exporter: a fragment of a trainer's configuration, or a one-line error."""

import ast
import json
from collections.abc import Callable
from typing import Any

import yaml

from mixopt.errors import ConfigError
from mixopt.integrations import ExportTool, export_mixture, export_schedule
from mixopt.mixture import Mixture
from mixopt.sampling import Schedule, Stage
from mixopt.testing._promises import Promises

MIXTURE = Mixture({"web": 0.6, "code": 0.3, "books": 0.1})
KNOWN: dict[str, Any] = {
    "inventory": {"web": 1200, "code": 400, "books": 25, "none": 10},
    "sample_tokens": {"web": 10, "code": 20, "books": 5, "none": 1},
    "tokens": 1000,
}
ODD = ("it's", 'say "hi"', "x # y", "dm: maths", "null", "{a}", "a,b", " a", "-a", "${HOME}")
WEB_PATHS = ("/data/w0.jsonl", "/data/w1.jsonl")
CODE_PATH = "/data/c.jsonl"
READERS: dict[str, Callable[[str], Any]] = {
    ".yaml": yaml.safe_load,
    ".json": json.loads,
    ".py": ast.parse,
}

promise = Promises("an exporter")


def check_exporter(tool: ExportTool) -> None:
    """Check that an exporter keeps its promises.

    Args:
        tool: The exporter.

    Raises:
        AssertionError: A promise is broken; the message names it and the observed behaviour.
    """
    for field in ("name", "title", "version", "place", "command"):
        value = getattr(tool, field)
        promise(isinstance(value, str) and value.strip(), f"{field} is text", repr(value))
    promise(tool.suffix in READERS, f"suffix is one of {', '.join(READERS)}", tool.suffix)
    _check_text(tool)
    _check_needs(tool)
    _check_odd_names(tool)
    _check_schedule(tool)


def _export(
    tool: ExportTool, claim: str, mixture: Mixture = MIXTURE, **changes: Any
) -> tuple[str, str]:
    """Return a valid fragment, or the one line of a refusal; the other is empty."""
    text = ""
    error_text = ""
    with promise.works(claim):
        try:
            text = export_mixture(mixture, tool, **{**KNOWN, **changes})
            READERS[tool.suffix](text)
        except ConfigError as error:
            error_text = str(error)
    promise("\n" not in error_text, claim, error_text)
    return text, error_text


def _check_text(tool: ExportTool) -> None:
    def written(claim: str, mixture: Mixture = MIXTURE, **changes: Any) -> str:
        text, error_text = _export(tool, claim, mixture, **changes)
        promise(text, claim, error_text)
        return text

    text = written(f"a mixture is written if all facts are known, as valid {tool.suffix}")
    for part in (*MIXTURE, tool.title, tool.version, tool.unit.meaning):
        claim = "each domain with a share is in the fragment; tool, version and unit in the header"
        promise(part in text, claim, f"no {part!r}")
    claim = "another mixture gives another fragment"
    promise(written(claim, Mixture({"web": 0.1, "code": 0.3, "books": 0.6})) != text, claim)
    claim = "a domain of weight 0 is written if takes_zero, else listed in the header"
    zero = written(claim, Mixture({**MIXTURE, "none": 0.0}))
    is_listed = 'weight 0, left out: ["none"]' in zero.replace('\\"', '"')
    promise("none" in zero and is_listed != tool.takes_zero, claim, "it is not")
    claim = "the fragment has all paths, including several of one domain"
    text = written(claim, paths={"web": list(WEB_PATHS), "code": CODE_PATH})
    for path in (*WEB_PATHS, CODE_PATH):
        promise(path in text, claim, f"no {path!r}")


def _check_needs(tool: ExportTool) -> None:
    for name in KNOWN:
        option = f"--{name.replace('_', '-')}"
        is_needed = option in tool.unit.needs
        if is_needed:
            claim = f"without {option}, which unit.needs names, a one-line error names it"
            _, error_text = _export(tool, claim, MIXTURE, **{name: None})
            promise(option in error_text, claim, error_text)
        else:
            claim = f"{option} is optional, since unit.needs does not name it"
            text, error_text = _export(tool, claim, MIXTURE, **{name: None})
            promise(text, claim, error_text)


def _check_odd_names(tool: ExportTool) -> None:
    for name in ODD:
        claim = f"a name is written, or refused in one line that contains it: {name!r}"
        facts: dict[str, Any] = {"inventory": {name: 500, "b": 500}, "sample_tokens": 10}
        mixture = Mixture({name: 0.75, "b": 0.25})
        text, error_text = _export(tool, claim, mixture, **facts)
        promise(text or repr(name) in error_text, claim, error_text)


def _check_schedule(tool: ExportTool) -> None:
    last = Stage(Mixture.uniform(list(MIXTURE)), steps=64)
    stages = (Stage(MIXTURE, steps=64, name="main"), last)
    schedule = Schedule(stages, batch=64, sequence_length=8)
    facts = {name: value for name, value in KNOWN.items() if name != "tokens"}
    with promise.works("a schedule of constant stages is written"):
        texts = export_schedule(schedule, tool, **facts)
        for text in texts.values():
            READERS[tool.suffix](text)
    files = [""]
    if tool.write_stages is None:
        files = ["0-main", "1-1"]
    promise.same(list(texts), files, "a schedule gives a file per stage, or one with write_stages")
