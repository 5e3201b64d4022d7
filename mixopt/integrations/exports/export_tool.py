"""An exporter: a tool, its unit, and functions from entries to text and back.

A fragment is a piece of a tool's configuration as the tool reads it. Its header says tool, version,
unit, command and notes. Domains of weight 0 that a tool cannot have are listed there as JSON, so
that the way back has them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mixopt.integrations.exports.facts import Facts
from mixopt.integrations.exports.units import WeightUnit

LEFT_OUT = "weight 0, left out: "


@dataclass(frozen=True)
class Entry:
    """What a fragment has of one domain, or of one of its paths.

    Attributes:
        domain: Its name.
        label: The domain's name, or one for each path where a tool takes one path an entry.
        paths: Where the data is; the domain's name where no path is known.
        amount: In the tool's unit.
        named: Whether `paths` is the domain's name only.
    """

    domain: str
    label: str
    paths: tuple[str, ...]
    amount: float
    named: bool


@dataclass(frozen=True)
class Weighed:
    """What a fragment has of one source of data.

    Attributes:
        names: Its name or paths, as the fragment has them.
        amount: In the tool's unit.
        passes: How often it has all of the source on top of that.
    """

    names: tuple[str, ...]
    amount: float
    passes: float = 0.0


@dataclass(frozen=True)
class StageEntries:
    """What a fragment has of one stage of a schedule.

    Attributes:
        name: The stage's.
        start: Its first step, from 0.
        entries: The domains in it.
    """

    name: str
    start: int
    entries: tuple[Entry, ...]


Write = Callable[[Sequence[Entry], Sequence[str], Facts], str]
WriteStages = Callable[[Sequence[StageEntries], Sequence[str], Facts, int], str]
Read = Callable[[str, Facts], list[Weighed]]


@dataclass(frozen=True)
class ExportTool:
    """A tool whose configuration can be written and read.

    Attributes:
        name: As `--to` has it.
        title: What people call it.
        version: The version that was looked at.
        unit: Of its weights.
        place: File and key.
        command: How the fragment is used.
        write: Entries, the header's lines and facts to text.
        read: Text and facts to what is in it.
        takes_zero: Whether it can have a weight of 0.
        single_path: Whether an entry has one path.
        notes: More lines of the header.
        write_stages: Stages, the header's lines, facts and the batch to text; None for a tool whose
            configuration has one mixture.
    """

    name: str
    title: str
    version: str
    unit: WeightUnit
    place: str
    command: str
    write: Write
    read: Read
    takes_zero: bool = False
    single_path: bool = False
    notes: tuple[str, ...] = ()
    write_stages: WriteStages | None = None

    def header(self, left_out: Sequence[str], *, divided: bool) -> list[str]:
        """Return the lines that a fragment begins with.

        Args:
            left_out: Domains of weight 0.
            divided: Whether a domain has several entries.
        """
        lines = [
            f"Mixture for {self.title} (checked with {self.version}): {self.place}.",
            f"Unit: {self.unit.meaning}.",
            f"Use: {self.command}",
            *self.notes,
        ]
        if divided and self.unit.divides:
            lines.append("A domain's amount is divided evenly among its paths.")
        if left_out:
            lines.append(LEFT_OUT + json.dumps(list(left_out)))
        return lines


def left_out(text: str) -> list[str]:
    """Return the domains of weight 0 that a header lists; none where the line was edited away."""
    found = re.search(rf"{re.escape(LEFT_OUT)}(\[.*\])", _comment(text))
    try:
        names = json.loads(found[1]) if found else []
    except ValueError:
        return []
    return [name for name in names if isinstance(name, str)]


def _comment(text: str) -> str:
    """Return the lines that JSON keeps as `comment`; another text as it is."""
    if not text.lstrip().startswith("{"):
        return text
    try:
        lines = json.loads(text).get("comment", [])
    except (ValueError, RecursionError):
        return text
    return "\n".join(map(str, lines)) if isinstance(lines, list) else str(lines)
