"""The contract of an executor: it trains groups of trials, and reports the outcome of each.

A sweep's owner (mixopt.sweeps.resumable) forms groups, hands them to an executor, keeps what it
gives, and hands out again what has no result (mixopt.sweeps.attempts). So an executor may lose a
group: it reports this and continues. It may also train a part of a group, where a place takes fewer
trials than another one; what is left is handed out as a group of its own.

An executor is a plug-in of the group `mixopt.executors`: a class that is called with a `Job`, a
`Site` and the options under `sweep.options`, and used as a context manager. Leaving it ends what
it started, unless it says that work continues without its owner; such a class has the two functions
of `OutlivesOwner` too, by which `mixopt status` and `mixopt cancel` find that work.
`mixopt.testing.check_executor` checks what is promised here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mixopt.sweeps.messages import Fault
from mixopt.sweeps.progress_file import GroupState
from mixopt.sweeps.watch import PATIENCE
from mixopt.system import Say, build_plugin, host_name, load_plugin, silent
from mixopt.trials import Progress, Training, Trial, TrialResult

RETRIES = 3  # times that a group whose place went away is handed out again


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
        made_by: The fingerprint that results carry (mixopt.trials.trial_fingerprint).
        verify: Whether workers check the hashes of the shards too, since they may see other files
            than the owner, who has checked its own.
    """

    proxy: str
    options: dict[str, Any]
    corpus: Path
    training: Training
    corpus_hash: str = ""
    verify: bool = False
    made_by: str = ""


@dataclass(frozen=True)
class Site:
    """Where a sweep is owned, and what its owner asks of an executor.

    Attributes:
        folder: The folder of the sweep's trials.
        workers: How many groups train at once; as the executor finds when None.
        patience: Seconds without a sign of life or progress after which a worker is killed.
        gpus: GPUs of one worker; a fraction where the executor can share one. None is one, where
            there are any.
        nodes: Nodes of one worker, where the executor can give several.
        retries: How often a group whose place went away is handed out again.
        trust: Whether what is recorded in the run directory may be imported by those who work
            there.
        title: What the sweep is called.
        say: Called with a line that its owner should read.
    """

    folder: Path
    workers: int | None = None
    patience: float = PATIENCE
    gpus: float | None = None
    nodes: int = 1
    retries: int = RETRIES
    trust: bool = False
    title: str = "trials"
    say: Say = silent


@dataclass(frozen=True)
class Place:
    """Where a group trains.

    Attributes:
        node: The host's name.
        kind: The kind of device: a GPU's name, or `cpu`.
        gpus: How many of them; 0 of `cpu`.
    """

    node: str = field(default_factory=host_name)
    kind: str = "cpu"
    gpus: float = 0.0


@dataclass(frozen=True)
class GroupOutcome:
    """What became of a group.

    Attributes:
        group: Its number.
        results: Those of its trials that have one, in the order of the group.
        reason: Why the others have none; None where the place takes no more of them at once.
        fault: What may be different another time: the worker `died`, `memory` was short, the place
            was `lost`. None where the proxy itself gave the reason.
        place: Where it was.
        seconds: How long it was there.
        trained: How many trials were trained together; all of them when None.
    """

    group: int
    results: Sequence[TrialResult] = ()
    reason: str | None = None
    fault: Fault | None = None
    place: Place = Place(node="")
    seconds: float = 0.0
    trained: int | None = None


Report = Callable[[int, Progress, Place], None]


class Executor(Protocol):
    """Trains groups of trials; made as `factory(job, site, **options)`."""

    @property
    def workers(self) -> int:
        """How many groups train at once, as far as is known; >= 1."""
        ...

    def group_size(self) -> int:
        """Return how many trials the largest kind of place trains together; >= 1.

        Raises:
            MixoptError: The proxy cannot be built or refuses the corpus, or no place is reached.
        """
        ...

    def run(self, groups: Mapping[int, Sequence[Trial]], report: Report) -> Iterator[GroupOutcome]:
        """Train the groups.

        Args:
            groups: Trials by the number of their group. Between two outcomes more may be added;
                they are trained as well.
            report: Called, from any thread, with a group's progress and where it is.

        Yields:
            One outcome for each group, as it ends.

        Raises:
            MixoptError: Nothing more can be trained; finished groups have been yielded.
        """
        ...

    def __enter__(self) -> Executor:
        """Begin."""
        ...

    def __exit__(self, *_: object) -> None:
        """End what was started."""
        ...


class OutlivesOwner(Protocol):
    """What an executor's class has besides, where its work continues when its owner is gone.

    Both are asked of the class, from any process that sees the folder. They start nothing, and
    where nothing of the sweep is found they return nothing. The folder may be anybody's: what it
    names is stopped only where it is seen to be this sweep's.
    """

    @staticmethod
    def going_on(folder: Path, options: Mapping[str, Any]) -> Sequence[GroupState]:
        """Return what trains now, or waits for a place, one entry for each task.

        Args:
            folder: The folder of the sweep's trials.
            options: What the executor is made with.

        Raises:
            MixoptError: It cannot be found out.
        """
        ...

    @staticmethod
    def cancel(folder: Path, options: Mapping[str, Any]) -> Sequence[str]:
        """Stop what was submitted; results that are there stay, and may be gathered later.

        Args:
            folder: The folder of the sweep's trials.
            options: What the executor is made with.

        Returns:
            A line on each thing that was stopped.

        Raises:
            MixoptError: It cannot be stopped.
        """
        ...


def going_on(name: str, options: Mapping[str, Any], folder: Path) -> list[GroupState]:
    """Return what an executor's tasks do, its owner's aside; none of one that ends with its owner.

    Raises:
        PluginError: There is no such executor, or a package that it needs is absent.
        MixoptError: It cannot be found out.
    """
    ask = getattr(load_plugin("executor", name), "going_on", None)
    return [] if ask is None else list(ask(folder, options))


def cancel_submitted(name: str, options: Mapping[str, Any], folder: Path) -> list[str]:
    """Stop what an executor has submitted; return a line on each, none where there is nothing.

    Raises:
        PluginError: There is no such executor, or a package that it needs is absent.
        MixoptError: It cannot be stopped.
    """
    stop = getattr(load_plugin("executor", name), "cancel", None)
    return [] if stop is None else list(stop(folder, options))


def make_executor(name: str, options: Mapping[str, Any], job: Job, site: Site) -> Executor:
    """Load the executor `name` and make it.

    Raises:
        PluginError: There is no such executor, or a package that it needs is absent.
        ConfigError: An option that it does not have or refuses.
    """
    executor: Executor = build_plugin("executor", name, options, {"job": job, "site": site})
    return executor
