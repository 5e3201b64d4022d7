"""Run groups of trials on a cluster of Ray, one place for each part of a node that has room.

The owner of the sweep talks to its desk (on_ray.ray_desk), an actor on the cluster that
outlives it: after the owner was killed, the next one finds what has been trained meanwhile. Ending
in any other way ends the desk and all that it has started.
"""

from __future__ import annotations

import math
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from mixopt.errors import ConfigError, MixoptError, RunError
from mixopt.sweeps.contract import GroupOutcome, Job, Place, Report, Site
from mixopt.sweeps.group_sizes import GroupSizes
from mixopt.sweeps.on_ray.ray_cluster import HEAD, NAMESPACE, connect, import_ray, one_line
from mixopt.sweeps.on_ray.ray_delivery import deliver_corpus
from mixopt.sweeps.on_ray.ray_files import keep_files, keep_log
from mixopt.sweeps.on_ray.ray_left import dismiss, end_desk, groups_left
from mixopt.sweeps.on_ray.ray_setup import outcome_from_json, sweep_setup
from mixopt.sweeps.progress_file import GroupState
from mixopt.sweeps.worker_logs import LOGS
from mixopt.trials import Progress, Trial, trial_to_json

ANSWER = 120.0  # seconds for the desk to start, or to answer
OPENINGS = 10  # tries to start a desk
DELIVERIES = 3  # of the corpus to a node, before it is given up
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]?)(i?)B?", re.IGNORECASE)


class RayExecutor:
    """Places on the nodes of a cluster; use as a context manager."""

    def __init__(
        self,
        job: Job,
        site: Site,
        *,
        address: str = "auto",
        memory: int | str | None = None,
        cpus: float = 1.0,
        cache: str | None = None,
    ) -> None:
        """Check the options; nothing is connected yet.

        Args:
            job: What all groups share.
            site: Where the sweep is owned.
            address: `auto` for the cluster that this machine belongs to, `host:port`, or
                `ray://host:port`.
            memory: What Ray keeps free for one worker: bytes, or text such as `8GB`.
            cpus: CPUs of one worker.
            cache: Folder on each node for a corpus that it does not see; `~` and variables such as
                `$SCRATCH` are the node's. One among its temporary folders when None.

        Raises:
            ConfigError: An option that cannot be right.
            PluginError: Ray is not installed.
        """
        import_ray()
        if not isinstance(cpus, int | float) or not 0 < cpus < math.inf:
            raise ConfigError(f"sweep.options.cpus: {cpus!r}: give a number over 0")
        self._job, self._site, self._address = job, site, address
        self._asked = (float(cpus), _bytes(memory), cache)
        self._sizes = GroupSizes(site.folder)
        self._owner = secrets.token_hex(8)
        self._live: dict[str, list[Any]] = {}
        self._ended: dict[str, dict[str, Any]] = {}
        self._taken: list[str] = []
        self._deliveries: dict[str, int] = {}
        self._workers, self._fault = 1, ""
        self._connected = False

    @property
    def workers(self) -> int:
        """How many groups train at once, as the cluster is now."""
        return max(1, self._site.workers or self._workers)

    def __enter__(self) -> RayExecutor:
        """Connect, and find the sweep's desk or start one.

        Raises:
            RunError: No cluster is reached.
        """
        self._setup = sweep_setup(self._job, self._site, *self._asked)
        self._connected = connect(self._address)
        try:
            self._desk = self._opened()
            # Groups are formed by how many train at once.
            self._workers = self._heard()["workers"]
        except BaseException:
            self._disconnect()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End the desk and all that it has started."""
        with suppress(Exception):
            dismiss(self._desk)
        self._disconnect()

    @staticmethod
    def going_on(folder: Path, options: Mapping[str, Any]) -> list[GroupState]:
        """Return what the desk has trained (mixopt.sweeps.contract.OutlivesOwner)."""
        return groups_left(folder, options)

    @staticmethod
    def cancel(folder: Path, options: Mapping[str, Any]) -> list[str]:
        """End the desk (mixopt.sweeps.contract.OutlivesOwner)."""
        return end_desk(folder, options)

    def group_size(self) -> int:
        """Return how many trials the largest kind of node trains together; each is measured.

        Raises:
            MixoptError: The proxy cannot be built or refuses the corpus, or no node has room.
        """
        waits = 0
        while True:
            news = self._heard(measure=True)
            kinds, sizes = news["kinds"], news["sizes"]
            for kind, size in sizes.items():
                self._sizes.measure(kind, lambda size=size: size)  # type: ignore[misc]
            if kinds and all(kind in sizes for kind in kinds):
                self._workers = news["workers"]
                return max(self._sizes[kind] for kind in kinds)
            waits += 1
            if waits == 60 and news["waiting"]:
                self._site.say("Ray: no node has room for a worker yet; waiting")

    def run(self, groups: Mapping[int, Sequence[Trial]], report: Report) -> Iterator[GroupOutcome]:
        """Train the groups.

        Args:
            groups: Trials by the number of their group; more may be added between two outcomes.
            report: Called with a group's progress, once a second, and where it is.

        Yields:
            An outcome for each group, as it ends.

        Raises:
            MixoptError: Nothing more can be trained, as when the corpus was changed.
        """
        follows: dict[int, list[str]] = {}
        handed: set[int] = set()
        while True:
            new: dict[str, list[Any]] = {}
            for number in [number for number in groups if number not in handed]:
                handed.add(number)
                follows[number] = self._following(number, groups[number], new)
            self._take(follows)
            if not follows:
                self._heard()
                return
            try:
                news = self._heard(new)
            except _DeskGoneError as gone:
                yield from self._lost(follows, groups, str(gone))
                follows = {}
                continue
            self._report(news["progress"], follows, report)
            for number in [n for n, keys in follows.items() if self._ended.keys() >= set(keys)]:
                yield self._outcome(number, groups[number], follows[number])
                del follows[number]
                self._take(follows)  # before what is left of the group is handed in

    def _following(
        self, number: int, members: Sequence[Trial], new: dict[str, list[Any]]
    ) -> list[str]:
        """Return the keys at the desk that have a group's trials; hand it in if none has."""
        trials = [trial_to_json(trial) for trial in members]
        keys = [key for key, there in self._live.items() if any(t in there for t in trials)]
        if not keys:
            keys = [f"{self._owner}-{number}"]
            new[keys[0]] = self._live[keys[0]] = trials
        return keys

    def _take(self, follows: Mapping[int, Sequence[str]]) -> None:
        """Note that what no group follows is not wanted any more: its results are kept by now."""
        done = self._live.keys() - {key for keys in follows.values() for key in keys}
        self._taken += done
        for key in done:
            self._live.pop(key)
            self._ended.pop(key, None)

    def _outcome(self, number: int, members: Sequence[Trial], keys: Sequence[str]) -> GroupOutcome:
        """Return what became of a group; another owner may have handed in others."""
        found = [outcome_from_json(self._ended[key], number) for key in keys]
        for key in keys:
            self._keep(self._ended[key])
        outcome = found[0]
        if outcome.fault == "memory":
            self._sizes.short_of_memory(outcome.place.kind, outcome.trained or len(members))
        if len(keys) == 1 and self._live[keys[0]] == [trial_to_json(trial) for trial in members]:
            return outcome
        by_name = {result.trial: result for one in found for result in one.results}
        results = [by_name[trial.name] for trial in members if trial.name in by_name]
        return replace(outcome, results=results, reason=None, fault=None, trained=len(results))

    def _keep(self, told: Mapping[str, Any]) -> None:
        """Keep what has come back from a node that does not see the folder."""
        keep_files(self._site.folder / "files", told.get("files", {}))
        if told.get("log"):
            keep_log(self._site.folder / LOGS, *told["log"])

    def _report(
        self, progress: Mapping[str, Any], follows: Mapping[int, list[str]], report: Report
    ) -> None:
        for number, keys in follows.items():
            for key in keys:
                if key in progress:
                    told = progress[key]
                    report(number, Progress(*told["progress"]), Place(**told["place"]))

    def _lost(
        self, follows: Mapping[int, Sequence[str]], groups: Mapping[int, Sequence[Trial]], why: str
    ) -> Iterator[GroupOutcome]:
        """Yield that groups are lost with their desk, once there is another one."""
        self._live, self._ended, self._taken = {}, {}, []
        self._desk = self._opened()
        for number in follows:
            yield GroupOutcome(number, reason=why, fault="lost", trained=len(groups[number]))

    # The desk.

    def _opened(self) -> Any:
        """Return the sweep's desk: the one that a killed owner has left, or another one."""
        ray = import_ray()
        for _ in range(OPENINGS):
            try:
                desk = ray.get_actor(self._setup["name"], namespace=NAMESPACE)
            except ValueError:
                with suppress(ValueError):  # the name of one that ends is not free yet
                    desk = self._started()
                    if self._attached(desk):
                        return desk
            else:
                if self._attached(desk):
                    return desk
                dismiss(desk)
            time.sleep(1.0)
        raise RunError(
            f"Ray: the desk of the sweep did not start on the head node: {self._fault}; install "
            "the same version of mixopt[ray] on all nodes"
        )

    def _attached(self, desk: Any) -> bool:
        """Tell whether a desk is there and is of this job; take over what it has."""
        ray = import_ray()
        try:
            left = ray.get(desk.attach.remote(self._owner, self._setup), timeout=ANSWER)
        except (ray.exceptions.RayError, AttributeError, TypeError) as error:
            self._fault = one_line(error)  # it has ended, or is of another version
            return False
        self._live = {entry["key"]: entry["trials"] for entry in left or []}
        return left is not None

    def _started(self) -> Any:
        """Start a desk on the head node, which a cluster does not outlive either."""
        ray = import_ray()
        from mixopt.sweeps.on_ray.ray_desk import SweepDesk

        made = ray.remote(SweepDesk).options(
            name=self._setup["name"],
            namespace=NAMESPACE,
            lifetime="detached",
            num_cpus=0,
            max_restarts=0,
            resources={HEAD: 0.001},  # the head has 1 of it, which says where it is
        )
        return made.remote()

    def _heard(
        self, new: Mapping[str, list[Any]] | None = None, *, measure: bool = False
    ) -> dict[str, Any]:
        """Ask the desk for news, once what it lacks has been delivered.

        Raises:
            MixoptError: It refuses to continue.
            _DeskGoneError: It is there no longer.
        """
        ray = import_ray()
        taken, self._taken = self._taken, []
        sizes = None if measure else self._sizes.known()
        asked = (self._owner, dict(new or {}), list(self._ended), taken, sizes)
        try:
            news: dict[str, Any] = ray.get(self._desk.news.remote(*asked), timeout=ANSWER)
            self._deliver(news.get("wanted", {}))
        except ray.exceptions.RayActorError as error:
            raise _DeskGoneError(f"the desk of the sweep ended: {one_line(error)}") from error
        except (ray.exceptions.RayError, ConnectionError) as error:
            raise RunError(
                f"Ray: the cluster can no longer be reached: {one_line(error)}; run the sweep again"
            ) from error
        if news["refused"] is not None:
            raise RunError(news["refused"])
        self._ended |= {key: told for key, told in news["outcomes"].items() if key in self._live}
        return news

    def _deliver(self, wanted: Mapping[str, Sequence[Any]]) -> None:
        """Give the corpus to the nodes that do not see it."""
        ray = import_ray()
        for key, (store, node, reason) in wanted.items():
            tries = self._deliveries[key] = self._deliveries.get(key, 0) + 1
            if tries > DELIVERIES:
                raise RunError(f"Ray: node {node} cannot receive the corpus: {reason}")
            self._site.say(f"Ray: node {node} is sent the corpus, once: {reason}")
            with suppress(ray.exceptions.RayActorError):
                deliver_corpus(store, Path(self._job.corpus), self._setup["job"]["corpus_hash"])
            ray.get(self._desk.delivered.remote(key), timeout=ANSWER)

    def _disconnect(self) -> None:
        if self._connected:
            import_ray().shutdown()
        self._connected = False


class _DeskGoneError(MixoptError):
    """The desk has ended."""


def _bytes(memory: int | str | None) -> int | None:
    """Return bytes of what a user wrote."""
    if memory is None:
        return None
    found = _AMOUNT.fullmatch(str(memory).strip())
    if found is None or isinstance(memory, bool):
        raise ConfigError(f"sweep.options.memory: {memory!r}: give bytes, or text such as 8GB")
    number, unit, binary = found.groups()
    factor = _UNITS[unit.upper()]
    return int(float(number) * (1024 ** round(math.log(factor, 1000)) if binary else factor))
