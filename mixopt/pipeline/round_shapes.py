"""The shape of `trials/rounds.json`, which mixopt.pipeline.rounds writes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from mixopt.errors import RunError
from mixopt.system import read_json

_Number = Annotated[int, Field(ge=1, lt=10**9)]


class _RecordPart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _ChosenBy(_RecordPart):
    objective: dict[str, Any]
    fit: dict[str, Any]


class _Round(_RecordPart):
    round: _Number
    trials: _Number
    regressor: str
    acquisition: str
    proposal: dict[str, FiniteFloat]
    predicted: FiniteFloat
    expected_gain: FiniteFloat


class _Stopped(_RecordPart):
    round: _Number
    expected_gain: FiniteFloat
    not_run: _Number


class _Rounds(_RecordPart):
    chosen_by: _ChosenBy | None
    rounds: list[_Round]
    stopped: _Stopped | None


def read_rounds(path: Path) -> dict[str, Any]:
    """Return what the file says, as plain values.

    Raises:
        RunError: It cannot be read, or is not what was written; the field is named.
    """
    found = read_json(path, _Rounds)
    for place, entry in enumerate(found.rounds):
        if entry.round != place + 1:
            raise RunError(
                f"{path}: rounds.{place}.round: should be {place + 1}, got {entry.round}"
            )
    return found.model_dump()
