"""Compare the hashes of shards with those of their index: once a node, however many processes ask.

One process hashes what no process has hashed before, and the others wait for it. What was hashed
is remembered in the folder, or where that cannot be written in this node's cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

from mixopt.corpus.index_files import PREPARE_AGAIN
from mixopt.corpus.known_shards import node_folder
from mixopt.corpus.shard import Shard
from mixopt.errors import RunError, ShardError
from mixopt.system import FileRecord, Verifier, made_once, usable_cores

_Known = tuple[str, FileRecord, Path]
ALONE = 1 << 26  # bytes that every process hashes for itself, sooner than it would wait


def check_hashes(
    folder: Path, shards: Sequence[Shard], item: int, *, is_locked: bool = False
) -> None:
    """Check that each shard has the hash that its index says.

    Args:
        folder: Where they are, each of its size.
        shards: What they are.
        item: Bytes of a token.
        is_locked: Whether this process keeps the others of its node waiting already.

    Raises:
        ShardError: One has another hash.
    """
    hashes = _Hashes(folder, shards, item)
    if is_locked or hashes.unknown_bytes() <= ALONE:
        hashes.compare()
        return
    with suppress(RuntimeError, RunError):  # no home, or a cache that cannot be written
        made_once(node_folder(folder), hashes.known_by_now, hashes.compare)
        return
    hashes.compare()


class _Hashes:
    """The hashes of one folder's shards, and what is remembered of them."""

    def __init__(self, folder: Path, shards: Sequence[Shard], item: int) -> None:
        self._folder = folder
        self._records = [
            (one.file, FileRecord(one.tokens * item, one.sha256), folder / one.file)
            for one in shards
        ]
        self._elsewhere: Path | None = None
        with suppress(RuntimeError):
            self._elsewhere = node_folder(folder)
        self._verifier = self._remembered()

    def _remembered(self) -> Verifier:
        return Verifier(self._folder, elsewhere=self._elsewhere)

    def unknown_bytes(self) -> int:
        knows = self._verifier.knows
        return sum(known[1].bytes for known in self._records if not knows(*known))

    def known_by_now(self) -> bool | None:
        self._verifier = self._remembered()
        return True if self.unknown_bytes() <= ALONE and self.compare() else None

    def compare(self) -> bool:
        with ExitStack() as held:
            check: Callable[..., Iterator[str | None]] = map
            if self.unknown_bytes() > ALONE:  # hashes of several files run on several cores
                pool = held.enter_context(ThreadPoolExecutor(usable_cores()))
                held.callback(pool.shutdown, cancel_futures=True)
                check = pool.map
            for fault in check(self._fault, self._records):
                if fault is not None:
                    raise ShardError(f"{fault}; {PREPARE_AGAIN}")
        self._verifier.remember()
        return True

    def _fault(self, known: _Known) -> str | None:
        name, record, path = known
        fault = self._verifier.fault(name, record, path=path)
        if fault is not None and "sha256" in fault:
            fault = f"SHA-256 is not {record.sha256[:12]}…, the one in its index"
        return None if fault is None else f"{path}: altered: {fault}"
