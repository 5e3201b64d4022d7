"""LLaMA-Factory: YAML with `dataset`, `mix_strategy` and `interleave_probs`.

They are given to `interleave_datasets`, so that a probability is of drawing a row. Names stand
between commas and lose the spaces around them. Which file a name is of stands in dataset_info.json,
whose lines are in the header.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from mixopt.errors import ConfigError, MixtureError
from mixopt.integrations.exports.blend import check_no_interpolation
from mixopt.integrations.exports.export_tool import Entry, ExportTool, Weighed
from mixopt.integrations.exports.facts import Facts
from mixopt.integrations.exports.units import Samples
from mixopt.integrations.exports.yaml_fragment import (
    missing,
    plain_list,
    read_mapping,
    yaml_fragment,
)


def _write(entries: Sequence[Entry], header: Sequence[str], facts: Facts) -> str:
    check_no_interpolation(entries, facts)
    for entry in entries:
        _check_name(entry.label, facts.tool)
    content = {
        "dataset": ",".join(entry.label for entry in entries),
        "mix_strategy": "interleave_over",
        "interleave_probs": ",".join(repr(entry.amount) for entry in entries),
    }
    return yaml_fragment([*header, *_registry(entries)], content)


def _registry(entries: Sequence[Entry]) -> list[str]:
    """Return dataset_info.json for domains that have a path."""
    known = [entry for entry in entries if not entry.named]
    if not known:
        return []
    lines = [
        f" {json.dumps(entry.label)}:"
        f" {json.dumps({'file_name': entry.paths[0], 'columns': {'prompt': 'text'}})}"
        for entry in known
    ]
    return ["dataset_info.json of dataset_dir:", "{", *",\n".join(lines).split("\n"), "}"]


def _check_name(name: str, where: str) -> None:
    if "," in name or name != name.strip():
        raise ConfigError(
            f"{where}: domain {name!r}: names stand between commas there, and lose the spaces"
            " around them; rename the domain"
        )


def _read(text: str, facts: Facts) -> list[Weighed]:
    content = read_mapping(text, facts.tool)
    names = _parts(content.get("dataset"))
    if not names or content.get("interleave_probs") is None:
        raise missing(facts.tool, "dataset with interleave_probs")
    chances = _parts(content["interleave_probs"])
    if len(names) != len(chances):
        raise MixtureError(f"{facts.tool}: {len(chances)} interleave_probs for {len(names)} names")
    return [
        Weighed((name,), _chance(chance, facts.tool))
        for name, chance in zip(names, chances, strict=True)
    ]


def _parts(value: object) -> list[str]:
    parts = value.split(",") if isinstance(value, str) else plain_list(value)
    return [str(part).strip() for part in parts]


def _chance(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise MixtureError(f"{where}: interleave_probs: {text[:80]!r} is not a number") from None


LLAMAFACTORY = ExportTool(
    name="llamafactory",
    title="LLaMA-Factory",
    version="0.9.5",
    unit=Samples(),
    place="YAML, `interleave_probs`",
    command="llamafactory-cli train FILE, with model and training in the same file",
    write=_write,
    read=_read,
    single_path=True,
)
