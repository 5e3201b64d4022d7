"""Keep a mixture's state in torch.distributed.checkpoint, as torchtitan and others do.

The state is one global entry, the same on every rank, so it loads on any number of ranks.
"""

from __future__ import annotations

import json
from typing import Any

from torch.distributed.checkpoint.stateful import Stateful

from mixopt.errors import SamplerError
from mixopt.loading import MixtureLoader, MixtureStream
from mixopt.online import Driver
from mixopt.sampling import MixtureSampler, check_ranks
from mixopt.system import StateFields, parse_json

_KEY = "mixture"


class MixtureState(Stateful):
    """An entry for the dictionary passed to `torch.distributed.checkpoint.save` and `load`."""

    def __init__(self, mixture: MixtureLoader | MixtureStream | MixtureSampler | Driver) -> None:
        """Wrap a loader, stream, sampler or driver.

        Args:
            mixture: The object to save and to resume.
        """
        self._mixture = mixture

    def state_dict(self) -> dict[str, Any]:
        """Return the state as one entry, which a checkpoint of any length can replace.

        torch calls this on every rank, so the ranks are compared here.

        Raises:
            SamplerError: Ranks differ in their order of samples; the message names the rank.
        """
        sampler = getattr(self._mixture, "sampler", self._mixture)
        if isinstance(sampler, MixtureSampler):
            check_ranks(sampler)
        return {_KEY: json.dumps(self._mixture.state_dict())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from a state.

        Raises:
            MixoptError: A damaged state, or one of another run; nothing is changed.
        """
        fields = StateFields(state_dict, "the checkpoint's mixture", SamplerError)
        state = parse_json(fields.text(_KEY), fields.where, error=SamplerError)
        self._mixture.load_state_dict(state)
