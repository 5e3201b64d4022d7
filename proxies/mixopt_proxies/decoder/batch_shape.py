"""How many tokens a step reads, and in what form: all that batches and held-out text depend on."""

from __future__ import annotations

from typing import Protocol


class BatchShape(Protocol):
    """Sequences of one trial and step."""

    @property
    def sequence_length(self) -> int:
        """Tokens predicted in a row."""
        ...

    @property
    def batch(self) -> int:
        """Sequences of a step."""
        ...

    @property
    def step_tokens(self) -> int:
        """Tokens of a step."""
        ...
