"""The contract of an executor, which has the folder of a group trained somewhere else.

A group of trials is a folder: `group.json` in, `beat.json` while it trains, `result.json` out
(mixopt.sweeps.groups). One program trains the folder that it is given, here as on a cluster:
`python -P -m mixopt.sweeps.train_group FOLDER`. An executor starts that program, says what became
of it, and ends it; all else is done once, above it (mixopt.sweeps.groups): results, retries,
halves where memory was short, patience, progress, what an owner that was killed has left.

An executor is a plug-in of the group `mixopt.executors`: a class that is called with a `Site` and
the options under `sweep.options`. `mixopt.testing.check_executor` checks what is promised here.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from mixopt.system import Say, silent
from mixopt.trials import Training

# What a group ended with that it may not another time: its process died, memory was too short, or
# the place where it was went away.
Fault = Literal["died", "memory", "lost"]
PATIENCE = 600.0  # seconds
RETRIES = 3  # times that a group whose place went away is handed out again
KILLED_FOR_MEMORY = (-signal.SIGKILL, 128 + signal.SIGKILL)  # the second of a shell or container
COMMAND = ("-P", "-m", "mixopt.sweeps.train_group")  # arguments of Python
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")


@dataclass(frozen=True)
class Job:
    """What all groups of a sweep share.

    Attributes:
        proxy: Name of the proxy.
        options: What it is made with.
        corpus: The prepared corpus, as its owner sees it.
        training: How all trials are trained.
        corpus_hash: Which corpus it is (mixopt.corpus.corpus_hash): a worker refuses another one;
            empty where that is not asked.
        made_by: The fingerprint that results carry (mixopt.sweeps.trial_fingerprint).
    """

    proxy: str
    options: dict[str, Any]
    corpus: Path
    training: Training
    corpus_hash: str = ""
    made_by: str = ""


@dataclass(frozen=True)
class Site:
    """Where a sweep is owned, and what its owner asks of an executor.

    Attributes:
        folder: The folder of the sweep's trials, an absolute path.
        device: `proxy.device`: `cpu`, `cuda`, `cuda:1` or `auto`.
        workers: How many groups train at once; as the executor finds when None.
        gpus: GPUs of one worker; a fraction where the executor can share one. None is one, where
            there are any.
        say: Called with a line that its owner should read.
    """

    folder: Path
    device: str = "auto"
    workers: int | None = None
    gpus: float | None = None
    say: Say = silent


@dataclass(frozen=True)
class Ended:
    """How the program of a folder ended.

    Attributes:
        reason: Why, in a line; for a folder that has no result.
        fault: What may be different another time.
    """

    reason: str
    fault: Fault = "died"

    @classmethod
    def with_code(cls, code: int) -> Ended:
        """Return what an exit code means; a negative one is a signal."""
        fault: Fault = "memory" if code in KILLED_FOR_MEMORY else "died"
        return cls(f"the worker ended with {exit_text(code)}", fault)


def exit_text(code: int) -> str:
    """Return an exit code in words; a negative one is a signal."""
    text = f"exit code {code}"
    if code < 0:
        text = f"signal {-code}"
        with suppress(ValueError):
            text = f"signal {signal.Signals(-code).name}"
    return f"{text}; out of memory?" if code in KILLED_FOR_MEMORY else text


State = Literal["waiting", "running"] | Ended


class Executor(Protocol):
    """Has folders trained; made as `factory(site, **options)`.

    Attributes:
        poll: Seconds between two looks at what it started.
        queues: Whether it takes any number of folders at once and trains `slots` of them.
        outlives_owner: Whether what it started continues when its owner is killed. The handles of
            such a one are kept, and mean the same in another process.
    """

    poll: float
    queues: bool
    outlives_owner: bool

    @property
    def slots(self) -> int:
        """How many folders train at once, as far as is known; >= 1."""
        ...

    def start(self, folders: Sequence[Path]) -> Sequence[str]:
        """Have folders trained; return a handle of each, one line of text.

        Raises:
            MixoptError: None can be started.
        """
        ...

    def states(self, handles: Sequence[str]) -> Mapping[str, State]:
        """Return what each does; what becomes of one that has left a result is not asked.

        Raises:
            MixoptError: Nothing more can be trained.
        """
        ...

    def cancel(self, handles: Sequence[str]) -> None:
        """End what was started, processes and all.

        Raises:
            MixoptError: It cannot be ended; the line says how a person does it.
        """
        ...

    def close(self) -> None:
        """Let go of what it holds; nothing that was started trains then."""
        ...
