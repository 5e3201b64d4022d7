"""The file of a schedule: YAML that people write too, read with line numbers.

    format: mixopt-schedule/1
    batch: 1024                 sequences of a step, over all ranks
    sequence_length: 4096       tokens predicted of a sequence
    max_epochs: 4               of a domain, over all stages
    inventory: {web: 80e9, ...} distinct tokens; or {file: inventory.yaml}
    stages:
    - name: main
      tokens: 900e9             or steps:
      mixture: {web: 0.6, ...}  or {file: recommendation.yaml}; the stage's before if left out
    - tokens: 100e9
      to: {file: anneal.yaml}   the mixture at its end, which is gone to linearly
    provenance: {...}           what mixopt made it from

A file is named relative to the schedule. The bare install reads it: numpy and a YAML reader.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NoReturn

import yaml

from mixopt.errors import MixtureError, SamplerError, did_you_mean
from mixopt.mixture import Mixture
from mixopt.system import (
    FieldPlace,
    dotted,
    parse_yaml,
    read_text,
    read_yaml,
    shown_value,
    write_text,
    yaml_places,
)

FORMAT = "mixopt-schedule/1"
STAGE_FIELDS = ("name", "tokens", "steps", "start", "mixture", "to")
_TOP = ("format", "batch", "sequence_length", "max_epochs", "inventory", "stages", "provenance")
_HEADER = (
    "# A schedule of mixtures: what to train on by stage; docs/schedules.md lists the fields.\n"
)


def write_schedule(content: Mapping[str, Any], path: Path) -> None:
    """Write the plain values of a schedule as YAML."""
    body = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    write_text(path, _HEADER + body)


def is_schedule(path: Path) -> bool:
    """Tell whether a YAML file is a schedule, valid or not, rather than a mixture."""
    content = read_yaml(path, error=SamplerError)
    if not isinstance(content, dict):
        return False
    return str(content.get("format", "")).startswith("mixopt-schedule") or isinstance(
        content.get("stages"), list
    )


class ScheduleFieldError(SamplerError):
    """What is wrong with a schedule, and where."""

    def __init__(self, place: FieldPlace, message: str) -> None:
        """Keep the place, whose line a reader of files knows."""
        super().__init__(f"schedule: {dotted(place)}: {message}")
        self.place, self.message = place, message


class ScheduleFields:
    """The fields of a schedule as somebody wrote them; knows where that was."""

    def __init__(
        self, content: object, where: str, folder: Path, lines: Mapping[FieldPlace, int]
    ) -> None:
        """Take plain values."""
        self._content, self._where, self._folder, self._lines = content, where, folder, lines

    @classmethod
    def of_file(cls, path: Path) -> ScheduleFields:
        """Read a file."""
        missing = SamplerError(f"{path}: not found")
        text = read_text(path, error=SamplerError, missing=lambda: missing)
        content = parse_yaml(text, str(path), error=SamplerError)
        return cls(content, str(path), path.parent, yaml_places(text, path, error=SamplerError))

    def mistake(self, place: FieldPlace, message: str) -> SamplerError:
        """Return the error for a field, with its line."""
        parents = (place[:n] for n in range(len(place), 0, -1))
        line = next((self._lines[one] for one in parents if one in self._lines), None)
        where = self._where if line is None else f"{self._where}:{line}"
        return SamplerError(
            f"{where}: {dotted(place)}: {message}" if place else f"{where}: {message}"
        )

    def values(self) -> dict[str, Any]:
        """Return what a Schedule is made of, each field checked by itself; stages as fields."""
        fields = self._mapping(self._content, (), _TOP)
        if fields.get("format", FORMAT) != FORMAT:
            self._refuse(("format",), f"{shown_value(fields['format'])} is not {FORMAT!r}")
        stages = fields.get("stages")
        if not isinstance(stages, list) or not stages:
            self._refuse(("stages",), "expected a list of stages, each with '- '")
        found: list[dict[str, Any]] = []
        for k, one in enumerate(stages):
            found.append(self._stage(one, ("stages", k), found[-1] if found else None))
        return {
            "stages": found,
            "batch": self._whole(fields, "batch", ()),
            "sequence_length": self._whole(fields, "sequence_length", ()),
            "max_epochs": self._maybe(self._number, fields, "max_epochs", ()),
            "inventory": self._inventory(fields.get("inventory"), found[0]["mixture"].domains),
            "provenance": self._mapping(fields.get("provenance", {}), ("provenance",), None),
        }

    def _stage(
        self, content: object, place: FieldPlace, before: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        fields = self._mapping(content, place, STAGE_FIELDS)
        mixture = self._mixture(fields.get("mixture"), (*place, "mixture"))
        if mixture is None:
            if before is None:
                self._refuse((*place, "mixture"), "is missing; the first stage has one")
            mixture = before["to"] or before["mixture"]
        if not isinstance(fields.get("name", ""), str):
            self._refuse((*place, "name"), f"{shown_value(fields['name'])} is not text")
        counts = {
            name: self._maybe(self._whole, fields, name, place)
            for name in ("tokens", "steps", "start")
        }
        to = self._mixture(fields.get("to"), (*place, "to"))
        return {"mixture": mixture, "to": to, "name": fields.get("name"), **counts}

    def _mixture(self, content: object, place: FieldPlace) -> Mixture | None:
        if content is None:
            return None
        fields = self._mapping(content, place, None)
        if len(fields) == 1 and isinstance(fields.get("file"), str):
            return self._from_file(fields["file"], (*place, "file"))
        shares = {name: self._number(fields, name, place) for name in fields}
        try:
            return Mixture(shares)
        except MixtureError as error:
            self._refuse(place, str(error).partition(", or pass")[0])

    def _from_file(self, name: str, place: FieldPlace) -> Mixture:
        try:
            return Mixture.from_file(self._folder / name)
        except MixtureError as error:
            self._refuse(place, str(error))

    def _inventory(self, content: object, domains: Collection[str]) -> dict[str, int] | None:
        """Return sizes of the domains; a file may have more of them."""
        if content is None:
            return None
        place: FieldPlace = ("inventory",)
        fields = self._mapping(content, place, None)
        if len(fields) == 1 and isinstance(fields.get("file"), str):
            sizes = read_yaml(self._folder / fields["file"], error=SamplerError)
            place = (*place, "file")
            whole = self._mapping(sizes, place, None)
            fields = {name: size for name, size in whole.items() if name in domains}
        return {name: self._whole(fields, name, place) for name in fields}

    def _mapping(
        self, content: object, place: FieldPlace, known: Collection[str] | None
    ) -> dict[str, Any]:
        if not isinstance(content, dict):
            self._refuse(place, f"expected fields, got {shown_value(content)}")
        for name in content:
            if not isinstance(name, str):
                self._refuse(place, f"{shown_value(name)} is not a name; put it in quotes")
            if known is not None and name not in known:
                self._refuse((*place, name), f"unknown field{did_you_mean(name, known)}")
        return content

    def _maybe(self, take: Any, fields: Mapping[str, Any], name: str, place: FieldPlace) -> Any:
        return None if fields.get(name) is None else take(fields, name, place)

    def _number(self, fields: Mapping[str, Any], name: str, place: FieldPlace) -> float:
        """Return a number, also one like `1e12`, which YAML takes for text."""
        if name not in fields:
            self._refuse((*place, name), "is missing")
        value = fields[name]
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not 0 <= number < math.inf:
            self._refuse((*place, name), f"{shown_value(value)} is not a number >= 0")
        return number

    def _whole(self, fields: Mapping[str, Any], name: str, place: FieldPlace) -> int:
        number = self._number(fields, name, place)
        if not number.is_integer():
            self._refuse((*place, name), f"{shown_value(fields[name])} is not a whole number")
        value = fields[name]
        return value if isinstance(value, int) else int(number)

    def _refuse(self, place: FieldPlace, message: str) -> NoReturn:
        raise self.mistake(place, message)
