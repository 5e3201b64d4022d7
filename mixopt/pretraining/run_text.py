"""The interface of a run's text, a corpus on disk or streams, and its batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from mixopt.corpus import Domain
from mixopt.mixture import Mixture
from mixopt.sampling import MixtureSampler


class RunText(Protocol):
    """Domains to train on, and held-out text of them and of targets."""

    @property
    def vocab_size(self) -> int:
        """Ids of the tokenizer."""
        ...

    @property
    def domains(self) -> tuple[Domain, ...]:
        """The domains that can be trained on."""
        ...

    @property
    def domain_names(self) -> tuple[str, ...]:
        """Names of the domains that can be trained on."""
        ...

    @property
    def evaluation(self) -> tuple[Domain, ...]:
        """The domains, then the targets, with their held-out text."""
        ...

    @property
    def evaluation_names(self) -> tuple[str, ...]:
        """Their names."""
        ...

    @property
    def inventory(self) -> Mapping[str, int] | None:
        """Available tokens of each domain; None where that is not known."""
        ...

    @property
    def natural(self) -> Mixture | None:
        """Each domain's share of the available tokens; None where that is not known."""
        ...


class RankBatches(Protocol):
    """This rank's part of each global batch, and the state after those received."""

    @property
    def sampler(self) -> MixtureSampler:
        """The order of the samples."""
        ...

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the batches from the next one to the last of the run."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the state, ready for JSON; rank 0's is kept."""
        ...

    def load_state_dict(
        self, state: Mapping[str, Any], *, map_domains: Mapping[str, str | None] | None = None
    ) -> None:
        """Resume from a state."""
        ...
