"""A place on a node of Ray: an actor that has a device, and trains groups on it one at a time.

It is an actor and no task, so that its worker process stays warm: a task that started Python and
torch for each group would cost seconds a group. Ray gives it a part of a node, shows it its GPUs,
and says when its node or its process dies. What goes in and out is plain values.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mixopt.corpus import corpus_hash
from mixopt.errors import MixoptError
from mixopt.sweeps.devices import WorkerDevice
from mixopt.sweeps.group_sizes import GroupSizes
from mixopt.sweeps.on_ray.ray_files import WorkerLog, gather_files
from mixopt.sweeps.on_ray.ray_setup import job_on_node, outcome_to_json
from mixopt.sweeps.on_ray.ray_store import NodeStore
from mixopt.sweeps.workplace import Workplace
from mixopt.system import __version__
from mixopt.trials import Progress, trial_from_json

OFTEN = 1.0  # seconds between two reports of a group


class RayPlace:
    """Trains groups on the node where Ray has put it."""

    def __init__(self, desk: Any, setup: Mapping[str, Any]) -> None:
        """Note what there is to do.

        Args:
            desk: The actor that hears of progress.
            setup: Of the sweep.
        """
        self._desk, self._setup = desk, setup
        self._said = 0.0

    def where(self) -> dict[str, Any]:
        """Return the key of the node, and the version of mixopt there."""
        import ray

        return {"key": ray.get_runtime_context().get_node_id(), "version": __version__}

    def look(self, node: str) -> dict[str, Any]:
        """Return what the node has for the sweep (mixopt.sweeps.on_ray.ray_store)."""
        return NodeStore(self._setup, node).look()

    def settle(self, found: Mapping[str, Any], node: str, kind: str, gpus: float) -> None:
        """Take what the node has for the sweep (mixopt.sweeps.on_ray.ray_store).

        Args:
            found: Where the corpus is, and where files and logs go.
            node: What the node is called.
            kind: Of device.
            gpus: How many, or a part of one.
        """
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "") if gpus else None
        device = WorkerDevice(visible, kind, share=_share(visible, gpus), node=node)
        self._found, self._job = found, job_on_node(self._setup, found, gpus)
        self._log = WorkerLog(Path(found["logs"], f"{node}-{os.getpid()}.log"))
        self._workplace = Workplace(
            self._job, device, GroupSizes(None), self._log.path, self._setup["patience"]
        )

    def measure(self) -> dict[str, Any]:
        """Return how many trials it trains together, or why that cannot be told."""
        try:
            return {"size": self._workplace.group_size()}
        except MixoptError as error:
            return {"error": str(error)}

    def train(self, key: str, trials: Sequence[Any], size: int) -> dict[str, Any]:
        """Train a group, or as many of its first trials as go together here.

        Args:
            key: Of the group.
            trials: Its members.
            size: How many trials this kind of device trains together.

        Returns:
            What became of it; `corpus` alone where the corpus is not what it was.
        """
        lacking = self._corpus_fault()
        if lacking is not None:
            return {"corpus": lacking}
        members = [trial_from_json(trial) for trial in trials[:size]]
        outcome = self._workplace.train(0, members, lambda progress: self._hear(key, progress))
        names = [trial.name for trial in members]
        told = outcome_to_json(outcome)
        if self._found["shared"]:
            return told
        files = gather_files(Path(self._found["files"]), names)
        return {**told, "files": files, "log": self._log.gather()}

    def _hear(self, key: str, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._said >= OFTEN:
            self._said = now
            self._desk.hear.remote(key, [progress.done, progress.total, progress.doing])

    def _corpus_fault(self) -> str | None:
        """Return how the corpus has changed since the node found it."""
        try:
            right = corpus_hash(self._job.corpus) == self._job.corpus_hash
        except MixoptError as error:
            return str(error)
        return None if right else f"{self._job.corpus} has changed"


def _share(visible: str | None, gpus: float) -> float:
    """Return what part of each GPU that it sees is a worker's own."""
    return 1.0 if visible is None else gpus / len(visible.split(","))
