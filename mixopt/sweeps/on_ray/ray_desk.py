"""The desk of a sweep: a named actor that has its groups trained on the nodes of a cluster.

It outlives the sweep's owner: what was handed in is trained, and kept until an owner has taken it.
An owner that comes back finds it by its name, and one that never does is waited for for a day.
What a place needs is started when there is work, and ended when there is none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from mixopt.sweeps.on_ray.ray_cluster import (
    ClusterNode,
    WorkerNeeds,
    cluster_nodes,
    one_line,
    shortfall,
)
from mixopt.sweeps.on_ray.ray_desk_entries import DeskEntry, DeskPlace
from mixopt.sweeps.on_ray.ray_place import RayPlace
from mixopt.sweeps.on_ray.ray_store import NodeStore

TICK = 0.5  # seconds between two looks at the cluster
POLL = 1.0  # seconds that an owner waits for news
IDLE = 30.0  # seconds without work after which a place gives back what it has
STARTS = 5  # failed starts of places in a row after which there is something wrong with them


class SweepDesk:
    """Hands groups to places, and keeps what becomes of them."""

    def __init__(self) -> None:
        self._setup: dict[str, Any] = {}
        self._owner = ""
        self._changed = asyncio.Event()
        self._entries: dict[str, DeskEntry] = {}
        self._places: list[DeskPlace] = []
        self._stores: dict[str, asyncio.Task[dict[str, Any]]] = {}
        self._wanted: dict[str, tuple[Any, str, str, asyncio.Future[None]]] = {}
        self._sizes: dict[str, int] = {}
        self._nodes: list[ClusterNode] = []
        self._refused: str | None = None
        self._measuring = False
        self._failed = 0
        self._seen = time.monotonic()
        self._keeper: asyncio.Task[None] | None = None

    async def attach(self, owner: str, setup: dict[str, Any]) -> list[dict[str, Any]] | None:
        """Take an owner's word from now on.

        Args:
            owner: Its key; another one before it is no longer listened to.
            setup: Of the sweep.

        Returns:
            What was handed in before; None where that was for another job.
        """
        if self._setup and self._setup["identity"] != setup["identity"]:
            return None
        self._setup, self._owner, self._refused = setup, owner, None
        self._look()
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep())
        return [{"key": entry.key, "trials": entry.trials} for entry in self._entries.values()]

    async def news(
        self,
        owner: str,
        new: Mapping[str, list[Any]],
        known: Sequence[str],
        taken: Sequence[str],
        sizes: Mapping[str, int] | None,
    ) -> dict[str, Any]:
        """Take groups in, and report the state of the known ones.

        Args:
            owner: Who asks.
            new: Groups, by a key of the owner's.
            known: Those whose outcome the owner has heard of.
            taken: Those that it has kept, or wants no longer.
            sizes: How many trials each kind of device trains together; None asks to measure.

        Returns:
            Outcomes, progress, sizes that were measured, nodes that lack the corpus; after a
            second at most, at once where there is something new.
        """
        if owner != self._owner:
            return {"refused": "another process has taken this sweep over"}
        self._seen = time.monotonic()
        for key in taken:
            self._forget(key)
        self._entries |= {key: DeskEntry(key, trials) for key, trials in new.items()}
        self._measuring = sizes is None
        self._sizes |= sizes or {}
        self._changed = asyncio.Event()
        self._start_places()
        if not self._said(known):
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), POLL)
        return self._told(known)

    async def groups(self) -> list[dict[str, Any]]:
        """Return what trains or waits, for one who only looks (mixopt.sweeps.GroupState)."""
        return [
            entry.state(self._needs().gpus)
            for entry in self._entries.values()
            if entry.outcome is None
        ]

    async def hear(self, key: str, progress: list[Any]) -> None:
        """Note the progress of a group."""
        if key in self._entries:
            self._entries[key].progress = progress

    async def delivered(self, node: str) -> None:
        """Note that a node was given the corpus, or that it was tried."""
        if node in self._wanted:
            _, _, _, future = self._wanted.pop(node)
            future.set_result(None)

    async def close(self) -> None:
        """End all places."""
        if self._keeper is not None:
            self._keeper.cancel()
        for place in list(self._places):
            self._end(place)
        for task in self._stores.values():
            task.cancel()

    # What it tells.

    def _said(self, known: Sequence[str]) -> bool:
        """Tell whether there is something that the owner has not heard of."""
        ended = [entry for entry in self._entries.values() if entry.outcome is not None]
        fresh = any(entry.key not in known for entry in ended)
        measured = self._measuring and self._kinds() and self._kinds() <= self._sizes.keys()
        return bool(fresh or measured or self._wanted or self._refused)

    def _told(self, known: Sequence[str]) -> dict[str, Any]:
        entries, gpus = self._entries.values(), self._needs().gpus
        return {
            "refused": self._refused,
            "outcomes": {e.key: e.outcome for e in entries if e.outcome and e.key not in known},
            "progress": {e.key: e.told(gpus) for e in entries if e.place is not None},
            "wanted": {key: list(wanted[:3]) for key, wanted in self._wanted.items()},
            "sizes": self._sizes,
            "kinds": sorted(self._kinds()),
            "workers": self._most(),
            "waiting": not any(place.node for place in self._places),
        }

    # What it keeps going.

    async def _keep(self) -> None:
        import ray

        while True:
            await asyncio.sleep(TICK)
            with suppress(Exception):  # a head that is away for a moment; it is asked again
                self._look()
                self._start_places()
                if self._is_left():
                    ray.kill(ray.get_runtime_context().current_actor)

    def _is_left(self) -> bool:
        """Tell whether there is nothing to do, and nobody has asked for a long time."""
        idle = all(entry.outcome is not None for entry in self._entries.values())
        alone = time.monotonic() - self._seen > self._setup["kept"]
        return alone and (idle or not self._places)

    def _look(self) -> None:
        self._nodes = [node for node in cluster_nodes() if self._needs().room(node.resources)]

    def _needs(self) -> WorkerNeeds:
        asked = self._setup
        gpus = asked["gpus"]
        if gpus is None:
            auto = asked["job"]["training"]["device"] == "auto"
            gpus = 1.0 if not auto or any("GPU" in n.resources for n in cluster_nodes()) else 0.0
        return WorkerNeeds(asked["cpus"], gpus, asked["memory"])

    def _most(self) -> int:
        """Return how many places there may be."""
        room = sum(self._needs().room(node.resources) for node in self._nodes)
        return int(self._setup["workers"] or room)

    def _kinds(self) -> set[str]:
        return {self._needs().kind(node.resources) for node in self._nodes}

    def _start_places(self) -> None:
        """Start a place of each kind that is to be measured, and as many as there is work for."""
        if self._refused:
            return
        if not self._nodes and self._setup["workers"] is None:
            if not self._stores:  # it never had one
                self._refuse(str(shortfall(self._needs(), cluster_nodes())))
            return
        if self._measuring:
            for node in self._to_measure():
                self._start(node)
            return
        left = sum(entry.outcome is None for entry in self._entries.values())
        for _ in range(len(self._places), min(self._most(), left)):
            self._start(None)
        if not any(
            entry.waits for entry in self._entries.values()
        ):  # what Ray has found no room for is not wanted any more
            for place in [place for place in self._places if place.node is None]:
                self._end(place)

    def _to_measure(self) -> list[ClusterNode]:
        """Return a node of each kind that has no size and no place yet."""
        kind = self._needs().kind
        has = {place.kind for place in self._places} | self._sizes.keys()
        by_kind = {kind(node.resources): node for node in reversed(self._nodes)}
        return [node for name, node in by_kind.items() if name not in has]

    def _start(self, node: ClusterNode | None) -> None:
        """Start a place on a node, or where Ray finds room."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        strategy = "SPREAD" if node is None else NodeAffinitySchedulingStrategy(node.key, soft=True)
        needs = self._needs()
        made = ray.remote(RayPlace).options(
            **needs.options(), scheduling_strategy=strategy, max_restarts=0
        )
        desk = ray.get_runtime_context().current_actor
        place = DeskPlace(made.remote(desk, self._setup))
        place.kind = "" if node is None else needs.kind(node.resources)
        place.task = asyncio.create_task(self._serve(place))
        self._places.append(place)

    def _end(self, place: DeskPlace) -> None:
        import ray

        if place in self._places:
            self._places.remove(place)
            with suppress(ray.exceptions.RayError, ValueError):
                ray.kill(place.actor)
            if place.task is not None and place.task is not asyncio.current_task():
                place.task.cancel()

    async def _serve(self, place: DeskPlace) -> None:
        """Have a place train while there is work."""
        try:
            await self._settle(place)
            self._failed = 0
            idle = time.monotonic()
            while time.monotonic() - idle < IDLE:
                entry = self._next()
                if entry is None:
                    await asyncio.sleep(TICK / 5)
                    continue
                if not await self._train(place, entry):
                    await self._find_again(place)
                idle = time.monotonic()
        except Exception as error:  # the place's process or node has died, or it never began
            if place.node is None or place.kind not in self._sizes:
                self._start_failed(one_line(error))
        finally:
            self._end(place)

    def _start_failed(self, reason: str) -> None:
        self._failed += 1
        if self._failed >= STARTS:
            self._refuse(
                f"Ray: a worker failed to start {STARTS} times: {reason}; install the same "
                "version of mixopt[ray] on all nodes"
            )

    async def _settle(self, place: DeskPlace) -> None:
        """Wait until a place is on a node, with the corpus, and measured."""
        where = await place.actor.where.remote()
        node = next(node for node in cluster_nodes() if node.key == where["key"])
        if where["version"] != self._setup["version"]:
            ours, theirs = self._setup["version"], where["version"]
            self._refuse(f"Ray: node {node.name} has mixopt {theirs}, and the owner {ours}")
        needs = self._needs()
        place.kind = needs.kind(node.resources)
        found = await self._on_node(node, place)
        await place.actor.settle.remote(found, node.name, place.kind, needs.gpus)
        place.node = node
        if place.kind not in self._sizes:
            measured = await place.actor.measure.remote()
            if "error" in measured:
                self._refuse(measured["error"])
            self._sizes.setdefault(place.kind, measured.get("size", 1))
            self._wake()

    async def _on_node(self, node: ClusterNode, place: DeskPlace) -> dict[str, Any]:
        """Return what a node has for the sweep; the first place on it finds out."""
        if node.key not in self._stores:
            self._stores[node.key] = asyncio.create_task(self._prepare(node, place))
        try:
            return await asyncio.shield(self._stores[node.key])
        except BaseException:
            if node.key in self._stores and self._stores[node.key].done():
                del self._stores[node.key]
            raise

    async def _prepare(self, node: ClusterNode, place: DeskPlace) -> dict[str, Any]:
        """Wait until a node has the corpus; its owner is asked for it where it is not there."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        found: dict[str, Any] = await place.actor.look.remote(node.name)
        if found["corpus"] is not None:
            return found
        on_node = NodeAffinitySchedulingStrategy(node.key, soft=False)
        made = ray.remote(NodeStore).options(num_cpus=0, scheduling_strategy=on_node)
        store = made.remote(self._setup, node.name)
        while found["corpus"] is None:
            future = asyncio.get_running_loop().create_future()
            self._wanted[node.key] = (store, node.name, found["reason"], future)
            self._wake()
            await future
            found = await store.look.remote()
        return found

    def _next(self) -> DeskEntry | None:
        return next((entry for entry in self._entries.values() if entry.waits), None)

    async def _train(self, place: DeskPlace, entry: DeskEntry) -> bool:
        """Have a place train a group, which a place that dies loses.

        Returns:
            Whether it has; not where the corpus is not what it was.
        """
        import ray

        entry.place, begun = place, time.monotonic()
        size = self._sizes[place.kind]
        try:
            outcome = await place.actor.train.remote(entry.key, entry.trials, size)
        except ray.exceptions.RayError as error:
            memory = isinstance(error, ray.exceptions.OutOfMemoryError)
            where = "" if place.node is None else place.node.name
            lost = entry.lost(
                f"{where}: {one_line(error)}", size, self._needs().gpus, memory=memory
            )
            entry.outcome = {**lost, "seconds": time.monotonic() - begun}
            raise
        else:
            entry.outcome = None if "corpus" in outcome else outcome
            return entry.outcome is not None
        finally:
            entry.place = entry.progress = None
            self._wake()

    async def _find_again(self, place: DeskPlace) -> None:
        """Look for the corpus on a node once more, where it has changed under the sweep."""
        node = place.node
        assert node is not None
        self._stores.pop(node.key, None)
        found = await self._on_node(node, place)
        await place.actor.settle.remote(found, node.name, place.kind, self._needs().gpus)

    def _forget(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None and entry.place is not None:
            self._end(entry.place)

    def _refuse(self, reason: str) -> None:
        self._refused = reason
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
