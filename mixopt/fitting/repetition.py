"""How often trials repeat their domains: epochs = weight x tokens / inventory.

Regressors that know of epochs have the parameters `inventory` and `tokens`; a fit fills them in
where the inventory and the trials' tokens are known. With simulated epochs
(mixopt.trials.simulated_epochs) both are those of the full run, since a trial repeats its pools as
often.

Shapes: N trials, D domains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from mixopt.errors import TrialsError
from mixopt.fitting.capabilities import Regressor, parameters_called, supports_parameters

if TYPE_CHECKING:
    from mixopt.trials import Trials

OFTEN = 2.0  # epochs up to here are nearly as good as fresh text
SHARE = 0.1  # of the trials, that must repeat a domain more often for a law of it to be learned
ONE_LENGTH = 1.01  # rounding to whole steps moves the tokens of a trial by less


@dataclass(frozen=True)
class Repetition:
    """What epochs are made from.

    Attributes:
        inventory: Distinct tokens of each domain, > 0, in the order of the trials' domains.
        tokens: That each trial is trained on, > 0.
    """

    inventory: tuple[float, ...]
    tokens: float

    @classmethod
    def of_trials(cls, trials: Trials, inventory: Mapping[str, float]) -> Repetition:
        """Take the tokens from a table of trials.

        Args:
            trials: Finished ones.
            inventory: Distinct tokens by domain.

        Raises:
            TrialsError: A trial has no tokens, or they are not the same in all.
        """
        tokens = trials.table["tokens"].to_list()
        if None in tokens or min(tokens) < 1:
            raise TrialsError(
                "--inventory: epochs need the tokens of each trial too: give the table a column"
                " 'tokens'"
            )
        if max(tokens) > ONE_LENGTH * min(tokens):
            raise TrialsError(
                f"--inventory: the trials are of {min(tokens)} to {max(tokens)} tokens, but a law "
                "of epochs needs a single length: give trials of one length"
            )
        return cls(tuple(float(inventory[name]) for name in trials.domains), float(tokens[0]))

    def epochs(self, weights_ND: ArrayLike) -> Any:
        """Return how often each trial goes through each domain, shape (N, D)."""
        return np.asarray(weights_ND) * self.tokens / np.array(self.inventory)

    def is_learnable(self, weights_ND: ArrayLike) -> bool:
        """Tell whether enough trials repeat a domain more often than costs nothing."""
        return bool((self.epochs(weights_ND).max(axis=1) > OFTEN).mean() >= SHARE)

    def given_to(self, regressor: Regressor) -> Regressor:
        """Fill in a regressor's `inventory` and `tokens`, unless it has its own."""
        if not supports_parameters(regressor):
            return regressor
        facts: Mapping[str, Any] = {"inventory": list(self.inventory), "tokens": self.tokens}
        wanted = {
            parameter: value
            for name, value in facts.items()
            for parameter, own in parameters_called(regressor, name).items()
            if own is None
        }
        return regressor.set_params(**wanted) if wanted else regressor

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as plain values."""
        return {"inventory": list(self.inventory), "tokens": self.tokens}
