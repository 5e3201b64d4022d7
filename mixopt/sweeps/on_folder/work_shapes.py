"""The content of a work folder's files: order, tasks, claims and outcomes, as checked values.

A work folder is met by hosts with differing clocks, by processes of other versions and by people,
so that each file is checked when it is read. Times in it are durations, or for people alone.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from mixopt.sweeps.messages import Fault
from mixopt.system import Count, FileShape, Owner
from mixopt.trials import Doing, Training

COMMAND = "command"  # the proxy that runs a command of the user's
FORMAT = "mixopt-order/1"
State = Literal["open", "closed", "cancelled"]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Token = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Line = Annotated[str, Field(max_length=4000)]
Number = Annotated[int, Field(ge=1, le=1_000_000)]
Amount = Annotated[float, Field(ge=0)]


class JobShape(FileShape):
    """The job of an order; paths are relative to the folder of the trials where that is possible.

    Attributes:
        proxy: As in `Job`, and so on.
    """

    proxy: Name
    options: dict[str, Any]
    corpus: str
    training: Training
    corpus_hash: str
    verify: bool


class OrderedTrial(FileShape):
    """A trial that is to be trained.

    Attributes:
        trial: What it is, as mixopt.trials writes it.
        attempt: The last attempt that its owner wants; earlier ones have ended without a result.
        together: How many may train together with it at most; None for no limit.
    """

    trial: dict[str, Any]
    attempt: Number = 1
    together: Number | None = None


class OrderShape(FileShape):
    """The order.

    Attributes:
        format: Of this file.
        state: Whether there is work; closed and cancelled ones are left alone.
        title: What the sweep is called.
        job: What all trials share.
        patience: As of `Site`.
        retries: As of `Site`.
        gpus: As of `Site`.
        trials: What has no result that its owner has seen.
    """

    format: Literal["mixopt-order/1"]
    state: State
    title: Line
    job: JobShape
    patience: Annotated[float, Field(gt=0)]
    retries: Count
    gpus: Amount | None = None
    trials: list[OrderedTrial]


class TaskShape(FileShape):
    """What a task says of itself, every few seconds.

    Attributes:
        owner: The process.
        share: Which share it was started for, as K/N.
        job: The scheduler's name of it, such as 123_4; empty outside one.
        kind: The kind of its device.
        gpus: How many GPUs it has.
        doing: What it does with `trials`; None while it waits.
        trials: What it trains.
        holding: Its claims, as `<trial>.<attempt>`.
        wrote: The last attempts that it wrote outcomes of; a file server may show them later.
        done: Training tokens of the trials together so far.
        total: Of all that they train on.
        ended: Whether it is over.
        problem: Why it cannot train here at all.
    """

    owner: Owner
    share: Line = "0/1"
    job: Line = ""
    kind: Name = "cpu"
    gpus: Amount = 0.0
    doing: Doing | None = None
    trials: list[Name] = []  # noqa: RUF012 (pydantic copies it)
    holding: list[Name] = []  # noqa: RUF012
    wrote: list[Name] = []  # noqa: RUF012
    done: Count = 0
    total: Count = 0
    ended: bool = False
    problem: Line | None = None


class ClaimShape(FileShape):
    """Who trains an attempt."""

    token: Token


class OutcomeShape(FileShape):
    """What became of an attempt: a result, or why there is none.

    Attributes:
        job: Hash of the job that it is of.
        trial: What was trained.
        attempt: Which attempt.
        token: The task that had it.
        result: As mixopt.trials writes it; None where there is none.
        reason: Why there is none; None where the task had no room for it.
        fault: As of `GroupOutcome`.
        node: Where.
        kind: On which kind of device.
        gpus: How many, of all that trained together.
        seconds: How long.
        trained: How many trained together.
    """

    job: str
    trial: dict[str, Any]
    attempt: Number
    token: Token
    result: dict[str, Any] | None = None
    reason: str | None = None
    fault: Fault | None = None
    node: Line
    kind: Name
    gpus: Amount
    seconds: Amount
    trained: Number
