"""Messages of a worker to the sweep, one line of JSON each, checked like any untrusted input.

    {"beat": {"doing": "training", "done": 4000, "total": 10000, "moves": 7, "cpu": 3.2}}
    {"tuned": 8}    {"results": [...]}    {"error": "...", "fault": "memory"}

Beats come until the answer does, and each request has one answer.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mixopt.errors import RunError
from mixopt.system import checked_as, parse_json
from mixopt.trials import Doing

# What a worker ended with that another may not: it died or hung, memory was too short, or the place
# where it was went away.
Fault = Literal["died", "memory", "lost"]
Tokens = Annotated[int, Field(ge=0, lt=2**63)]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Beat(_Message):
    """A sign of life.

    Attributes:
        doing: What the worker does.
        done: Training tokens of the group so far.
        total: Of all that it will train on; 0 until the proxy reports.
        moves: How often the worker has moved on since it started.
        cpu: Seconds that the process has computed for.
    """

    doing: Doing = "starting"
    done: Tokens = 0
    total: Tokens = 0
    moves: Tokens = 0
    cpu: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


class Answer(_Message):
    """What became of a request: exactly one of the first three."""

    tuned: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    results: list[dict[str, Any]] | None = None
    error: str | None = None
    fault: Fault | None = None

    @model_validator(mode="after")
    def _one(self) -> Answer:
        if [self.tuned, self.results, self.error].count(None) != 2:
            raise ValueError("expected exactly one of tuned, results and error")
        return self


class _Line(_Message):
    beat: Beat


def read_message(line: bytes) -> Beat | Answer:
    """Return what a line says.

    Raises:
        RunError: It says nothing that a worker would.
    """
    content = parse_json(line, "a line")
    if isinstance(content, dict) and "beat" in content:
        return checked_as(_Line, content, "a line").beat
    answer: Answer = checked_as(Answer, content, "a line")
    return answer


def broken_answer(error: RunError) -> Answer:
    """Return an answer in place of one that cannot be used."""
    return Answer(error=f"the worker's answer cannot be used: {error}")
