"""Fixed mixtures: the baseline of every online method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mixopt.online import Plan
from mixopt.system import Array
from mixopt_regressors.online.online_estimator import OnlineEstimator
from mixopt_regressors.online.seen import Seen


class _Static(OnlineEstimator):
    def _first(self) -> Plan:
        return Plan(self.bounded(self._mixture()), self.setting.steps, self.name)

    def _next(self, seen: Seen) -> Plan:
        raise AssertionError("its plan lasts as long as the run")

    def _remapped(self) -> None:
        self._adopt(self._first())

    def _mixture(self) -> Array:
        raise NotImplementedError


@dataclass(eq=False)
class StratifiedEstimator(_Static):
    """The same share of each domain."""

    name: ClassVar[str] = "stratified"

    def _mixture(self) -> Array:
        return np.ones(len(self.setting.domains))


@dataclass(eq=False)
class NaturalEstimator(_Static):
    """Each domain's share of the corpus."""

    name: ClassVar[str] = "natural"

    def _mixture(self) -> Array:
        return self.setting.natural_D
