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
    for check in (_check_text, _check_paths, _check_needs, _check_odd_names, _check_schedule):
        check(tool, about)


def _export(tool: str, mixture: Mixture = MIXTURE, **changes: Any) -> str:
    return export_mixture(mixture, tool, **{**KNOWN, **changes})


def _check_text(tool: str, about: ExportTool) -> None:
    with promise.works("a mixture is written if all facts are known"):
        text = _export(tool)
    with promise.works(f"the fragment is valid {about.suffix}"):
        READERS[about.suffix](text)
    for name in MIXTURE:
        promise(name in text, "each domain with a share is in the fragment", f"no {name!r}")
    for line in (about.title, about.version, about.unit.meaning):
        promise(line in text, "the header has tool, version and unit", f"no {line!r}")
    other_text = _export(tool, Mixture({"web": 0.1, "code": 0.3, "books": 0.6}))
    promise(other_text != text, "another mixture gives another fragment", "it is the same")
    zero = _export(tool, Mixture({**MIXTURE, "none": 0.0}))
    is_listed = 'weight 0, left out: ["none"]' in zero.replace('\\"', '"')
    claim = "a domain of weight 0 is written if takes_zero, else listed in the header"
    promise(is_listed != about.takes_zero, claim, "it is not")


def _check_paths(tool: str, about: ExportTool) -> None:
    paths = {"web": ["/data/w0.jsonl", "/data/w1.jsonl"], "code": "/data/c.jsonl"}
    claim = "the fragment has all paths, including several of one domain"
    with promise.works(claim):
        text = _export(tool, paths=paths)
    for path in (*paths["web"], paths["code"]):
        promise(str(path) in text, claim, f"no {path!r}")


def _check_needs(tool: str, about: ExportTool) -> None:
    for name in KNOWN:
        option = f"--{name.replace('_', '-')}"
        if option not in about.unit.needs:
            with promise.works(f"{option} is optional, since unit.needs does not name it"):
                _export(tool, MIXTURE, **{name: None})
            continue
        claim = f"without {option}, which unit.needs names, a one-line error names it"
        error_text = _refusal(tool, claim, MIXTURE, **{name: None})
        promise(error_text is not None and option in error_text, claim, error_text)


def _check_odd_names(tool: str, about: ExportTool) -> None:
    claim = "a name is written, or refused in one line that contains it"
    for name in ODD:
        mixture = Mixture({name: 0.75, "b": 0.25})
        options: dict[str, Any] = {"inventory": {name: 500, "b": 500}, "sample_tokens": 10}
        error_text = _refusal(tool, claim, mixture, **options)
        if error_text is not None:
            promise(repr(name) in error_text, claim, error_text)
            continue
        with promise.works(f"{claim} (of {name!r})"):
            READERS[about.suffix](_export(tool, mixture, **options))


def _refusal(tool: str, promised: str, mixture: Mixture, **changes: Any) -> str | None:
    """Return the error of a refused export; None: it is written."""
    error_text = None
    with promise.works(promised):
        try:
            _export(tool, mixture, **changes)
        except ConfigError as error:
            error_text = str(error)
    promise("\n" not in (error_text or ""), promised, error_text)
    return error_text


def _check_schedule(tool: str, about: ExportTool) -> None:
    stages = (
        Stage(MIXTURE, steps=64, name="main"),
        Stage(Mixture.uniform(list(MIXTURE)), steps=64),
    )
    schedule = Schedule(stages, batch=64, sequence_length=8)
    options = {name: value for name, value in KNOWN.items() if name != "tokens"}
    with promise.works("a schedule of constant stages is written"):
        texts = export_schedule(schedule, tool, **options)
        for text in texts.values():
            READERS[about.suffix](text)
    files = ["0-main", "1-1"] if about.write_stages is None else [""]
    promise.same(list(texts), files, "a schedule gives a file per stage, or one with write_stages")
