"""Each attempt of a sweep that has ended, a line each: `attempts.jsonl`, written by its owner.

    {"at": 1764151200.0, "trials": ["t0007"], "finished": 1, "outcome": "ended", "node": "n2",
     "kind": "cpu", "gpus": 0.0, "seconds": 12.3, "reason": null}

It is what a person asks of a sweep: what was lost and tried again, on which node, and what it cost.
Nothing is resumed from it, so that a line that cannot be read is passed over.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from mixopt.errors import MixoptError
from mixopt.sweeps.contract import GroupOutcome
from mixopt.system import checked_as, parse_json
from mixopt.trials import Trial

ATTEMPTS = "attempts.jsonl"
LONGEST_LINE = 1 << 20  # bytes

Ended = Literal["ended", "failed", "died", "memory", "lost"]
_Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class AttemptRecord(BaseModel):
    """One attempt at a group.

    Attributes:
        at: When it ended, in seconds since 1970.
        trials: What was trained together.
        finished: How many of them have a result.
        outcome: `ended` with results; `failed` for a reason of the proxy's; or the fault.
        node: Where.
        kind: On which kind of device.
        gpus: How many of them.
        seconds: How long.
        reason: Why there is no result.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    at: _Amount
    trials: list[str]
    finished: Annotated[int, Field(ge=0)]
    outcome: Ended
    node: str
    kind: str
    gpus: _Amount
    seconds: _Amount
    reason: str | None = None


def note_attempt(folder: Path, outcome: GroupOutcome, members: Sequence[Trial]) -> AttemptRecord:
    """Add a line, and return it; a disk that cannot be written to ends no sweep."""
    trained = [trial.name for trial in members][: outcome.trained]
    ended: Ended = outcome.fault or ("failed" if outcome.reason else "ended")
    record = AttemptRecord(
        at=time.time(),
        trials=trained,
        finished=len(outcome.results),
        outcome=ended,
        node=outcome.place.node,
        kind=outcome.place.kind,
        gpus=outcome.place.gpus,
        seconds=outcome.seconds,
        reason=outcome.reason,
    )
    with suppress(OSError), (folder / ATTEMPTS).open("a", encoding="utf-8") as stream:
        stream.write(record.model_dump_json() + "\n")
    return record


def read_attempts(folder: Path) -> list[AttemptRecord]:
    """Return the attempts so far, in the order they ended; none where there is no file."""
    found: list[AttemptRecord] = []
    with suppress(OSError), (folder / ATTEMPTS).open("rb") as stream:
        while line := stream.readline(LONGEST_LINE):
            with suppress(MixoptError):
                found.append(checked_as(AttemptRecord, parse_json(line, ATTEMPTS), ATTEMPTS))
    return found
