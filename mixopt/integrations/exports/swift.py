"""ms-swift: YAML with `dataset: [path#count, ...]`.

`#count` takes so many rows: without replacement as long as there are as many, else all of them as
often as needed and a sample of the rest. A path is read as `hub::path:subset#count`.
"""

from __future__ import annotations

from collections.abc import Sequence

from mixopt.errors import ConfigError, MixtureError
from mixopt.integrations.exports.blend import check_stripped
from mixopt.integrations.exports.export_tool import Entry, ExportTool, Weighed
from mixopt.integrations.exports.facts import Facts
from mixopt.integrations.exports.units import Counts
from mixopt.integrations.exports.yaml_fragment import (
    missing,
    plain_list,
    read_mapping,
    yaml_fragment,
)


def _write(entries: Sequence[Entry], header: Sequence[str], facts: Facts) -> str:
    for entry in entries:
        check_stripped(entry, facts)
        _check_syntax(entry, facts.tool)
    counts = [f"{entry.paths[0]}#{max(1, round(entry.amount))}" for entry in entries]
    return yaml_fragment(header, {"dataset": counts})


def _check_syntax(entry: Entry, where: str) -> None:
    """Check that a path is read as one; a subset or a hub in it is meant where it is given."""
    path = entry.paths[0]
    hub, _, rest = path.partition("::")
    if (entry.named and ":" in path) or (rest and hub.lower() not in {"hf", "ms"}):
        raise ConfigError(
            f"{where}: reads a part of {path!r} of domain {entry.domain!r} as a hub or a subset,"
            " by its ':'; give another path with --paths"
        )
    if path.startswith("-"):
        raise ConfigError(
            f"{where}: takes {path!r} of domain {entry.domain!r} for an option; give another path"
            " with --paths, such as ./..."
        )


def _read(text: str, facts: Facts) -> list[Weighed]:
    datasets = plain_list(read_mapping(text, facts.tool).get("dataset"))
    if not datasets:
        raise missing(facts.tool, "dataset: [path#count, ...]")
    return [_weighed(str(one), facts.tool) for one in datasets]


def _weighed(text: str, where: str) -> Weighed:
    name, mark, count = text.rpartition("#")
    if not mark:
        return Weighed((text.strip(),), 0.0, passes=1.0)
    if not count.isdecimal():
        raise MixtureError(f"{where}: {text[:80]!r}: {count[:20]!r} is not a number of rows")
    return Weighed((name.strip(),), float(count))


SWIFT = ExportTool(
    name="swift",
    title="ms-swift",
    version="4.6.0",
    unit=Counts(),
    place="YAML, `dataset: [path#count, ...]`",
    command="swift pt FILE --model ... (or swift sft), for one epoch",
    write=_write,
    read=_read,
    single_path=True,
)
