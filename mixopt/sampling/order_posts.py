"""Exchange of sample orders between ranks while they iterate, without a collective.

A collective in an iterator would hang, or meet the loop's own, wherever one rank alone iterates: an
evaluation on rank 0, a look at the first batches, ranks that are some batches apart. So each rank
posts a hash of its order in the key-value store by which torch.distributed started, every `EVERY`
batches that its sampler has given, and compares what was posted one time earlier: training holds
its ranks together, so that all have posted by then. Two ranks differ where either has posted an
order, of samplers that were made as the same one of their process, that the other has not. A rank
that posts nothing is not waited for, but for a few seconds in all.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar

from mixopt.sampling.process_rank import RankPart, check_nothing_is_shared

EVERY = 25  # batches
PATIENCE = 5.0  # seconds for the others' posts, and for them to read a difference
_PREFIX = "mixopt/order"
_LONGEST_PAUSE = 0.02
_MADE = itertools.count()  # samplers of several ranks; the same one has the same number on each


class _Unanswered:
    """The seconds that this process may still wait for ranks that do not iterate."""

    left = PATIENCE


class OrderPosts:
    """The posts of one sampler of one rank."""

    def __init__(self, part: RankPart) -> None:
        """Number the sampler, if its batches are split over ranks."""
        self._part = part
        self._number = next(_MADE) if part.world_size > 1 else -1
        self.begin()

    def begin(self) -> None:
        """Count batches from here, as the other ranks do that resume from the same state."""
        self._given = 0
        self._earlier: tuple[str, str] | None = None

    @property
    def is_due(self) -> bool:
        """Count a batch that was given; tell whether an order is posted after it."""
        self._given += 1
        return self._given % EVERY == 0

    def check_part(self) -> None:
        """Check a rank of the job again before the first batch: its groups may have come since."""
        if not self._given and self._part.of_job:
            check_nothing_is_shared()

    def takes_in(self, distributed: Any) -> bool:
        """Whether the batches are split over just the processes of this job, or over its mesh."""
        here = distributed.get_rank(), distributed.get_world_size()
        return self._part.of_mesh or here == self._part[:2]

    def difference(
        self, distributed: Any, digest: str, order: Mapping[str, Any]
    ) -> list[Any] | None:
        """Post an order; where those posted before differ, return the orders of all ranks.

        Args:
            distributed: torch.distributed, initialised.
            digest: Of all that the order follows from.
            order: What others say where theirs is another.

        Returns:
            The order of each rank; None for a rank that has posted none.
        """
        store = _store(distributed)
        if store is None:
            return None
        with suppress(RuntimeError, ValueError):  # the store has gone: another rank has ended
            board = _Board(store, distributed.get_rank(), distributed.get_world_size())
            place, post = f"{_PREFIX}/{self._given}", f"{self._number}:{digest}"
            board.add(place, post, order)
            earlier, self._earlier = self._earlier, (place, post)
            found = None if earlier is None else board.difference(*earlier)
            if found is not None:
                return found
            board.wait_for_all(place)
            board.forget(f"{_PREFIX}/{self._given - 4 * EVERY}")
        return None


class _Board:
    """The posts of all ranks after so many batches."""

    posted: ClassVar[dict[str, dict[str, Any]]] = {}  # orders by place and post, of this process

    def __init__(self, store: Any, rank: int, ranks: int) -> None:
        self._store, self._rank, self._ranks = store, rank, ranks

    def add(self, place: str, post: str, order: Mapping[str, Any]) -> None:
        mine = self.posted.setdefault(place, {})
        if post in mine:
            return
        mine[post] = order
        self._store.set(f"{place}/of/{self._rank}", json.dumps(mine))
        self._store.add(f"{place}/{post}", 1)
        if len(mine) == 1:
            self._store.add(f"{place}/ranks", 1)

    def wait_for_all(self, place: str) -> None:
        """Wait for ranks that are about to post; not for long for those that never do."""
        start = time.monotonic()
        if not self._reached(f"{place}/ranks", _Unanswered.left):
            _Unanswered.left -= time.monotonic() - start

    def difference(self, place: str, post: str) -> list[Any] | None:
        """Return the ranks' orders where a rank has posted another one instead of this."""
        if self._store.add(f"{place}/{post}", 0) >= self._ranks:
            return None
        mine, number = self.posted.get(place, {}), post.partition(":")[0]
        found: list[Any] = [mine.get(post) if k == self._rank else None for k in range(self._ranks)]
        differs = False
        for rank in set(range(self._ranks)) - {self._rank}:
            theirs = self._read(f"{place}/of/{rank}") or {}
            others = [one for one in theirs if one.partition(":")[0] == number]
            found[rank] = theirs.get(post) or next((theirs[one] for one in others), None)
            differs |= post not in theirs and any(one not in mine for one in others)
        if not differs:
            return None
        with suppress(RuntimeError):  # the store ends with the first rank, which waits for others
            self._store.add(f"{place}/read", 1)
            self._reached(f"{place}/read", PATIENCE)
        return found

    def forget(self, place: str) -> None:
        """Remove posts that all have compared."""
        for post in self.posted.pop(place, {}):
            self._store.delete_key(f"{place}/{post}")
        for name in (f"of/{self._rank}", "ranks"):
            self._store.delete_key(f"{place}/{name}")

    def _reached(self, key: str, seconds: float) -> bool:
        end, pause = time.monotonic() + seconds, 0.0002
        while self._store.add(key, 0) < self._ranks:
            if time.monotonic() >= end:
                return False
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        return True

    def _read(self, key: str) -> Any:
        return json.loads(self._store.get(key)) if self._store.check([key]) else None


def _store(distributed: Any) -> Any:
    """Return the store of the default group; None where it has none."""
    found: Any = sys.modules.get("torch.distributed.distributed_c10d")
    with suppress(AttributeError, RuntimeError, ValueError):
        return found._get_default_store()
    return None
