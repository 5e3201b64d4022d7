"""Rows of a streamed domain, read, tokenised and packed in a thread while steps are taken.

Which rows a domain gives does not depend on weights, so what was read ahead never goes stale.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mixopt.loading import DomainRows, InThread


class RowsAhead:
    """Gives the rows in their order; the state is that of the rows that were taken.

    Attributes:
        epoch: How often the source had been read to its end before the last row taken.
    """

    def __init__(self, rows: DomainRows, ahead: int) -> None:
        """Begin where the rows are; nothing is read before the first is asked for.

        Args:
            rows: The rows, which nothing else takes.
            ahead: Most rows that are kept ready, >= 1.
        """
        self._rows, self._ahead = rows, ahead
        self._state, self.epoch = rows.state_dict(), 0
        self._thread: InThread | None = None
        self._taken: Iterator[Any] = iter(())

    def __next__(self) -> Any:
        """Return the next row.

        Raises:
            CorpusError: The source cannot be read, or gives nothing.
        """
        if self._thread is None:
            self._thread = InThread(self._read(), self._ahead)
            self._taken = iter(self._thread)
        row, self.epoch, self._state = next(self._taken)
        return row

    def state_dict(self) -> dict[str, Any]:
        """Return the state after the rows taken."""
        return self._state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a state, before the first row is asked for."""
        self._rows.load_state_dict(state)
        self._state = self._rows.state_dict()

    def close(self) -> None:
        """End the thread."""
        if self._thread is not None:
            self._thread.close()

    def _read(self) -> Iterator[Iterator[Any]]:
        while True:
            row = next(self._rows)
            yield iter([(row, self._rows.epoch, self._rows.state_dict())])
