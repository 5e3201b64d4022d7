"""The promises of an exporter: a fragment of a trainer's configuration, or a one-line error."""

import ast
import json
from collections.abc import Callable
from typing import Any

import yaml

from mixopt.errors import ConfigError
from mixopt.integrations import ExportTool, export_mixture, export_schedule, exporter
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
READERS: dict[str, Callable[[str], Any]] = {
    ".yaml": yaml.safe_load,
    ".json": json.loads,
    ".py": ast.parse,
}

promise = Promises("an exporter")


def check_exporter(tool: str) -> None:
    """Check that an exporter keeps its promises.

    Args:
        tool: Name, or `package.module:NAME` of an `ExportTool`, as for `mixopt export --to`.

    Raises:
        AssertionError: A promise is broken; the message names it and the observed behaviour.
    """
    about = exporter(tool)
    for field in ("name", "title", "version", "place", "command"):
        value = getattr(about, field)
        promise(isinstance(value, str) and value.strip(), f"{field} is text", repr(value))
    promise(about.suffix in READERS, f"suffix is one of {', '.join(READERS)}", about.suffix)
    for check in (_check_text, _check_needs, _check_odd_names, _check_schedule):
        check(tool, about)


def _export(
    tool: str, about: ExportTool, claim: str, mixture: Mixture = MIXTURE, **changes: Any
) -> tuple[str, str]:
    """Return a valid fragment, or the one line of a refusal; the other is empty."""
    text = error_text = ""
    with promise.works(claim):
        try:
            text = export_mixture(mixture, tool, **{**KNOWN, **changes})
            READERS[about.suffix](text)
        except ConfigError as error:
            error_text = str(error)
    promise("\n" not in error_text, claim, error_text)
    return text, error_text


def _check_text(tool: str, about: ExportTool) -> None:
    def written(claim: str, mixture: Mixture = MIXTURE, **changes: Any) -> str:
        text, error_text = _export(tool, about, claim, mixture, **changes)
        promise(text, claim, error_text)
        return text

    text = written(f"a mixture is written if all facts are known, as valid {about.suffix}")
    for part in (*MIXTURE, about.title, about.version, about.unit.meaning):
        claim = "each domain with a share is in the fragment; tool, version and unit in the header"
        promise(part in text, claim, f"no {part!r}")
    claim = "another mixture gives another fragment"
    promise(written(claim, Mixture({"web": 0.1, "code": 0.3, "books": 0.6})) != text, claim)
    claim = "a domain of weight 0 is written if takes_zero, else listed in the header"
    zero = written(claim, Mixture({**MIXTURE, "none": 0.0}))
    is_listed = 'weight 0, left out: ["none"]' in zero.replace('\\"', '"')
    promise(is_listed != about.takes_zero, claim, "it is not")
    claim = "the fragment has all paths, including several of one domain"
    first, second, other = "/data/w0.jsonl", "/data/w1.jsonl", "/data/c.jsonl"
    text = written(claim, paths={"web": [first, second], "code": other})
    for path in (first, second, other):
        promise(path in text, claim, f"no {path!r}")


def _check_needs(tool: str, about: ExportTool) -> None:
    for name in KNOWN:
        option = f"--{name.replace('_', '-')}"
        is_needed = option in about.unit.needs
        claim = f"{option} is optional, since unit.needs does not name it"
        if is_needed:
            claim = f"without {option}, which unit.needs names, a one-line error names it"
        text, error_text = _export(tool, about, claim, MIXTURE, **{name: None})
        promise(option in error_text if is_needed else text, claim, error_text)


def _check_odd_names(tool: str, about: ExportTool) -> None:
    for name in ODD:
        claim = f"a name is written, or refused in one line that contains it: {name!r}"
        facts: dict[str, Any] = {"inventory": {name: 500, "b": 500}, "sample_tokens": 10}
        mixture = Mixture({name: 0.75, "b": 0.25})
        text, error_text = _export(tool, about, claim, mixture, **facts)
        promise(text or repr(name) in error_text, claim, error_text)


def _check_schedule(tool: str, about: ExportTool) -> None:
    last = Stage(Mixture.uniform(list(MIXTURE)), steps=64)
    stages = (Stage(MIXTURE, steps=64, name="main"), last)
    schedule = Schedule(stages, batch=64, sequence_length=8)
    facts = {name: value for name, value in KNOWN.items() if name != "tokens"}
    with promise.works("a schedule of constant stages is written"):
        texts = export_schedule(schedule, tool, **facts)
        for text in texts.values():
            READERS[about.suffix](text)
    files = ["0-main", "1-1"] if about.write_stages is None else [""]
    promise.same(list(texts), files, "a schedule gives a file per stage, or one with write_stages")
