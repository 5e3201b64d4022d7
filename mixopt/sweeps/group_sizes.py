"""Trials that a kind of device trains together: `group_sizes.json`, measured once per kind.

A kind on which memory was short twice takes half as many from then on; once may have been chance,
or somebody else's memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import Field

from mixopt.errors import RunError
from mixopt.system import read_json, write_json
from mixopt.trials import SIZES

_Sizes = dict[str, Annotated[int, Field(ge=1, le=1_000_000)]]


class GroupSizes:
    """Sizes by kind of device, kept in a folder of trials; safe to use from several threads."""

    def __init__(self, folder: Path | None) -> None:
        """Read what was measured before; a file that cannot be used counts as none.

        Args:
            folder: Where they are kept; nowhere when None, as on a node that has no such folder.
        """
        self._file = None if folder is None else folder / SIZES
        self._short: dict[str, int] = {}
        self._sizes: dict[str, int] = {}
        self._lock = threading.Lock()
        if self._file is not None:
            with suppress(RunError):
                self._sizes = read_json(self._file, _Sizes)

    def __contains__(self, kind: str) -> bool:
        """Tell whether a kind was measured."""
        return kind in self._sizes

    def __getitem__(self, kind: str) -> int:
        """Return the size of a kind that was measured."""
        return self._sizes[kind]

    def known(self) -> dict[str, int]:
        """Return the size of each kind that was measured."""
        return dict(self._sizes)

    def measure(self, kind: str, ask: Callable[[], int]) -> int:
        """Return the size of a kind; of one that is new, what `ask` says."""
        if kind not in self._sizes:
            size = ask()
            with self._lock:
                self._sizes.setdefault(kind, size)
                self._write()
        return self._sizes[kind]

    def short_of_memory(self, kind: str, trials: int) -> None:
        """Note that memory was short on a kind of device for so many trials together."""
        with self._lock:
            before = self._short.get(kind)
            self._short[kind] = trials if before is None else min(trials, before)
            if before is not None and kind in self._sizes:
                self._sizes[kind] = max(1, min(self._sizes[kind], max(trials, before) // 2))
                self._write()

    def _write(self) -> None:
        if self._file is not None:
            write_json(self._file, self._sizes)
