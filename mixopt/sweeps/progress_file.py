"""The progress of a running sweep for other terminals: `.progress.json` with its trials.

Written at most once a second, by a thread of its own, and removed at the end. It is for onlookers
alone: nothing is resumed from it, one that cannot be written ends no sweep, and one that is
damaged, or whose process is gone, is as good as none.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from mixopt.errors import MixoptError, RunError
from mixopt.sweeps.sweep_metrics import SweepMetrics
from mixopt.system import check_names, read_json
from mixopt.trials import Doing

FILE = ".progress.json"
EVERY_SECONDS = 1.0
LARGEST_FILE = 4_000_000  # bytes

Count = Annotated[int, Field(ge=0, lt=2**63)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _State(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GroupState(_State):
    """What one worker does: with which trials, how far, how fast and where; none while it tunes."""

    doing: Doing
    trials: list[str]
    done: Count
    total: Count
    tokens_per_second: Amount | None
    node: str = ""
    kind: str = "cpu"
    gpus: Amount = 0.0
    seconds: Amount = 0.0

    @field_validator("trials")
    @classmethod
    def _names(cls, trials: list[str]) -> list[str]:
        try:
            check_names(trials, "trial", RunError)
        except RunError as error:
            raise ValueError(str(error)) from error
        return trials


class ProcessName(_State):
    """A process of some machine."""

    host: str
    pid: Annotated[int, Field(gt=0, lt=2**31)]


class SweepState(_State):
    """How far a sweep is; `failed` counts diverged trials too, and is part of `ended`.

    `lost` counts trials whose place went away, `retried` those that were handed out again, whatever
    the reason, since this owner began.
    """

    process: ProcessName
    updated: Amount
    trials: Count
    ended: Count
    failed: Count
    running: Count
    lost: Count = 0
    retried: Count = 0
    tokens_per_second: Amount | None
    left: Amount | None
    workers: list[GroupState]


@contextmanager
def shown_progress(
    folder: Path, state: Callable[[], SweepState], metrics: SweepMetrics | None = None
) -> Iterator[None]:
    """Keep the file up to date while the block runs; remove it after.

    Args:
        folder: The folder of the trials.
        state: Returns what the sweep does.
        metrics: What is kept of it over time.
    """
    path, over = folder / FILE, threading.Event()

    def write_on() -> None:
        ended = False
        while not ended:
            _write(path, state())
            if metrics is not None:
                metrics.note()
            ended = over.wait(EVERY_SECONDS)
        if metrics is not None:
            metrics.note(now=True)

    writer = threading.Thread(target=write_on, daemon=True)
    writer.start()
    try:
        yield
    finally:
        over.set()
        writer.join()
        with suppress(OSError):
            path.unlink(missing_ok=True)


def read_progress(folder: Path) -> SweepState | None:
    """Return what a sweep that is running says; None where none runs, or the file is damaged."""
    path = folder / FILE
    with suppress(OSError, MixoptError):
        if path.is_file() and path.stat().st_size <= LARGEST_FILE:
            state = read_json(path, SweepState)
            return state if _is_alive(state.process) else None
    return None


@cache
def this_process() -> ProcessName:
    """Return the name of this process."""
    return ProcessName(host=socket.gethostname(), pid=os.getpid())


def _write(path: Path, state: SweepState) -> None:
    """Replace the file, without waiting for the disk: after a crash nobody needs it."""
    temporary = path.with_name(f"{path.name}.tmp")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(state.model_dump_json(), encoding="utf-8")
        temporary.replace(path)
    with suppress(OSError):
        temporary.unlink(missing_ok=True)


def _is_alive(process: ProcessName) -> bool:
    """Tell whether a process runs; of another machine, that cannot be told and is believed."""
    if process.host != socket.gethostname():
        return True
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        return True
    return True
