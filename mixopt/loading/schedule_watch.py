"""Give a running job another schedule: a file that rank 0 looks at, and all ranks follow.

Every `EVERY` batches each rank comes by here. Rank 0 looks at the file's stamp, not more often than
every few seconds; another file that is a right schedule is posted, with the batch from which it
holds, in the key-value store by which torch.distributed started. The other ranks read the post
`EVERY` batches later, before that batch: training holds ranks together, so that nobody waits. No
collective is used, which would meet the loop's own. A file that is wrong is a warning, once, and
changes nothing; nor does one that says the same as before. What is past stays.

Nothing is kept in a checkpoint but the weights themselves, those to come included. A job that
continues looks at the file again.
"""

from __future__ import annotations

import itertools
import json
import logging
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from mixopt.errors import MixoptError, SamplerError
from mixopt.sampling import MixtureSampler, Schedule

EVERY = 10  # batches between two looks, and from a look to what it changes
SECONDS = 5.0  # between two looks at the file, at least
_PREFIX = "mixopt/schedule"
_MADE = itertools.count()  # watches; the same one has the same number on each rank

Post = tuple[dict[str, Any], int]


class ScheduleWatch:
    """The file that a loader's schedule may come from."""

    def __init__(self, file: str | Path, *, seconds: float = SECONDS) -> None:
        """Watch a file, which need not be there yet.

        Args:
            file: A schedule.
            seconds: Between two looks at it, at least.
        """
        self._file, self._seconds = Path(file), seconds
        self._number, self._iterations = next(_MADE), 0
        self._stamp: tuple[int, int, int] | None = None
        self._looked = -seconds
        self._own: dict[int, str] = {}

    def begin(self, sampler: MixtureSampler) -> None:
        """Begin an iteration; every rank does, at the same batch."""
        self._iterations += 1
        self._first = sampler.batch + -sampler.batch % EVERY or EVERY
        self._stamp, self._own = None, {}

    def look(self, sampler: MixtureSampler) -> None:
        """Come by after a batch was received.

        Raises:
            SamplerError: Rank 0 does not iterate, or is far behind.
        """
        batch = sampler.batch
        if batch % EVERY or batch < self._first:
            return
        board = _Posts(f"{_PREFIX}/{self._number}/{self._iterations}", self._own)
        if board.is_first:
            board.put(batch, self._found(sampler))
        if batch - EVERY >= self._first:
            post = board.get(batch - EVERY)
            if post is not None:
                content, start = post
                schedule = Schedule.from_content(content, str(self._file))
                sampler.set_schedule(schedule, start)
        board.forget(batch - 4 * EVERY)

    def _found(self, sampler: MixtureSampler) -> Post | None:
        """Return the schedule of a file that is another one than at the last look."""
        now = time.monotonic()
        if now - self._looked < self._seconds:
            return None
        self._looked = now
        stamp = self._stamp_now()
        if stamp is None or stamp == self._stamp:
            return None
        self._stamp = stamp
        try:
            schedule = Schedule.from_file(self._file)
            MixtureSampler(sampler.sizes, schedule=schedule, rank=0, world_size=1)
            for name, here, there in (
                ("batch", sampler.batch_size, schedule.batch),
                ("steps", sampler.batches, schedule.steps),
            ):
                if here not in {None, there}:
                    raise SamplerError(f"{name}: {there}, and the job has {here}")
        except MixoptError as error:
            text = str(error)
            where = "" if text.startswith(str(self._file)) else f"{self._file}: "
            logging.getLogger("mixopt.loading").warning(
                "%s%s; the schedule is unchanged", where, text
            )
            return None
        content = {n: v for n, v in schedule.to_json().items() if n != "provenance"}
        return content, sampler.first_change(EVERY)

    def _stamp_now(self) -> tuple[int, int, int] | None:
        with suppress(OSError):
            found = self._file.stat()
            return found.st_mtime_ns, found.st_size, found.st_ino
        return None


class _Posts:
    """What rank 0 has found, by batch; of one process alone it is kept here."""

    def __init__(self, prefix: str, own: dict[int, str]) -> None:
        self._prefix, self._own = prefix, own
        self._store, self._rank = _store_and_rank()
        self.is_first = self._rank == 0

    def put(self, batch: int, post: Post | None) -> None:
        text = json.dumps(post)
        self._own[batch] = text
        if self._store is not None:
            self._store.set(f"{self._prefix}/{batch}", text)

    def get(self, batch: int) -> Post | None:
        if self.is_first:
            text: str | bytes = self._own[batch]
        else:
            try:
                text = self._store.get(f"{self._prefix}/{batch}")
            except RuntimeError as error:
                raise SamplerError(
                    f"watch: rank 0 has not reached batch {batch}; every rank must iterate a "
                    "loader that watches a schedule"
                ) from error
        found = json.loads(text)
        return None if found is None else (found[0], found[1])

    def forget(self, batch: int) -> None:
        """Remove a post that all have read."""
        if self._own.pop(batch, None) is not None and self._store is not None:
            self._store.delete_key(f"{self._prefix}/{batch}")


def _store_and_rank() -> tuple[Any, int]:
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None, 0
    if distributed.get_world_size() == 1:
        return None, 0
    inside: Any = sys.modules["torch.distributed.distributed_c10d"]
    return inside._get_default_store(), distributed.get_rank()
