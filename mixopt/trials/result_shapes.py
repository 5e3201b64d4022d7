"""The content of trial files, checked when they are read."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from mixopt.system import Count, FileShape
from mixopt.trials.proxy import Role, Status


class TrialShape(FileShape):
    """A trial in a file."""

    name: str
    mixture: dict[str, float]
    seed: Annotated[int, Field(ge=0, lt=1 << 63)]
    role: Role
    round: Annotated[int, Field(ge=0, lt=1 << 31)]


class LossesShape(FileShape):
    """Losses in a file."""

    tokens: Count
    nats_per_token: dict[str, float]
    bits_per_byte: dict[str, float]
    tasks: dict[str, float] = Field(default_factory=dict)


class ResultShape(FileShape):
    """A result in a file."""

    trial: str
    status: Status
    tokens: Count
    parameters: Count
    seconds: Annotated[float, Field(ge=0)]
    losses: LossesShape | None = None
    curve: tuple[LossesShape, ...] = ()
    reason: str | None = None
    experts: dict[str, Any] | None = None


class EntryShape(FileShape):
    """What a trial's file holds, and the fingerprint of what it was trained by and on."""

    made_by: str
    trial: TrialShape
    result: ResultShape


class JournalShape(FileShape):
    """What the journal of a group holds."""

    entries: list[EntryShape]
