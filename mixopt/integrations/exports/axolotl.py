"""axolotl: YAML with `datasets`, whose entries are concatenated.

Released versions have no weights. A domain that is seen several times is listed as often, and the
rest is a slice of its first rows (`split: train[:N]`). Read as well: slices in per cent and
`shards`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from mixopt.errors import ConfigError, MixtureError
from mixopt.integrations.exports.export_tool import Entry, ExportTool, Weighed
from mixopt.integrations.exports.facts import Facts
from mixopt.integrations.exports.units import RowSlices
from mixopt.integrations.exports.yaml_fragment import (
    missing,
    names_of,
    part,
    plain_list,
    read_mapping,
    yaml_fragment,
)

_MOST_PASSES = 1000
_SPLIT = re.compile(r"\w+(?:\[(?P<start>\d+)?(?P<low>%)?:(?P<stop>\d+)?(?P<high>%)?\])?")


def _write(entries: Sequence[Entry], header: Sequence[str], facts: Facts) -> str:
    return yaml_fragment(header, {"datasets": [one for e in entries for one in _listed(e, facts)]})


def _listed(entry: Entry, facts: Facts) -> Iterator[dict[str, Any]]:
    """Yield a domain as often as all of it is seen, and the rest of it as a slice."""
    pieces = len(facts.places(entry.domain))
    rows = int(AXOLOTL.unit.whole(entry.domain, facts, pieces))
    passes, rest = divmod(max(1, round(entry.amount)), rows)
    if passes > _MOST_PASSES:
        raise ConfigError(
            f"{facts.tool}: domain {entry.domain!r} would be listed {passes} times, once a pass; at"
            f" most {_MOST_PASSES} are written. Are its {facts.size(entry.domain):g} tokens right?"
        )
    for _ in range(passes):
        yield {"path": entry.paths[0], "type": "completion", "split": "train"}
    if rest:
        yield {"path": entry.paths[0], "type": "completion", "split": f"train[:{rest}]"}


def _read(text: str, facts: Facts) -> list[Weighed]:
    listed = plain_list(read_mapping(text, facts.tool).get("datasets"))
    if not listed:
        raise missing(facts.tool, "datasets with path and split")
    return _merged([_weighed(one, facts.tool) for one in listed])


def _merged(listed: list[Weighed]) -> list[Weighed]:
    """Return one entry for each path, with its passes and rows added up."""
    found: dict[tuple[str, ...], Weighed] = {}
    for one in listed:
        had = found.get(one.names, Weighed(one.names, 0.0))
        found[one.names] = Weighed(one.names, had.amount + one.amount, had.passes + one.passes)
    return list(found.values())


def _weighed(one: Any, where: str) -> Weighed:
    files = part(one, "data_files")
    names = names_of(files if files is not None else part(one, "path"), where)
    shards = part(one, "shards")
    if shards is not None:
        return Weighed(names, 0.0, passes=1.0 / _whole(shards, where))
    split = part(one, "split")
    return Weighed(names, *_slice("train" if split is None else str(split), where))


def _slice(split: str, where: str) -> tuple[float, float]:
    """Return the rows and the passes of a split such as `train`, `train[:99]`, `train[10%:30%]`."""
    found = _SPLIT.fullmatch(split.strip())
    if found is None:
        raise MixtureError(f"{where}: split {split[:80]!r} cannot be read")
    start, stop = found["start"], found["stop"]
    per_cent = {sign for end, sign in ((start, "low"), (stop, "high")) if end and found[sign]}
    given = {sign for end, sign in ((start, "low"), (stop, "high")) if end}
    if not given:
        return 0.0, 1.0
    if per_cent == given:
        return 0.0, max(0, int(stop or 100) - int(start or 0)) / 100
    if per_cent or stop is None:
        raise MixtureError(f"{where}: split {split[:80]!r}: its number of rows is not stated")
    return float(max(0, int(stop) - int(start or 0))), 0.0


def _whole(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise MixtureError(f"{where}: shards: {value!r} is not a whole number above 0")
    return value


AXOLOTL = ExportTool(
    name="axolotl",
    title="axolotl",
    version="0.19.0",
    unit=RowSlices(),
    place="YAML, `datasets`, an entry for each pass and `split` for the rest",
    command="axolotl train FILE, with num_epochs: 1",
    write=_write,
    read=_read,
    single_path=True,
    notes=("A slice is of the first rows: shuffle a file whose order means something before.",),
)
