"""What the files of trials must look like, checked when they are read."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from mixopt.trials.proxy import Role, Status

Count = Annotated[int, Field(ge=0, lt=1 << 62)]


class FileShape(BaseModel):
    """Plain values of a file of ours: no other field, no number that is not finite."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


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


class ResultShape(FileShape):
    """A result in a file."""

    trial: str
    status: Status
    tokens: Count
    parameters: Count
    seconds: Annotated[float, Field(ge=0)]
    losses: LossesShape | None = None
    curve: list[LossesShape] = []
    reason: str | None = None
    experts: dict[str, Any] | None = None


class EntryShape(FileShape):
    """What a trial's file holds."""

    trial: TrialShape
    result: ResultShape


class JournalShape(FileShape):
    """What the journal of a group holds."""

    entries: list[EntryShape]
