"""The executor interface: start, watch and cancel the training of groups in other processes.

A group of trials is a folder: `group.json` in, `beat.json` while it trains, `result.json` out
(mixopt.sweeps.groups). One program trains a folder, locally and on a cluster:
`python -P -m mixopt.sweeps.train_group FOLDER`. An executor only starts that program, reports its
state and cancels it. The rest is handled once, above it: results and the recovery of groups from a
killed owner in mixopt.sweeps.group_runner; retries, halving after memory errors and patience in
mixopt.sweeps.retries.

An executor is a plug-in of the group `mixopt.executors`: a class called with a `Site` and the
options under `sweep.options`. `mixopt.testing.check_executor` tests this interface.
"""

import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, Self

from mixopt.sweeps.proxy import Training
from mixopt.system import Say, silent

# Failures that a retry may avoid: the process died, memory ran out, or the node went away.
Fault = Literal["died", "memory", "lost"]
PATIENCE = 600.0  # seconds that a worker may stand still, at least while it starts
RETRIES = 3  # of a group whose node went away
# Exit codes; shells and containers add 128 to a signal.
KILLED_FOR_MEMORY = (-signal.SIGKILL, 128 + signal.SIGKILL)
TERMINATED = (-signal.SIGTERM, 128 + signal.SIGTERM)  # by a scheduler
COMMAND = ("-P", "-m", "mixopt.sweeps.train_group")  # arguments of Python
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")


@dataclass(frozen=True)
class Job:
    """What all groups of a sweep share.

    Attributes:
        proxy: Name of the proxy.
        options: Options of the proxy.
        corpus: Path of the prepared corpus on the owner's machine.
        training: How each trial is trained.
        corpus_hash: mixopt.corpus.corpus_hash of it; a worker refuses any other corpus. Empty: not
            checked.
        made_by: The fingerprint written to results (mixopt.sweeps.trial_fingerprint).
    """

    proxy: str
    options: dict[str, Any]
    corpus: Path
    training: Training
    corpus_hash: str = ""
    made_by: str = ""


@dataclass(frozen=True)
class Site:
    """The folder of a sweep and the resources that its configuration requests.

    Attributes:
        folder: The folder of the sweep's trials, an absolute path.
        device: `proxy.device`: `cpu`, `cuda`, `cuda:1` or `auto`.
        workers: Number of groups that train at once; None: the executor decides.
        gpus: GPUs of one worker; a fraction where the executor can share a GPU. None: one, if there
            are any.
        say: Called with lines for the user.
    """

    folder: Path
    device: str = "auto"
    workers: int | None = None
    gpus: float | None = None
    say: Say = silent


@dataclass(frozen=True)
class Ended:
    """The end of a program that left no result.

    Attributes:
        reason: One line.
        fault: The kind of failure, which decides about a retry.
    """

    reason: str
    fault: Fault = "died"

    @classmethod
    def with_code(cls, code: int) -> Self:
        """Return the meaning of an exit code; a negative code is a signal."""
        fault: Fault = "died"
        if code in KILLED_FOR_MEMORY:
            fault = "memory"
        elif code in TERMINATED:
            fault = "lost"
        return cls(f"the worker ended with {exit_text(code)}", fault)


def exit_text(code: int) -> str:
    """Describe an exit code; a negative code is a signal."""
    text = f"exit code {code}"
    if code < 0:
        text = f"signal {-code}"
        with suppress(ValueError):
            text = f"signal {signal.Signals(-code).name}"
    if code in KILLED_FOR_MEMORY:
        text += "; out of memory?"
    return text


State = Literal["waiting", "running"] | Ended


class Executor(Protocol):
    """Trains folders; created as `factory(site, **options)`.

    Attributes:
        poll: Seconds between two calls of `states`.
        queues: Whether it accepts any number of folders at once and trains `slots` of them.
        outlives_owner: Whether started folders continue to train when the owner is killed. Their
            handles are saved, and another process can use them.
    """

    poll: float
    queues: bool
    outlives_owner: bool

    @property
    def slots(self) -> int:
        """Number of folders that train at once, >= 1; an estimate on a changing cluster."""
        ...

    def start(self, folders: Sequence[Path]) -> Sequence[str]:
        """Start training folders; return a handle for each, one line of text.

        Raises:
            MixoptError: No folder can be started.
        """
        ...

    def states(self, handles: Sequence[str]) -> Mapping[str, State]:
        """Return the state of each handle; folders with a result are not passed.

        Raises:
            MixoptError: Nothing more can be trained.
        """
        ...

    def cancel(self, handles: Sequence[str]) -> None:
        """Stop the training of these handles, child processes included.

        Raises:
            MixoptError: They cannot be stopped; the message says how to do it by hand.
        """
        ...

    def close(self) -> None:
        """Release all resources, and stop all training unless `outlives_owner`."""
        ...
